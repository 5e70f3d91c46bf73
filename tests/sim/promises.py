"""What must never happen, looked at after every step; and what the store must say of it all.

The observer knows more than any party in the world: what runs where, what was ever granted, what was committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lanai.core.batches import Batch, allowed
from lanai.core.hub import Decision, HubCore
from lanai.core.queue import spans_of
from lanai.model.ids import BatchId, GrantId
from lanai.model.job import JobState, Outcome
from lanai.model.records import ReopenJobs, SaveAttempts, SaveGrant, SaveOverride
from lanai.model.resources import Shape
from lanai.model.vector import Layout
from lanai.store.memory import MemoryStore
from sim.hub import copy_of

if TYPE_CHECKING:
    from sim.node import Node
    from sim.starter import Starter
    from sim.world import World

Job = tuple[int, int]
Member = tuple[GrantId, int]


class Broken(AssertionError):
    """A promise was broken."""


class Promises:
    """The observer of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._live: dict[Job, dict[Member, tuple[Node, Starter]]] = {}
        self._done: dict[Job, int] = {}
        self._seen_rows: set[int] = set()
        self._ended: set[Member] = set()
        self._grants: dict[GrantId, tuple[int, int, int]] = {}
        self._granted_us: dict[GrantId, int] = {}
        self._open: list[Decision] = []
        self._flushed: list[Decision] = []
        self._spent: dict[Job, dict[str, int]] = {}
        self._picture: dict[str, object] | None = None
        self._layout = Layout()
        self._ways: set[tuple[Job, str]] = set()
        self.preempted = 0
        """Attempts that have made way."""
        self.executions = 0
        self.wide_executions = 0
        """Commands that began on the first of several nodes."""
        self.comparisons = 0

    # -- commands

    def began(
        self, node: Node, starter: Starter, member: Member, batch: BatchId, line: bytes, shapes: list[Shape]
    ) -> None:
        """A command begins: no other attempt of its job lives, and the node has room."""
        self.executions += 1
        job = (int(batch), member[1])
        require(line == b"job %d" % member[1], f"{job} was given the line {line!r}")
        others = self._live.setdefault(job, {})
        for other, (where, holder) in others.items():
            is_fenced = where.boot_us() >= holder.lease_us
            require(is_fenced, f"{job} begins as {member} on {node.name} while {other} lives on {where.name}")
        others[member] = (node, starter)
        require(job not in self._done, f"{job} begins again as {member}, done in row {self._done.get(job)}")
        free = self._layout.capacity(node.capacity)
        for shape in shapes:
            free -= self._layout.request(shape)
        require(not free & self._layout.guard, f"{node.name} runs more than fits: {len(shapes)} commands")
        claims = node.agent.machine.roster.claims.values() if node.agent is not None else ()
        kept = sum(claim.need for claim in claims if not claim.pending)
        is_kept = not (free - kept) & self._layout.guard
        require(is_kept, f"{node.name} runs {len(shapes)} commands in room that it keeps for others")
        self._look_at_others(member)

    def _look_at_others(self, member: Member) -> None:
        """All further nodes of a command keep its room when it begins, but for agents that are new or were cut off."""
        hub = self._world.hub
        grant = hub.core.world.grants.get(member[0]) if hub is not None else None
        if grant is None or not grant.others or grant.broken:
            return
        self.wide_executions += 1
        names = {node.name for node in grant.others}
        for node in self._world.nodes:
            if node.name in names and node.agent is not None and node.forgot_us < self._granted_us[grant.id]:
                is_kept = grant.id in node.agent.machine.roster.kept_claims()
                require(is_kept, f"{member} begins, and {node.name} keeps no room for it")

    def ended(self, node: Node, member: Member, batch: BatchId) -> None:
        """A command has ended."""
        self._live[int(batch), member[1]].pop(member, None)

    # -- the core

    def decided(self, core: HubCore, decision: Decision) -> None:
        """The core has taken a step."""
        core.check()
        self._open.append(decision)
        for node in core.world.nodes.values():
            require(not node.free & core.world.layout.guard, f"{node.name} is booked beyond its room")

    def passed(self, core: HubCore) -> None:
        """A pass came to its end: whatever waits has a reason."""
        if core.needs_pass:
            return
        for batch in core.world.batches.values():
            if batch.state != "open":
                require(bool(batch.reason), f"batch {batch.id} is {batch.state} without a reason")
                continue
            for line in batch.lines.values():
                if line.waiting:
                    require(bool(line.reason and line.reason_text), f"{batch.id} waits without a reason")

    def flushed(self, core: HubCore) -> None:
        """A group is closed: when it is committed, the store must say what the core says now."""
        self._flushed, self._open = self._open, []
        self._picture = picture(core) if self._world.rng.random() < self._world.compare else None

    def hub_gone(self) -> None:
        """What was not committed never was."""
        self._open, self._flushed, self._picture = [], [], None

    # -- the store

    def committed(self) -> None:
        """A group has been kept."""
        for decision in self._flushed:
            for record in decision.records:
                match record:
                    case SaveAttempts(rows):
                        for row in rows:
                            self._on_row(row)
                    case SaveGrant():
                        about = (record.node, record.batch, record.attempt)
                        self._granted_us.setdefault(record.grant, self._world.loop.now_us)
                        known = self._grants.setdefault(record.grant, about)
                        require(known == about, f"grant {record.grant} was {known}, is used again as {about}")
                    case SaveOverride(what=what) if what.startswith("preempted "):
                        self._ways.add(((record.batch, record.first), what))
                    case ReopenJobs():
                        for index in range(record.first, record.last + 1):
                            self._spent.pop((record.batch, index), None)
        self._flushed = []
        if self._picture is not None:
            self.compare(self._picture)
            self._picture = None

    def compare(self, live: dict[str, object]) -> None:
        """A hub that started now would know what the living one knew when the group was closed."""
        self.comparisons += 1
        fresh = recovered_core(self._world)
        found = picture(fresh)
        for name in sorted(live.keys() | found.keys()):
            require(
                live.get(name) == found.get(name),
                f"{name} would be recovered wrongly\n live      {live.get(name)}\n recovered {found.get(name)}",
            )

    def _on_row(self, row: tuple[object, ...]) -> None:
        number, batch, index, _, grant, _, state, outcome = row[:8]
        assert isinstance(number, int) and isinstance(batch, int) and isinstance(index, int)
        job = (batch, index)
        require(number not in self._seen_rows, f"attempt row {number} is written twice")
        self._seen_rows.add(number)
        member = (grant, index)
        require(member not in self._ended, f"{member} counts twice")
        self._ended.add(member)  # type: ignore[arg-type]
        require(job not in self._done, f"{job} ends after it was done in row {self._done.get(job)}")
        if outcome == Outcome.PREEMPTED:
            self._on_preempted(job, str(state))
        elif state == JobState.DONE:
            self._done[job] = number
        elif state == JobState.QUEUED:
            self._on_retry(job, str(outcome))

    def _on_preempted(self, job: Job, state: str) -> None:
        """It was to make way before it did, and waits again where its service says so."""
        self.preempted += 1
        ways = {what for each, what in self._ways if each == job}
        require(bool(ways), f"{job} has made way unasked")
        require(state in (JobState.QUEUED, JobState.CANCELLED), f"{job} has made way and is {state}")
        may_wait = ways != {"preempted cancel"}
        require(may_wait or state == JobState.CANCELLED, f"{job} was to be cancelled to make way and is {state}")

    def _on_retry(self, job: Job, outcome: str) -> None:
        spent = self._spent.setdefault(job, {})
        cause = Outcome.NODE if outcome == Outcome.LOST else outcome
        spent[cause] = spent.get(cause, 0) + 1
        most = allowed(self._world.store.kept.opened[BatchId(job[0])].settings.retries, cause)
        require(spent[cause] <= most, f"{job} is tried again after {spent[cause]} times {cause}, {most} are allowed")


def recovered_core(world: World) -> HubCore:
    """A core started from a copy of the store as it is."""
    store = MemoryStore()
    store.kept = copy_of(world.store.kept)  # type: ignore[assignment]
    fresh = HubCore(epoch=1, lease_us=world.lease_us)
    fresh.recover(world.hub_us(), world.hub_wall_us(), store.recover())
    fresh.check()
    return fresh


def picture(core: HubCore) -> dict[str, object]:
    """Everything that must survive a crash, by name."""
    world = core.world
    found: dict[str, object] = {"grants set aside": world.grants_set_aside, "last_batch": world.last_batch}
    found["last_row"] = world.last_row
    for batch in world.batches.values():
        for name, value in _of_batch(batch).items():
            found[f"batch {batch.id} {name}"] = value
    for grant in world.grants.values():
        about = (grant.node.id, grant.batch.id, grant.attempt, spans_of(grant.members))
        found[f"grant {grant.id}"] = (*about, tuple(node.id for node in grant.others), grant.broken)
    for node in world.nodes.values():
        found[f"node {node.name}"] = (node.id, node.is_drained, node.boot_id, node.state == "removed", node.capacity)
    return found


def _of_batch(batch: Batch) -> dict[str, object]:
    counts = batch.counts
    return {
        "state": (batch.state, batch.reason, batch.priority, batch.max_running, sorted(batch.avoided)),
        "counts": (counts.queued, counts.held, counts.locked + counts.running, counts.done, counts.failed,
                   counts.cancelled),
        "pending": batch.pending().spans(),
        "held": batch.held.spans(),
        "holds": sorted((*hold[:4], hold.spans.spans()) for hold in batch.holds),
        "failed": batch.failed.spans(),
        "cancelled": batch.cancelled.spans(),
        "cancel wishes": sorted(batch.cancel_wishes),
        "hold wishes": sorted(batch.hold_wishes),
        "ways": sorted(batch.ways.items()),
        "reshaped": sorted((i, s) for i, s in batch.reshaped.items()),
        "tries": sorted((i, t.attempts, sorted(t.charges.items())) for i, t in batch.tries.items() if t.charges),
        "shapes": sorted((s, repr(shape)) for s, shape in batch.shapes.items()),
    }  # fmt: skip


def require(is_so: bool, otherwise: str) -> None:
    """Raise Broken where a promise is not kept."""
    if not is_so:
        raise Broken(otherwise)
