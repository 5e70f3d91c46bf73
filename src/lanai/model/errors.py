"""Every error Lanai raises on purpose, in one tree.

    LanaiError
      UserError              the user's input                        exit 2   http 400
        NothingThere         no such batch, job, node, file          exit 5   http 404
        ImpossibleRequest    larger than every node                  exit 2   http 422
        ListErrors           bad lines of a job list, all together   exit 2   http 422
      Refusal                understood, but not now or not you      exit 7   http 409
        NotAllowed           rights                                  exit 4   http 403
        TooMany              more at a time than anybody may have    exit 7   http 429
        VersionMismatch      protocols do not meet                   exit 8   http 426
      OtherEnd               the hub or a node cannot be reached     exit 3   http 503
        TimedOut             a wait that the user bounded            exit 6   http 504
      StoreError             the store cannot take it                exit 7   http 507
        StoreFull            no space left where the hub keeps state
      InternalError          ours                                    exit 70  http 500

An error carries facts as fields of `facts`; its text is made from them once, when it is raised, and nothing ever
matches on text. `code` is the stable name that machines read.

Every process and every command imports this before it knows what else it needs, so it imports no msgspec: to that, a
dataclass is as good as a struct.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """An error on its way through a wire or JSON.

    Attributes:
        code: stable slug, e.g. `no_such_batch`.
        message: what happened and why, one sentence.
        hint: what to type next, or empty.
        exit_code: of a command that ends with this error.
        http_status: of an answer that carries it.
        retry: `never`, `now`, or `after:SECONDS`.
        facts: the facts the text was made from.
    """

    code: str
    message: str
    hint: str = ""
    exit_code: int = 70
    http_status: int = 500
    retry: str = "never"
    facts: dict[str, str | int | list[str]] = field(default_factory=dict)


class LanaiError(Exception):
    """The root. Raise a leaf."""

    code: str = "error"
    exit_code: ClassVar[int] = 70
    http_status: ClassVar[int] = 500
    retry: ClassVar[str] = "never"

    def __init__(
        self, message: str, *, code: str = "", hint: str = "", facts: dict[str, str | int | list[str]] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts or {}
        if code:
            self.code = code

    def body(self) -> ErrorBody:
        """The error as a value that can be sent."""
        return ErrorBody(
            code=self.code,
            message=self.message,
            hint=self.hint,
            exit_code=self.exit_code,
            http_status=self.http_status,
            retry=self.retry,
            facts=self.facts,
        )


class UserError(LanaiError):
    """What was asked for cannot be understood."""

    code = "bad_request"
    exit_code = 2
    http_status = 400


class NothingThere(UserError):
    """What was named does not exist."""

    code = "not_found"
    exit_code = 5
    http_status = 404


class ImpossibleRequest(UserError):
    """No node that ever joined is large enough."""

    code = "impossible_request"
    http_status = 422


class ListErrors(UserError):
    """A job list has bad lines; `facts["problems"]` holds them all, one text each."""

    code = "bad_list"
    http_status = 422


class Refusal(LanaiError):
    """Understood and turned down."""

    code = "refused"
    exit_code = 7
    http_status = 409


class NotAllowed(Refusal):
    """The caller has no right to this."""

    code = "not_allowed"
    exit_code = 4
    http_status = 403


class TooMany(Refusal):
    """More at a time than anybody may have."""

    code = "too_many"
    http_status = 429
    retry = "after:10"


class VersionMismatch(Refusal):
    """The two ends share no protocol version."""

    code = "version_mismatch"
    exit_code = 8
    http_status = 426


class OtherEnd(LanaiError):
    """The hub, or a node, does not answer."""

    code = "hub_unreachable"
    exit_code = 3
    http_status = 503
    retry = "after:2"


class TimedOut(OtherEnd):
    """A wait whose length the user gave ran out."""

    code = "timed_out"
    exit_code = 6
    http_status = 504
    retry = "now"


class StoreError(LanaiError):
    """The store cannot take it."""

    code = "store_error"
    exit_code = 7
    http_status = 507
    retry = "after:5"


class StoreFull(StoreError):
    """No space is left where the hub keeps its state."""

    code = "store_full"


class InternalError(LanaiError):
    """A mistake of ours."""

    code = "internal_error"


_BY_CODE: dict[int, type[LanaiError]] = {
    2: UserError,
    3: OtherEnd,
    4: NotAllowed,
    5: NothingThere,
    6: TimedOut,
    7: Refusal,
    8: VersionMismatch,
}


def raised_from(body: ErrorBody) -> LanaiError:
    """The error that an `ErrorBody` from the other end stands for, ready to be raised here."""
    kind = _BY_CODE.get(body.exit_code, InternalError)
    return kind(body.message, code=body.code, hint=body.hint, facts=body.facts)
