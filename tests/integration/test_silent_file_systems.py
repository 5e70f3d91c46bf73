"""File systems that do not answer at all: whom they hold up, whom not, and how it goes on.

The agent opens nothing of its users'. A starter waits where the kernel waits, and that is its own user's affair.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.wire import messages as wire
from services.agent_hub import ScriptedHub, grant, spec
from services.agent_process import AgentProcess
from services.sickfs import SickFs
from services.users import made_users

ANNA, BERT, ANNA_HERE = 1, 2, 3

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def users() -> Iterator[list[pwd.struct_passwd]]:
    with made_users("anna", "bert") as made:
        yield made


@pytest.fixture
def shared(ground: Path, agent: AgentProcess) -> Iterator[SickFs]:
    """Gone before the agent is: nothing that waits for it could be ended."""
    made = SickFs(ground / "shared")
    yield made
    made.unmount()


@pytest.fixture
def joined(hub: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd], shared: SickFs) -> ScriptedHub:
    agent.start("--as-users", cpus=8)
    hub.accept(heartbeat_us=300_000)
    assert hub.inventory() == []
    anna, bert = users
    hub.send(
        spec(ANNA, batch=1, user=anna.pw_name, cwd=str(shared.point)),
        spec(BERT, batch=2, user=bert.pw_name, cwd=bert.pw_dir),
        spec(ANNA_HERE, batch=3, user=anna.pw_name, cwd=anna.pw_dir),
    )
    return hub


def outcomes(hub: ScriptedHub, count: int) -> list[tuple[int, str]]:
    found = hub.results(count)
    assert all(result.outcome == "ok" for result in found), found
    return sorted((result.index, result.outcome) for result in found)


def fall_silent(hub: ScriptedHub, shared: SickFs) -> None:
    """It answers nobody, and what was seen there before does not count any more."""
    shared.stop()
    await_beats(hub)


def await_beats(hub: ScriptedHub) -> None:
    """Until 0.3 s are over at least, as the agent tells them."""
    hub.heard = [message for message in hub.heard if not isinstance(message, wire.Heartbeat)]
    for _ in range(3):
        hub.wait(wire.Heartbeat)


def test_jobs_that_cannot_begin_there_go_back_and_all_others_run(joined: ScriptedHub, shared: SickFs) -> None:
    """Neither the agent nor Anna's starter waits there: her jobs elsewhere run, as Bert's; those there go back."""
    joined.send(grant(1, [b"true"], number=ANNA))
    assert outcomes(joined, 1) == [(1, "ok")]
    fall_silent(joined, shared)
    joined.send(grant(2, [b"true"] * 4, number=ANNA, first=10))
    for counter, who in enumerate((ANNA_HERE, BERT, ANNA_HERE), 3):
        joined.send(grant(counter, [b"true"] * 20, number=who, first=counter * 100))
        assert {outcome for _, outcome in outcomes(joined, 20)} == {"ok"}
    back = joined.wait(wire.Returned)
    assert sorted(index for _, index in back.items) == [10, 11, 12, 13]
    assert back.why == f"{shared.point}: no answer for 5 s"
    shared.go_on()
    await_beats(joined)  # whoever looked there has come back
    joined.send(grant(5, [b"true"] * 4, number=ANNA, first=10))
    assert outcomes(joined, 4) == [(index, "ok") for index in range(10, 14)]
