"""Passes of which each call makes no more than one promise, and what may happen between two of these.

Random worlds in virtual time. However often it is interrupted, a pass comes to its end, what it leaves is true of what
there is then, and a dry run in the middle of it changes nothing.
"""

from __future__ import annotations

import random

import pytest

from core_recorder import Recorder
from core_state import state
from lanai.core import events as ev
from lanai.core.nodes import Node
from lanai.core.rehearsal import rehearse
from lanai.core.schedule import decide as scheduler
from lanai.core.schedule.lines import Line
from lanai.model.ids import BatchId
from lanai.model.policy import Bound, Limits, Policy, UserPolicy
from random_site import Site

LIMITED = {"*": UserPolicy(limits=Limits(cpus=Bound(6000, 64_000)))}


class Interrupted(Site):
    """A site at which something may happen between any two calls of the core."""

    def __init__(self, hub: Recorder, seed: int) -> None:
        super().__init__(hub, seed, Policy())
        self.keeps_order = False
        self.is_interrupted = True
        self._dice = random.Random(seed)

    def decide(self) -> None:
        """As many calls as are wanted, and a look at everything."""
        world = self.hub.core.world
        world.wall_us = self.hub.now_us
        calls = 0  # since something happened last
        while True:
            self.hub.decide_once()
            self._carry_out()
            calls += 1
            if self.is_interrupted and self._dice.random() < 0.2:
                self._interrupt()
                calls = 0
            if not self.hub.core.needs_pass:
                break
            lines = sum(len(batch.lines) for batch in world.batches.values())
            assert calls < 20 + 6 * (lines + len(world.nodes)), "it comes to no end"
        self._check()
        self._check_promises()

    def _interrupt(self) -> None:
        hub, dice = self.hub, self._dice
        batch = dice.choice(list(hub.core.world.batches) or [BatchId(1)])
        node = dice.choice(list(hub.core.world.nodes.values()))
        match dice.randrange(7):
            case 0:
                self.submit()
            case 1:
                hub.feed(ev.JobsCancelled(1, batch, None, ("queued",), hub.now_us))
            case 2:
                hub.feed(ev.JobsHeld(1, batch, None, hub.now_us))
            case 3:
                hub.feed(ev.JobsReleased(1, batch, None, hub.now_us))
            case 4:
                hub.feed(ev.NodeWished(1, node.name, dice.choice(("drain", "resume", "resume")), hub.now_us))
            case 5:
                hub.feed(ev.PolicyChanged(1, self._any_policy(), hub.now_us))
            case _:
                before = state(hub.core)
                rehearse(hub.core.world, policy=dice.choice((None, self._any_policy())))
                assert state(hub.core) == before
        hub.take_all()

    def _any_policy(self) -> Policy:
        dice = self._dice
        return Policy(
            preset=dice.choice(("fair", "tight")),
            backfill=dice.choice(("easy", "conservative", "conservative", "none")),
            depth=dice.choice((1, 4)),
            sharing=dice.choice(("shared", "shared", "single_user")),
            users=dice.choice(({}, LIMITED)),
        )

    def _check_promises(self) -> None:
        world = self.hub.core.world
        assert not world.renewed and not world.is_renewing
        for line, promise in world.promises.items():
            assert line in world.batches[line.batch].lines.values() and line.waiting
            assert all(node.is_open() and _owners(node).count(line) == 1 for node in promise.nodes)
        for node in world.nodes.values():
            assert all(node in world.promises[line].nodes for line in _owners(node))

    def come_to_rest(self) -> None:
        """Nothing happens any more but what is to, and nobody is kept from anything."""
        hub, world = self.hub, self.hub.core.world
        self.is_interrupted = False
        hub.feed(*(ev.NodeWished(1, node.name, "resume", hub.now_us) for node in world.nodes.values()))
        hub.feed(*(ev.JobsReleased(1, batch, None, hub.now_us) for batch in world.batches))
        hub.take_all()
        self.run(3000, comes=0.0)


def _owners(node: Node) -> list[Line]:
    return [step.owner for step in node.steps if isinstance(step.owner, Line)]


@pytest.mark.parametrize("seed", range(12))
def test_a_pass_comes_to_its_end_whatever_happens_meanwhile(
    hub: Recorder, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(scheduler, "LOOKED_AT_MOST", 1)
    site = Interrupted(hub, seed)
    site.run(60, comes=0.5)
    site.come_to_rest()
    world = hub.core.world
    assert not world.batches, "somebody waits without end"
    hub.decide()
    assert not (world.promises or world.bettered or world.owed)
