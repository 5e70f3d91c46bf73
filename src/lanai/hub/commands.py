"""The verbs that the API process forwards: each becomes an event for the core, or an answer read off it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from lanai.core.events import (
    BatchChanged,
    Event,
    HubStopWished,
    JobsCancelled,
    JobsHeld,
    JobsReleased,
    JobsRetried,
    NodeWished,
    PolicyChanged,
    TokenCreated,
    TokensRevoked,
)
from lanai.core.hub import HubCore
from lanai.core.shares import shares
from lanai.core.wishes import has_ended
from lanai.hub import questions, reserving
from lanai.hub.clock import boottime_us, wall_us
from lanai.hub.lengthy import is_long
from lanai.hub.revivals import Batches, Revival, Revivals, no_batch
from lanai.model.access import Caller, TokenKind, user_name
from lanai.model.errors import (
    ErrorBody,
    InternalError,
    LanaiError,
    NothingThere,
    StoreFull,
    UserError,
)
from lanai.model.ids import BatchId, Index, TokenId
from lanai.model.policy import Policy
from lanai.model.resources import Shape
from lanai.wire import messages
from lanai.wire.framing import FRAME_BYTES

A = TypeVar("A")

RESULT_BYTES: Final = FRAME_BYTES - 1024
"""The longest result that fits a Reply."""

REASONS: Final = 10_000
"""Most spans of waiting jobs whose reasons one answer tells."""

BATCHES: Final = 1_000
NODES: Final = 250
"""Most batches and nodes that one answer tells of, so that it fits a frame; it says after which to go on."""

AVOIDED_BY: Final = 500
"""Most batches that are told to avoid a node: the first ones."""

_TRUE_ANYWAY: Final = ("paused", "held", "running", "idle")
"""Verdicts that hold whether or not anything can be kept."""


class OfBatch(msgspec.Struct, frozen=True):
    """Arguments that name jobs."""

    batch: BatchId
    ranges: tuple[tuple[int, int], ...] | None = None
    states: tuple[str, ...] = ()
    has_more: bool = False
    until_us: int = 0


class OfJob(msgspec.Struct, frozen=True):
    """Arguments that name a job, or with None a batch."""

    batch: BatchId
    index: Index | None = None


class OfSpan(msgspec.Struct, frozen=True):
    """Arguments that name a range of jobs."""

    batch: BatchId
    first: int
    last: int


class OfShapes(msgspec.Struct, frozen=True):
    """Requests to be tried against the nodes."""

    shapes: list[Shape]


class OfSettings(msgspec.Struct, frozen=True):
    """What of a batch may be changed."""

    batch: BatchId
    priority: int | None = None
    max_running: int | None = None
    account: str | None = None
    service: str | None = None
    start_after_us: int | None = None
    reservation: str | None = None


class OfBatches(msgspec.Struct, frozen=True):
    """Unfinished batches of numbers above `after`."""

    after: int = 0


class OfNodes(msgspec.Struct, frozen=True):
    """Nodes of names behind `after`."""

    after: str = ""


class OfNode(msgspec.Struct, frozen=True):
    """Arguments that name a node."""

    node: str


class OfStop(msgspec.Struct, frozen=True):
    """How to stop."""

    now: bool = False


class OfNewToken(msgspec.Struct, frozen=True):
    """What a token is to be. Its secret stays with who makes it up."""

    user: str
    kind: TokenKind
    sha256: bytes
    expires_at_us: int = 0
    label: str = ""


class OfTokens(msgspec.Struct, frozen=True):
    """A token by its number, or all of a user."""

    token: TokenId = TokenId(0)
    user: str = ""


class OfPolicy(msgspec.Struct, frozen=True):
    """A policy that is to be in force."""

    policy: Policy


class Commands:
    """Takes a Command and sees to it that exactly one Reply goes back.

    Args:
        post: puts an event into the inbox.
        apart: has a question answered by a copy of the hub, for what the call returns there: a Reply, encoded.
        aside: does the first in a thread, and the second on the loop with what came of it.
        afterwards: calls back once the core has handled what was posted.
        answer: answers a request that was registered, in the core's place.
        expect: registers who waits for a request and returns the number the core will answer under.
        facts: what the hub says of itself.
        stop: makes ready for the hub's end; raises LanaiError to refuse. `EndHub` follows, or at once with a full disk.
        end: ends the hub.
        is_full: whether the disk is full.
    """

    def __init__(
        self,
        core: HubCore,
        batches: Batches,
        *,
        post: Callable[[Event], None],
        apart: Callable[[messages.Command, Callable[[], bytes]], None],
        aside: Callable[[Callable[[], Revival], Callable[[Revival], None]], None],
        afterwards: Callable[[Callable[[], None]], None],
        answer: Callable[[int, ErrorBody], None],
        expect: Callable[[messages.Command], int],
        facts: Callable[[], dict[str, Any]],
        stop: Callable[[bool], None],
        end: Callable[[], None],
        is_full: Callable[[], bool],
    ) -> None:
        self._core = core
        self._batches = batches
        self._post = post
        self._apart = apart
        self._revivals = Revivals(core, batches, post=post, aside=aside, afterwards=afterwards, answer=answer)
        self._expect = expect
        self._facts = facts
        self._stop = stop
        self._end = end
        self._is_full = is_full

    def take(self, command: messages.Command) -> messages.Reply | None:
        """Answer at once, or None where the core's Answer, or a copy's, will follow."""
        if is_long(self._core.world, command):
            self._apart(command, lambda: msgspec.msgpack.encode(self._answered(command)))
            return None
        return self._answered(command)

    def _answered(self, command: messages.Command) -> messages.Reply | None:
        handler = _HANDLERS.get(command.verb)
        try:
            if handler is None:
                raise UserError(f"this hub knows no command {command.verb!r}", code="no_such_command")
            result = handler(self, command)
        except msgspec.DecodeError as error:
            return messages.Reply(command.request, error=UserError(f"{command.verb}: {error}").body())
        except LanaiError as error:
            return messages.Reply(command.request, error=error.body())
        return None if result is None else reply(command.request, result)

    # -- questions

    def hub(self, command: messages.Command) -> dict[str, Any]:
        """What the hub says of itself."""
        return self._facts()

    def status(self, command: messages.Command) -> dict[str, Any]:
        """Where the next unfinished batches stand, and the number to go on after, None where none are left."""
        after = _arguments(command, OfBatches).after
        found = self._core.standings(after, BATCHES)
        return {"batches": found, "next": found[-1].batch if len(found) == BATCHES else None}

    def progress(self, command: messages.Command) -> dict[str, Any]:
        """Where one unfinished batch stands."""
        return {"progress": self._core.standing(_arguments(command, OfJob).batch)}

    def in_flight(self, command: messages.Command) -> dict[str, Any]:
        """Attempts at nodes, and why the others wait."""
        asked = _arguments(command, OfSpan)
        return {
            "items": self._core.in_flight(asked.batch, asked.first, asked.last),
            "waiting": self._core.reasons(asked.batch, asked.first, asked.last, REASONS),
        }

    def fits(self, command: messages.Command) -> dict[str, Any]:
        """Which requests no node can ever hold."""
        return {"reasons": self._core.fits(_arguments(command, OfShapes).shapes)}

    def why(self, command: messages.Command) -> dict[str, Any]:
        """Why something waits."""
        asked = _arguments(command, OfJob)
        found = self._core.why(asked.batch, asked.index)
        if found is None:
            raise NothingThere(f"batch {asked.batch} is not running", code="batch_not_running")
        found |= questions.prospects(self._core, asked.batch, asked.index)
        return _on_full_disk(found) if self._is_full() else found

    def queue(self, command: messages.Command) -> dict[str, Any]:
        """Who runs, who is next, who is blocked."""
        return questions.queue(self._core, command.arguments)

    def free(self, command: messages.Command) -> dict[str, Any]:
        """What the user could start now."""
        return questions.free(self._core, command.user, command.arguments)

    def when(self, command: messages.Command) -> dict[str, Any]:
        """The earliest start of something."""
        return questions.when(self._core, command.user, command.arguments)

    def priority(self, command: messages.Command) -> dict[str, Any]:
        """In which order what waits is looked at, and why."""
        return questions.priority(self._core, command.arguments)

    def plan(self, command: messages.Command) -> dict[str, Any]:
        """What the next pass would do."""
        return questions.plan(self._core, command.arguments)

    def nodes(self, command: messages.Command) -> dict[str, Any]:
        """The next nodes by name, and the name to go on after, None where none are left."""
        after = _arguments(command, OfNodes).after
        found = self._core.nodes(boottime_us(), AVOIDED_BY, after, NODES)
        return {"nodes": found, "next": found[-1].name if len(found) == NODES else None}

    def policy(self, command: messages.Command) -> dict[str, Any]:
        """The policy in force."""
        return {"policy": self._core.world.policy}

    def shares(self, command: messages.Command) -> dict[str, Any]:
        """The share tree, and how many of its places were left out."""
        shown = shares(self._core.world)
        return {"shares": shown.shares, "more": shown.more}

    # -- wishes

    def cancel(self, command: messages.Command) -> dict[str, Any] | None:
        """Do not run jobs, or run them no further."""
        asked = _arguments(command, OfBatch)
        which = asked.batch, asked.ranges, asked.states, wall_us(), _caller(command)
        return self._wish(command, asked, lambda number: JobsCancelled(number, *which))

    def hold(self, command: messages.Command) -> dict[str, Any] | None:
        """Let jobs wait on."""
        asked = _arguments(command, OfBatch)
        which = asked.batch, asked.ranges, wall_us(), asked.states, asked.has_more, _caller(command), asked.until_us
        return self._wish(command, asked, lambda number: JobsHeld(number, *which))

    def release(self, command: messages.Command) -> dict[str, Any] | None:
        """Let held jobs run, and a paused batch go on."""
        asked = _arguments(command, OfBatch)
        which = asked.batch, asked.ranges, wall_us(), asked.states, asked.has_more, _caller(command)
        return self._wish(command, asked, lambda number: JobsReleased(number, *which))

    def retry(self, command: messages.Command) -> dict[str, Any] | None:
        """Try failed and cancelled jobs again, also of an ended batch."""
        asked = _arguments(command, OfBatch)
        if not self._revivals.knows(asked.batch):
            raise no_batch(asked.batch)
        which = asked.batch, asked.ranges, asked.states, wall_us(), _caller(command)
        self._revivals.retry(JobsRetried(self._number(command), *which))
        return None

    def set(self, command: messages.Command) -> dict[str, Any] | None:
        """Change what may be changed."""
        asked = _arguments(command, OfSettings)
        if asked.batch not in self._core.world.batches:
            if not self._batches.has_batch(asked.batch):
                raise no_batch(asked.batch)
            raise has_ended(asked.batch)
        changes = asked.batch, asked.priority, asked.max_running, wall_us(), _caller(command)
        settings = asked.account, asked.service, asked.start_after_us, asked.reservation
        self._post(BatchChanged(self._number(command), *changes, *settings))
        return None

    def node_wish(self, command: messages.Command) -> dict[str, Any] | None:
        """Drain, resume or remove a node."""
        which = _arguments(command, OfNode).node, command.verb, wall_us(), _caller(command)
        self._post(NodeWished(self._number(command), *which))
        return None

    def create_token(self, command: messages.Command) -> dict[str, Any] | None:
        """Have one more token."""
        asked = _arguments(command, OfNewToken)
        what = asked.kind, user_name(asked.user), asked.sha256, asked.expires_at_us, asked.label
        self._post(TokenCreated(self._number(command), *what, wall_us(), _caller(command)))
        return None

    def revoke_tokens(self, command: messages.Command) -> dict[str, Any] | None:
        """Have tokens good no longer."""
        asked = _arguments(command, OfTokens)
        which = asked.token, asked.user, wall_us(), _caller(command)
        self._post(TokensRevoked(self._number(command), *which))
        return None

    def set_policy(self, command: messages.Command) -> dict[str, Any] | None:
        """Have another policy in force."""
        wish = _arguments(command, OfPolicy).policy
        self._post(PolicyChanged(self._number(command), wish, wall_us(), _caller(command)))
        return None

    def reservations(self, command: messages.Command) -> dict[str, Any]:
        """Reservations made by people."""
        return reserving.shown(self._core, command.arguments)

    def try_reservation(self, command: messages.Command) -> dict[str, Any]:
        """What one would do."""
        return reserving.tried(self._core, command.arguments)

    def set_reservation(self, command: messages.Command) -> dict[str, Any] | None:
        """Make one, or change it."""
        self._post(reserving.wished(command.arguments, _caller(command), lambda: self._number(command)))
        return None

    def drop_reservation(self, command: messages.Command) -> dict[str, Any] | None:
        """Have one no more."""
        self._post(reserving.dropped(command.arguments, _caller(command), lambda: self._number(command)))
        return None

    def stop(self, command: messages.Command) -> dict[str, Any] | None:
        """End the hub, once that is on disk. A full disk does not keep it from ending."""
        self._stop(_arguments(command, OfStop).now)
        if self._is_full():
            self._end()
            return {}
        self._post(HubStopWished(self._expect(command), wall_us(), _caller(command)))
        return None

    # -- within

    def _wish(self, command: messages.Command, asked: OfBatch, event: Callable[[int], Event]) -> dict[str, Any] | None:
        if asked.batch not in self._core.world.batches:
            if not self._batches.has_batch(asked.batch):
                raise no_batch(asked.batch)
            return {"changed": 0}
        self._post(event(self._number(command)))
        return None

    def _number(self, command: messages.Command) -> int:
        if self._is_full():
            raise StoreFull("the hub's disk is full", hint="make room where it keeps its state, then try again")
        return self._expect(command)


_HANDLERS: dict[str, Callable[[Commands, messages.Command], dict[str, Any] | None]] = {
    "hub": Commands.hub,
    "status": Commands.status,
    "progress": Commands.progress,
    "in_flight": Commands.in_flight,
    "fits": Commands.fits,
    "why": Commands.why,
    "queue": Commands.queue,
    "free": Commands.free,
    "when": Commands.when,
    "priority": Commands.priority,
    "plan": Commands.plan,
    "nodes": Commands.nodes,
    "cancel": Commands.cancel,
    "hold": Commands.hold,
    "release": Commands.release,
    "retry": Commands.retry,
    "set": Commands.set,
    "drain": Commands.node_wish,
    "resume": Commands.node_wish,
    "remove": Commands.node_wish,
    "token_create": Commands.create_token,
    "token_revoke": Commands.revoke_tokens,
    "policy": Commands.policy,
    "policy_set": Commands.set_policy,
    "shares": Commands.shares,
    "reservations": Commands.reservations,
    "reservation_try": Commands.try_reservation,
    "reservation_set": Commands.set_reservation,
    "reservation_drop": Commands.drop_reservation,
    "stop": Commands.stop,
}


def reply(request: int, result: object) -> messages.Reply:
    """A Reply that carries a result, or the error that it is too much for one."""
    encoded = msgspec.msgpack.encode(result)
    if len(encoded) > RESULT_BYTES:
        error = InternalError(f"an answer of {len(encoded)} bytes is too long", code="answer_too_long")
        return messages.Reply(request, error=error.body())
    return messages.Reply(request, result=msgspec.Raw(encoded))


def _on_full_disk(found: dict[str, Any]) -> dict[str, Any]:
    """Without a pass the reason of the last one stands for ever; what somebody wished, and what runs, is still so."""
    text = "the hub's disk is full; it goes on by itself when there is room"
    if found["code"] in _TRUE_ANYWAY:
        return {**found, "facts": [*found["facts"], text]}
    return {**found, "code": "disk_full", "verdict": text, "since_us": 0}


def _arguments(command: messages.Command, kind: type[A]) -> A:
    return msgspec.msgpack.decode(command.arguments, type=kind)


def _caller(command: messages.Command) -> Caller:
    return command.caller if command.caller.user else Caller(command.user)
