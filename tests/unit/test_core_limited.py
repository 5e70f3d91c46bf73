"""What would change that a limit holds a job: what has to end, what could be asked for, who could raise it."""

from __future__ import annotations

from typing import Any

import pytest

from core_recorder import GIB, SECOND, Recorder, capacity
from lanai.core import advice
from lanai.core.events import PolicyChanged
from lanai.model.ids import BatchId
from lanai.model.policy import (
    EVERYONE,
    AccountPolicy,
    Bound,
    GroupPolicy,
    Limits,
    Policy,
    ServicePolicy,
    UserPolicy,
)
from lanai.model.policy_file import policy_from_toml
from lanai.model.resources import Shape

MINUTE = 60 * SECOND
SHORT = Shape(time_limit_us=10 * MINUTE)
ADMINISTRATOR = " in the policy, which an administrator changes with `lanai policy apply`, is enough for it"


@pytest.fixture
def hub() -> Recorder:
    made = Recorder()
    made.join("n", capacity(cpus=16, gib=64))
    return made


def settle(hub: Recorder, **about: Any) -> None:
    """The policy is this from now on."""
    hub.feed(PolicyChanged(1, Policy(**about), 0))
    hub.answer()
    hub.take_all()


def changes(hub: Recorder, batch: BatchId) -> list[str]:
    """What would change that the first of the batch waits, after a pass that has found out why."""
    hub.start()
    return advice.changes(hub.core.world, hub.batch(batch), None)


def most(soft: int, hard: int = 0, thing: str = "jobs") -> Limits:
    return Limits(**{thing: Bound(soft, hard or soft)})


@pytest.mark.parametrize(
    ("about", "whose", "table"),
    [
        ({"users": {"ann": UserPolicy(limits=most(1))}}, "user ann", "[users.ann.limits]"),
        ({"users": {EVERYONE: UserPolicy(limits=most(1))}}, "user ann", '[users."*".limits]'),
        ({"groups": {"lab": GroupPolicy(members=("ann",), limits=most(1))}}, "group lab", "[groups.lab.limits]"),
        ({"accounts": {"default": AccountPolicy(limits=most(1))}}, "account default", "[accounts.default.limits]"),
        ({"services": {"normal": ServicePolicy(limits=most(1))}}, "service normal", "[services.normal.limits]"),
        ({"batch_limits": most(1)}, "batch 1", "[batch_limits]"),
        ({"limits": most(1)}, "the hub", "[limits]"),
    ],
)
def test_whose_limit_it_is_and_where_it_can_be_raised(
    hub: Recorder, about: dict[str, Any], whose: str, table: str
) -> None:
    settle(hub, **about)
    batch = hub.submit(2, shape=SHORT)
    ended, raised = changes(hub, batch)
    assert ended == f"when the one job of {whose} at nodes has ended; a job of batch 1 on n is the first, in 10m"
    assert raised == f"`jobs = 2` or more under {table}{ADMINISTRATOR}"
    assert policy_from_toml(f"{table}\njobs = 2\n" + ("[groups.lab]\nmembers=['ann']" if "lab" in table else ""), "p")


def test_what_is_said_lets_it_start(hub: Recorder) -> None:
    settle(hub, users={"ann": UserPolicy(limits=most(5000, thing="cpus"))})
    hub.submit(1, shape=Shape(cpu_milli=4000, time_limit_us=10 * MINUTE))
    batch = hub.submit(1, shape=Shape(cpu_milli=3000))
    assert changes(hub, batch) == [
        "when 2 of the 4 cpus that user ann has at nodes come free; a job of batch 1 on n is the first, in 10m",
        "with at most 1 cpus it would be within the limit",
        f"`cpus = 7` or more under [users.ann.limits]{ADMINISTRATOR}",
    ]
    settle(hub, users={"ann": UserPolicy(limits=most(7000, thing="cpus"))})
    assert [start.batch for start in hub.start()] == [batch]
    assert hub.counts(batch) == {"locked": 1}


@pytest.mark.parametrize(
    ("thing", "bound", "first", "then", "said"),
    [
        (
            "memory",
            Bound(6144, 6144),
            Shape(memory_bytes=4 * GIB),
            Shape(memory_bytes=3 * GIB),
            [
                "when 1 GiB of the 4 GiB memory that user ann has at nodes come free; nothing says when the first "
                "does: what runs has no time limit",
                "with at most 2 GiB memory it would be within the limit",
                '`memory = "7168M"` or more',
            ],
        ),
        (
            "cpu_seconds",
            Bound(900, 900),
            SHORT,
            Shape(time_limit_us=20 * MINUTE // 2, cpu_milli=1000),
            [
                "when the 600 cpu-seconds that user ann has still to take are 300 fewer; a job of batch 1 on n is "
                "the first, in 10m",
                "with --time of at most 5m it would be within the limit",
                "`cpu_seconds = 1200` or more",
            ],
        ),
    ],
)
def test_each_thing_in_its_unit(
    hub: Recorder, thing: str, bound: Bound, first: Shape, then: Shape, said: list[str]
) -> None:
    settle(hub, users={"ann": UserPolicy(limits=Limits(**{thing: bound}))})
    hub.submit(1, shape=first)
    hub.start()
    found = changes(hub, hub.submit(1, shape=then))
    assert [text.partition(" under [")[0] for text in found] == said


def test_over_several_nodes(hub: Recorder) -> None:
    for name in ("n2", "n3", "n4"):
        hub.join(name, capacity(cpus=16))
    settle(hub, users={"ann": UserPolicy(limits=most(3, thing="nodes"))})
    hub.submit(1, shape=Shape(nodes=2, time_limit_us=10 * MINUTE))
    hub.decide()
    hub.take_all()
    batch = hub.submit(1, shape=Shape(nodes=2))
    hub.decide()
    hub.take_all()
    first, within, _ = advice.changes(hub.core.world, hub.batch(batch), None)
    assert first.startswith("when 1 of the 2 nodes that user ann has at nodes come free; a job of batch 1 on n2 is the")
    assert within == "with --nodes 1 it would be within the limit"


def test_a_soft_limit_gives_way_to_nobody_else(hub: Recorder) -> None:
    """Ann is at her soft limit; bob, who has none, waits for more than there is, and nothing is backfilled."""
    settle(hub, backfill="none", users={"ann": UserPolicy(limits=most(1, 4))})
    ann = hub.submit(2, shape=SHORT)
    hub.submit(1, shape=Shape(cpu_milli=16000), user="bob")
    soft, raised = changes(hub, ann)
    assert soft == "beyond the soft limit it starts when nobody who is within his own waits for that room"
    assert raised == f"`jobs = [2, 4]` or more under [users.ann.limits]{ADMINISTRATOR}"


def test_a_service_and_an_account_where_there_is_room(hub: Recorder) -> None:
    settle(
        hub,
        services={
            "alone": ServicePolicy(),
            "one": ServicePolicy(limits=most(1)),
            "vip": ServicePolicy(users=("carl",)),
        },
        accounts={"chem": AccountPolicy(limits=most(1)), "physics": AccountPolicy()},
    )
    batch = hub.submit(2, service="one", shape=SHORT)
    where = "has it count there, where there is room by the limits"
    assert f"`lanai set {batch} --service normal` {where}" in changes(hub, batch)
    other = hub.submit(2, account="chem", shape=SHORT)
    assert f"`lanai set {other} --account default` {where}" in changes(hub, other)


def test_several_limits_hold_it(hub: Recorder) -> None:
    settle(hub, users={"ann": UserPolicy(limits=most(1))}, limits=most(1, thing="nodes"))
    batch = hub.submit(2, shape=SHORT)
    _, besides, raised = changes(hub, batch)
    other = "the hub has 1 of at most 1 nodes at nodes (soft 1, hard 1), and this needs 1"
    assert besides == f"besides, another limit is not to hold it: {other}"
    assert raised.startswith("`jobs = 2` or more under [users.ann.limits]")


def test_what_is_kept_for_the_first(hub: Recorder) -> None:
    settle(hub, users={"ann": UserPolicy(limits=most(4000, thing="cpus"))})
    hub.submit(1, shape=Shape(cpu_milli=3000, time_limit_us=10 * MINUTE))
    hub.start()
    large = hub.submit(1, shape=Shape(cpu_milli=2000))
    hub.start()
    small = hub.submit(1, shape=Shape(cpu_milli=1000))
    first, *_ = changes(hub, small)
    assert first == f"when batch {large}, which was first, has what is kept of the limit for it"


def test_waiting_jobs_that_are_not_considered(hub: Recorder) -> None:
    settle(hub, users={"ann": UserPolicy(limits=most(1, thing="waiting"))})
    hub.submit(1, shape=Shape(cpu_milli=16000))
    hub.start()
    hub.submit(1, shape=Shape(cpu_milli=16000))
    batch = hub.submit(1, shape=SHORT)
    assert changes(hub, batch) == [
        "when one of the waiting jobs of user ann that are in front of it has started",
        f"`waiting = 2` or more under [users.ann.limits]{ADMINISTRATOR}",
    ]
