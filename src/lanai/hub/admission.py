"""Which agents of other machines come in: those that show a good token of the right kind. Who does not is noted.

The tokens are the core's, so a look at them costs no question to the store, and one that is revoked is so at once.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from lanai.core.events import Event, Noted
from lanai.core.world import World
from lanai.hub.clock import boottime_us, wall_us
from lanai.model.access import AGENT_JOIN, Caller, Door, Origin, TokenKind
from lanai.model.allowance import Allowance
from lanai.model.errors import NotAllowed
from lanai.model.ids import TokenId
from lanai.model.records import SaveToken
from lanai.wire import messages

REFUSALS_AT_ONCE: Final = 20
REFUSAL_EVERY_S: Final = 30.0
"""So many refused agents, and then one every so often, get a row in the audit trail; the others are counted there."""

NAME_CHARACTERS: Final = 100


class Admission:
    """Looks at what agents show.

    Args:
        post: puts an event into the inbox.
    """

    def __init__(self, world: World, post: Callable[[Event], None]) -> None:
        self._world = world
        self._post = post
        self._refusals = Allowance(burst=REFUSALS_AT_ONCE, every_s=REFUSAL_EVERY_S)

    def admit(self, hello: messages.Hello, address: str) -> TokenId:
        """The number of the token that lets an agent in. Raises NotAllowed.

        It is looked up by its hash, so what the time taken may tell is about hashes, of which no token can be made.
        """
        presented = hashlib.sha256(hello.token.encode()).digest()
        token = self._world.token_of.get(presented)
        if token is not None and not hmac.compare_digest(token.sha256, presented):
            token = None
        problem = _problem(hello, token)
        if token is not None and problem is None:
            return token.token
        error = problem or NotAllowed("the join token is wrong", code="bad_token", hint="use the hub's join file")
        left_out = self._refusals.take("", boottime_us() / 1e6)
        if left_out is not None:
            caller = Caller(origin=Origin(Door.TLS, address=address, token=token.token if token else 0))
            subject = f"node {hello.name[:NAME_CHARACTERS]}"
            self._post(Noted(caller, AGENT_JOIN, subject, wall_us(), {}, True, error.message, left_out))
        raise error


def _problem(hello: messages.Hello, token: SaveToken | None) -> NotAllowed | None:
    """What is wrong with a token that is known."""
    if token is None:
        return None
    if hello.kind != "agent" or token.kind != TokenKind.AGENT:
        why = "only agents come in here" if hello.kind != "agent" else f"token {token.token} is not for agents"
    elif not token.is_good(wall_us()):
        why = f"token {token.token} " + ("was revoked" if token.revoked_at_us else "has expired")
    else:
        return None
    return NotAllowed(why, code="bad_token", hint="lanai token create USER --kind agent")
