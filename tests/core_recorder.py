"""A hub's core with a recorder around it: no effect leaves that no test has asked about."""

from __future__ import annotations

from typing import TypeVar

from lanai.core import events as ev
from lanai.core.batches import Batch
from lanai.core.effects import AcceptNode, Answer, BatchMoved, DrainNode, Effect, StartAttempts
from lanai.core.hub import Decision, HubCore
from lanai.core.nodes import Node
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, GrantId, Index, NodeId, ShapeId, grant_id
from lanai.model.job import AttemptResult
from lanai.model.records import Record
from lanai.model.resources import Capacity, Shape
from lanai.store.memory import MemoryStore

E = TypeVar("E", bound=Effect)
R = TypeVar("R", bound=Record)

SECOND = 1_000_000
LEASE_US = 60 * SECOND
GIB = 1 << 30


def grant(number: int) -> GrantId:
    """The id of the hub's grant of that number."""
    return grant_id(1, number)


def capacity(cpus: int = 2, gib: int = 8, gpus: int = 0, **named: int) -> Capacity:
    return Capacity(
        cpu_milli=1000 * cpus,
        memory_bytes=gib * GIB,
        gpus=tuple(str(gpu) for gpu in range(gpus)),
        named=tuple(sorted(named.items())),
    )


class Recorder:
    """Feeds events, keeps the records in a store at once, collects effects until they are taken.

    The core's invariants are checked after every step. `wall` times are the core's own time.
    """

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.core = HubCore(epoch=1, lease_us=LEASE_US)
        self.now_us = 1000 * SECOND
        self.effects: list[Effect] = []
        self.records: list[Record] = []
        self._connection = 0
        self._spooled: dict[int, int] = {}

    # -- steps

    def feed(self, *events: ev.Event) -> None:
        self._note(self.core.handle(self.now_us, events))

    def decide(self) -> None:
        """Passes until none is wanted any more."""
        self.decide_once()
        while self.core.needs_pass:
            self.decide_once()

    def decide_once(self) -> None:
        """One call: a pass, or a part of what is long work."""
        self._note(self.core.decide(self.now_us))

    def wait(self, seconds: float) -> None:
        """Time passes, second by second as in the hub's loop."""
        until_us = self.now_us + round(seconds * SECOND)
        while self.now_us < until_us:
            self.now_us = min(until_us, self.now_us + SECOND)
            self.feed(ev.TimePassed(self.now_us))

    def restart(self) -> None:
        """The hub is killed and comes back with what the store holds."""
        self.core = HubCore(epoch=1, lease_us=LEASE_US)
        self._note(self.core.recover(self.now_us, self.now_us, self.store.recover()))

    def _note(self, decision: Decision) -> None:
        self.store.commit(decision.records)
        self.records += decision.records
        self.effects += decision.effects
        self.core.check()

    # -- what it came to

    def take(self, kind: type[E]) -> list[E]:
        """The effects of one kind so far, in order; they are gone then."""
        found = [effect for effect in self.effects if isinstance(effect, kind)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, kind)]
        return found

    def take_all(self) -> list[Effect]:
        """All effects so far, in order, but for the tidings to watchers that a batch has moved on."""
        found, self.effects = self.effects, []
        return [effect for effect in found if not isinstance(effect, BatchMoved) or effect.has_ended]

    def take_kept(self, kind: type[R]) -> list[R]:
        """The records of one kind so far; they are gone then."""
        found = [record for record in self.records if isinstance(record, kind)]
        self.records = [record for record in self.records if not isinstance(record, kind)]
        return found

    def check_nothing_left(self) -> None:
        """Fails if an effect went unlooked-at."""
        assert self.take_all() == []

    # -- scenes

    def join(self, name: str, has: Capacity | None = None, *, boot: str = "boot", take: bool = True) -> NodeId:
        """An agent says hello and has nothing; its welcome is taken unless `take` is off."""
        self.hello(name, has, boot=boot)
        node = self.core.world.names[name]
        self.feed(ev.NodeTookStock(node, []))
        if take:
            assert [type(effect) for effect in self.take_all()] == [AcceptNode, DrainNode]
        return node

    def hello(self, name: str, has: Capacity | None = None, *, boot: str = "boot", key: bytes = b"key") -> int:
        """An agent says hello; returns the number of its connection."""
        self._connection += 1
        self.feed(ev.NodeJoined(self._connection, name, key, boot, has or capacity(), (), "ann", self.now_us))
        return self._connection

    def submit(
        self, jobs: int, *, user: str = "ann", shapes: tuple[tuple[int, Shape], ...] = (), **settings: object
    ) -> BatchId:
        """A whole batch; its answers are looked at."""
        made = BatchSettings(**settings)  # type: ignore[arg-type]
        self.feed(ev.BatchOpened(1, user, "", made, b"digest", b"blob", self.now_us))
        batch = BatchId(self.core.world.last_batch)
        runs = tuple((count, ShapeId(at)) for at, (count, _) in enumerate(shapes)) or ((jobs, ShapeId(0)),)
        asked = tuple((ShapeId(at), shape) for at, (_, shape) in enumerate(shapes)) or ((ShapeId(0), made.shape),)
        self.feed(ev.ChunkArrived(1, batch, 1, jobs, runs, asked, b"", {}))
        self.feed(ev.BatchClosed(2, batch, jobs, b"digest", self.now_us))
        assert [type(effect).__name__ for effect in self.take_all()] == ["Answer", "AckChunk", "Answer"]
        return batch

    def start(self) -> list[StartAttempts]:
        """A pass that does nothing but start attempts."""
        self.decide()
        found = self.take(StartAttempts)
        self.check_nothing_left()
        return found

    def end(self, node: NodeId, number: int, *indices: int, outcome: str = "ok", wall_us: int = SECOND) -> None:
        """Attempts of grant `number` end on the node."""
        code = 0 if outcome == "ok" else 1
        results = [AttemptResult(grant(number), Index(i), outcome, code, wall_us=wall_us) for i in indices]
        self._spooled[node] = self._spooled.get(node, 0) + len(results)
        self.feed(ev.AttemptsEnded(node, self._spooled[node], results, self.now_us))

    def returned(self, node: NodeId, number: int, *indices: int, why: str = "") -> None:
        self.feed(ev.JobsReturned(node, [(grant(number), Index(i)) for i in indices], why))

    def answer(self) -> dict[str, object] | None:
        """The result of the one command that was answered; an error fails."""
        (found,) = self.take(Answer)
        assert found.error is None, found.error
        return found.result

    def refusal(self) -> str:
        """The code of the error that the one command came to."""
        (found,) = self.take(Answer)
        assert found.error is not None
        return found.error.code

    def node(self, node: NodeId) -> Node:
        return self.core.world.nodes[node]

    def batch(self, batch: BatchId) -> Batch:
        return self.core.world.batches[batch]

    def counts(self, batch: BatchId) -> dict[str, int]:
        """Those counts of the batch that are not 0, from the core or, where it has ended, from the store."""
        held = self.core.world.batches.get(batch)
        counts = held.counts if held is not None else self.store.kept.progress[batch].counts
        names = ("held", "queued", "locked", "running", "done", "failed", "cancelled")
        return {name: value for name in names if (value := getattr(counts, name))}
