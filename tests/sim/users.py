"""People: they submit batches until these are acknowledged, and want things done with them at random."""

from __future__ import annotations

import hashlib
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from lanai.model.batch import BatchSettings, Retries
from lanai.model.ids import BatchId, ShapeId
from lanai.model.resources import Shape
from lanai.wire import messages
from sim.virtual import SECOND_US

if TYPE_CHECKING:
    from sim.world import World

AGAIN_US = 3 * SECOND_US
STATES = ("held", "queued", "locked", "running", "failed", "cancelled")


class Submission:
    """One list on its way in."""

    def __init__(self, key: str, user: str, settings: BatchSettings, shapes: list[Shape], jobs: list[int]) -> None:
        self.key = key
        self.user = user
        self.settings = settings
        self.shapes = shapes
        self.jobs = jobs
        self.digest = hashlib.sha256(key.encode()).digest()
        self.batch: BatchId | None = None
        self.is_acknowledged = False


class Users:
    """All people of one world, through one API process."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._request = 0
        self._waiting: dict[int, Submission] = {}
        self._wishes: set[int] = set()
        self.submissions: list[Submission] = []
        self.answered = 0

    # -- submitting

    def submit(self, submission: Submission) -> None:
        """Hand it in, again and again until the hub has said that it is kept."""
        if submission not in self.submissions:
            self.submissions.append(submission)
        if submission.is_acknowledged:
            return
        if self._world.hub is not None and submission not in self._waiting.values():
            number = self._expect(submission)
            self._say(messages.Open(number, submission.key, submission.user, submission.settings, {b"A": b"b"}))
        self._world.loop.later(AGAIN_US, lambda: self.submit(submission))

    def hub_is_gone(self) -> None:
        """Its answers will not come."""
        self._waiting.clear()
        self._wishes.clear()

    def hear(self, message: messages.Message) -> None:
        """The hub says something to the API process."""
        match message:
            case messages.Opened(request, batch, known, digest):
                submission = self._waiting.pop(request)
                if known and digest:
                    assert digest == submission.digest
                    submission.batch, submission.is_acknowledged = batch, True
                elif not known:
                    self._send_jobs(submission, batch)
            case messages.Reply(request, result, error):
                if request in self._waiting:
                    submission = self._waiting.pop(request)
                    if error is None:
                        assert result is not None
                        submission.batch, submission.is_acknowledged = msgspec.msgpack.decode(result)["batch"], True
                elif request in self._wishes:
                    self._wishes.remove(request)
                    self.answered += 1

    def _send_jobs(self, submission: Submission, batch: BatchId) -> None:
        jobs, at = submission.jobs, 0
        shapes = [(ShapeId(n), shape) for n, shape in enumerate(submission.shapes)]
        while at < len(jobs):
            size = self._world.rng.randint(1, len(jobs) - at)
            runs = [(1, ShapeId(shape)) for shape in jobs[at : at + size]]
            lines = b"\0".join(b"job %d" % index for index in range(at + 1, at + size + 1))
            self._say(messages.Chunk(batch, at + 1, size, runs, shapes, lines))
            at, shapes = at + size, []
        self._say(messages.Close(self._expect(submission), batch, len(jobs), submission.digest))

    def _expect(self, submission: Submission) -> int:
        self._request += 1
        self._waiting[self._request] = submission
        return self._request

    def _say(self, message: messages.Message) -> None:
        hub = self._world.hub
        if hub is not None:
            hub.api.hear(message)

    # -- wishes

    def wish(self) -> None:
        """One of them wants something."""
        rng = self._world.rng
        batches = [one for one in self.submissions if one.batch is not None]
        if not batches or self._world.hub is None:
            return
        one = rng.choice(batches)
        verb = rng.choice(("cancel", "hold", "release", "release", "retry", "set"))
        arguments: dict[str, Any] = {"batch": one.batch}
        if verb == "set":
            arguments |= {"priority": rng.choice((None, 1, 10, 100)), "max_running": rng.choice((None, 0, 1, 3))}
        else:
            arguments["ranges"] = self._spans(len(one.jobs))
            if verb in ("cancel", "retry") and rng.random() < 0.3:
                arguments["states"] = rng.sample(STATES, 2)
        if verb == "hold":
            arguments["until_us"] = self._until_us()
        self.command(verb, arguments)

    def _until_us(self) -> int:
        """Until when, or 0: until they are released."""
        rng = Random(f"until {self._world.seed} {self._request}")
        return rng.choice((0, self._world.hub_wall_us() + rng.randint(1, 60) * SECOND_US))

    def node_wish(self) -> None:
        """One of them wants something of a node."""
        node = self._world.rng.choice(self._world.nodes)
        self.command(self._world.rng.choice(("drain", "resume", "resume", "remove")), {"node": node.name})

    def command(self, verb: str, arguments: dict[str, Any]) -> None:
        """Say it, if there is a hub to hear it."""
        self._request += 1
        self._wishes.add(self._request)
        raw = msgspec.Raw(msgspec.msgpack.encode(arguments))
        self._say(messages.Command(self._request, "somebody", verb, raw))

    def _spans(self, total: int) -> list[tuple[int, int]] | None:
        rng = self._world.rng
        if rng.random() < 0.3:
            return None
        edges = sorted(rng.sample(range(1, 2 * total + 2), min(2 * total, rng.choice((2, 4)))))
        return [(edges[at], edges[at + 1]) for at in range(0, len(edges) - 1, 2)]


def some_settings(world: World) -> tuple[BatchSettings, list[Shape]]:
    """Settings and shapes of a batch, as people choose them."""
    rng = world.rng
    settings = BatchSettings(
        priority=rng.choice((1, 10, 10, 10, 1000)),
        max_running=rng.choice((0, 0, 0, 1, 4)),
        stop_after=rng.choice((0, 0, 0, 0, 3)),
        retries=Retries(
            exit=rng.choice((0, 0, 2)), signal=rng.choice((0, 1)), check=0, time=rng.choice((0, 1)),
            memory=rng.choice((0, 1, 2)), node=rng.choice((5, 5, 1, 20)),
        ),
        grace_us=rng.choice((0, 100_000, 10_000_000)),
    )  # fmt: skip
    shapes = [
        Shape(
            cpu_milli=rng.choice((1000, 1000, 1000, 500, 2000, 4000)),
            memory_bytes=rng.choice((0, 0, 1 << 30, 3 << 30)),
            named=rng.choice(((), (), (("licence", 1),))) if world.has_licences else (),
        )
        for _ in range(rng.choice((1, 1, 2, 3)))
    ]
    return settings, shapes
