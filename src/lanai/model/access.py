"""Who may do what: roles, actions, and the one table that says it. The API enforces it, the documentation shows it.

A caller is a user with a role, and where he came from. A user has rights to what is his own, an operator to some of
what is others', an administrator to all. What is nobody's, such as a node, goes by role alone.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec

from lanai.model.errors import NotAllowed, UserError


class Role(StrEnum):
    """What somebody is to a hub. Each may do what those before it may."""

    USER = "user"
    OPERATOR = "operator"
    ADMIN = "admin"

    def reaches(self, other: Role) -> bool:
        """Whether this is `other` or above it."""
        return _ORDER.index(self) >= _ORDER.index(other)


_ORDER: Final = (Role.USER, Role.OPERATOR, Role.ADMIN)


class TokenKind(StrEnum):
    """What a token opens: `user` and `admin` the API, `agent` the door of agents. None opens both."""

    USER = "user"
    AGENT = "agent"
    ADMIN = "admin"


class Door(StrEnum):
    """Where a caller came in."""

    UNIX = "unix"
    TLS = "tls"


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """Where a caller came from, by what the kernel says of him.

    Attributes:
        door: `unix` or `tls`; empty for the hub itself.
        uid, pid: of a process of this machine; -1 and 0 on TLS.
        address: of the other machine; empty on the Unix socket.
        token: the number of the token that was shown; 0 where none was, or one that is not known.
    """

    door: str = ""
    uid: int = -1
    pid: int = 0
    address: str = ""
    token: int = 0

    def __str__(self) -> str:
        if self.door == Door.UNIX:
            return f"uid {self.uid} pid {self.pid}"
        if self.door == Door.TLS:
            return self.address + (f" token {self.token}" if self.token else "")
        return "the hub"


class Caller(msgspec.Struct, frozen=True, array_like=True):
    """Who asks. A stranger, whom no door has let in, has no user and no role."""

    user: str = ""
    role: Role | None = None
    origin: Origin = Origin()


class Action(StrEnum):
    """Everything that can be asked of a hub. The audit trail calls it by these names."""

    HUB_SEE = "hub.see"
    NODE_SEE = "node.see"
    BATCH_SUBMIT = "batch.submit"
    BATCH_SEE = "batch.see"
    BATCH_HOLD = "batch.hold"
    BATCH_RELEASE = "batch.release"
    BATCH_CANCEL = "batch.cancel"
    BATCH_RETRY = "batch.retry"
    BATCH_SET = "batch.set"
    OUTPUT_READ = "output.read"
    INPUT_WRITE = "input.write"
    NODE_DRAIN = "node.drain"
    NODE_RESUME = "node.resume"
    NODE_REMOVE = "node.remove"
    EVENT_SEE = "event.see"
    AUDIT_SEE = "audit.see"
    TOKEN_SEE = "token.see"
    TOKEN_CREATE = "token.create"
    TOKEN_REVOKE = "token.revoke"
    POLICY_SEE = "policy.see"
    POLICY_SET = "policy.set"
    RESERVATION_SEE = "reservation.see"
    RESERVATION_SET = "reservation.set"
    HUB_STOP = "hub.stop"


AGENT_JOIN: Final = "agent.join"
"""What an agent asks at the other door. It goes by the kind of its token and by nothing else."""


class Rule(msgspec.Struct, frozen=True):
    """Who may do an action.

    Attributes:
        least: the role from which on one may do it to anybody's batches, or, where it is about none, at all.
        is_owned: it is about a batch, and a user may do it to his own.
        text: what it is, to go on after "may not".
    """

    least: Role
    is_owned: bool
    text: str


RULES: Final[dict[Action, Rule]] = {
    Action.HUB_SEE: Rule(Role.USER, False, "see the hub"),
    Action.NODE_SEE: Rule(Role.USER, False, "see nodes"),
    Action.BATCH_SUBMIT: Rule(Role.USER, False, "submit a batch"),
    Action.BATCH_SEE: Rule(Role.OPERATOR, True, "see a batch, its jobs, and why they wait"),
    Action.BATCH_HOLD: Rule(Role.OPERATOR, True, "hold jobs"),
    Action.BATCH_RELEASE: Rule(Role.OPERATOR, True, "release jobs"),
    Action.BATCH_CANCEL: Rule(Role.ADMIN, True, "cancel jobs"),
    Action.BATCH_RETRY: Rule(Role.ADMIN, True, "retry jobs"),
    Action.BATCH_SET: Rule(Role.ADMIN, True, "change a batch's settings"),
    Action.OUTPUT_READ: Rule(Role.ADMIN, True, "read what jobs have written"),
    Action.INPUT_WRITE: Rule(Role.ADMIN, True, "write to a job's standard input"),
    Action.NODE_DRAIN: Rule(Role.OPERATOR, False, "drain a node"),
    Action.NODE_RESUME: Rule(Role.OPERATOR, False, "use a drained node again"),
    Action.NODE_REMOVE: Rule(Role.ADMIN, False, "remove a node"),
    Action.EVENT_SEE: Rule(Role.OPERATOR, False, "see what has happened to nodes and batches"),
    Action.AUDIT_SEE: Rule(Role.ADMIN, False, "see the audit trail"),
    Action.TOKEN_SEE: Rule(Role.ADMIN, False, "see tokens"),
    Action.TOKEN_CREATE: Rule(Role.ADMIN, False, "create a token"),
    Action.TOKEN_REVOKE: Rule(Role.ADMIN, False, "revoke a token"),
    Action.POLICY_SEE: Rule(Role.USER, False, "see the scheduling policy and the shares"),
    Action.POLICY_SET: Rule(Role.ADMIN, False, "change the scheduling policy"),
    Action.RESERVATION_SEE: Rule(Role.USER, False, "see reservations"),
    Action.RESERVATION_SET: Rule(Role.OPERATOR, False, "make, change and drop reservations"),
    Action.HUB_STOP: Rule(Role.ADMIN, False, "stop the hub"),
}
"""Every action, in the order in which people are shown it."""


def may_all(role: Role, action: Action) -> bool:
    """Whether this role may do it to anybody's; where it is about nobody's, whether it may at all."""
    return role.reaches(RULES[action].least)


def may(role: Role, action: Action, *, is_own: bool) -> bool:
    """Whether this role may do it to what is his own, or to what is another's."""
    return may_all(role, action) or (is_own and RULES[action].is_owned)


def require(caller: Caller, action: Action) -> None:
    """Raises NotAllowed (`needs_role`) where the caller may not do it to anything at all."""
    rule = RULES[action]
    if caller.role is None or not may(caller.role, action, is_own=True):
        raise NotAllowed(
            f"{caller.user} may not {rule.text}: that takes the role {rule.least}",
            code="needs_role",
            hint="lanai token roles",
            facts={"action": action, "role": caller.role or "", "needs": rule.least},
        )


def require_for(caller: Caller, action: Action, owner: str, subject: str) -> None:
    """Raises NotAllowed (`not_yours`) where the caller may not do it to `subject`, which is `owner`'s."""
    if caller.role is None or not may(caller.role, action, is_own=caller.user == owner):
        raise NotAllowed(
            f"{caller.user} may not {RULES[action].text}: {subject} is {owner}'s",
            code="not_yours",
            hint="lanai batch list",
            facts={"action": action, "owner": owner, "role": caller.role or ""},
        )


# -- names of users

NAME_CHARACTERS: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+\\-]*\$?")


def user_name(text: str) -> str:
    """The name itself, where it can be a user's: what systems and directories allow, and nothing that is a number.

    Raises:
        UserError: it cannot; code `bad_user`.
    """
    if len(text) > NAME_CHARACTERS or not _NAME.fullmatch(text) or text.isdigit():
        shown = text[:NAME_CHARACTERS]
        raise UserError(
            f"{shown!r} cannot be a user's name: accepted are up to {NAME_CHARACTERS} letters, digits and _ . - @ + \\,"
            " beginning with a letter, digit or _, and not digits alone",
            code="bad_user",
            facts={"found": shown},
        )
    return text
