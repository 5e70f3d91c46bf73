"""An agent of root's that serves users, in a directory that they get through, and a scripted hub for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lanai.model.ids import GrantId, grant_id
from lanai.model.job import AttemptResult
from lanai.wire import messages as wire
from services.agent_hub import ScriptedHub, grant, listening, spec
from services.agent_process import AgentProcess
from services.users import needs_root, open_directory


class RootAgent:
    """The three, as long as a test lasts."""

    def __init__(self, ground: Path, hub: ScriptedHub) -> None:
        self.ground = ground
        self.hub = hub
        self.agent = AgentProcess(ground / "agent", f"unix:{ground}/hub.sock")
        self._ended: dict[GrantId, dict[int, AttemptResult]] = {}

    def join(self, *arguments: str, cpus: int = 4) -> ScriptedHub:
        """Start the agent, and let it in."""
        self.agent.start("--as-users", *arguments, cpus=cpus)
        self.hub.accept()
        assert self.hub.inventory() == []
        return self.hub

    def name_spec(self, number: int, user: str, *, cwd: str = "/tmp", **rest: object) -> None:
        """Tell the agent of a spec, and of a batch of that number."""
        self.hub.send(spec(number, batch=number, user=user, cwd=cwd, **rest))

    def give(self, counter: int, *lines: str, number: int) -> None:
        """Grant commands of the batch of that number."""
        self.hub.send(grant(counter, [line.encode() for line in lines], number=number))

    def results(self, counter: int, count: int = 1) -> list[AttemptResult]:
        """How the jobs of a grant have ended, by index."""
        ended = self._ended.setdefault(grant_id(1, counter), {})
        while len(ended) < count:
            for result in self.hub.wait(wire.Ended).results:
                self._ended.setdefault(result.grant, {})[result.index] = result
        return [ended[index] for index in sorted(ended)]


@contextlib.contextmanager
def root_agent() -> Iterator[RootAgent]:
    """Nothing runs yet; whatever runs at the end is ended."""
    needs_root()
    with open_directory() as ground, listening(ground / "hub.sock") as hub:
        made = RootAgent(ground, hub)
        try:
            yield made
        finally:
            made.agent.clean_up()
