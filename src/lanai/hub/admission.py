"""Which agents come in: of other machines those that show a good token of the right kind. Who does not is noted.

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
from lanai.model.batch import COUNT_MAX
from lanai.model.clauses import NAME
from lanai.model.errors import NotAllowed, TooMany, UserError
from lanai.model.features import is_feature
from lanai.model.ids import TokenId
from lanai.model.records import SaveToken
from lanai.model.resources import Capacity
from lanai.wire import messages

REFUSALS_AT_ONCE: Final = 20
REFUSAL_EVERY_S: Final = 30.0
"""So many refused agents, and then one every so often, get a row in the audit trail; the others are counted there."""

NAME_CHARACTERS: Final = 100

NEW_NODES: Final = 10_000
NEW_NODE_EVERY_S: Final = 10.0
"""So many nodes nobody has heard of before may join by one token, and then one more every so often."""

RESOURCES_EACH: Final = 64
GPUS_EACH: Final = 1_024
WORDS_EACH: Final = 100
WORD_CHARACTERS: Final = 100
"""What an agent may say of itself at most; far more than there is."""


class Admission:
    """Looks at what agents show.

    Args:
        post: puts an event into the inbox.
    """

    def __init__(self, world: World, post: Callable[[Event], None]) -> None:
        self._world = world
        self._post = post
        self._refusals = Allowance(burst=REFUSALS_AT_ONCE, every_s=REFUSAL_EVERY_S)
        self._new_nodes = Allowance(burst=NEW_NODES, every_s=NEW_NODE_EVERY_S)

    def admit(self, hello: messages.Hello, address: str) -> TokenId:
        """The number of the token that lets an agent in. Raises NotAllowed, or TooMany for nodes without end.

        It is looked up by its hash, so what the time taken may tell is about hashes, of which no token can be made.
        """
        presented = hashlib.sha256(hello.token.encode()).digest()
        token = self._world.token_of.get(presented)
        if token is not None and not hmac.compare_digest(token.sha256, presented):
            token = None
        problem = _problem(hello, token)
        if token is not None and problem is None:
            self._bound(hello, token)
            return token.token
        error = problem or NotAllowed("the join token is wrong", code="bad_token", hint="use the hub's join file")
        left_out = self._refusals.take("", boottime_us() / 1e6)
        if left_out is not None:
            caller = Caller(origin=Origin(Door.TLS, address=address, token=token.token if token else 0))
            subject = f"node {hello.name[:NAME_CHARACTERS]}"
            self._post(Noted(caller, AGENT_JOIN, subject, wall_us(), {}, True, error.message, left_out))
        raise error

    def _bound(self, hello: messages.Hello, token: SaveToken) -> None:
        is_new = hello.name not in self._world.names
        if is_new and self._new_nodes.take(str(token.token), boottime_us() / 1e6) is None:
            raise TooMany(
                f"more than {NEW_NODES} new nodes have come by token {token.token}; there is room for one more every "
                f"{NEW_NODE_EVERY_S:g} s",
                code="too_many_nodes",
                hint="lanai node list",
            )


def check_offer(hello: messages.Hello, capacity: Capacity) -> None:
    """Raises UserError (`bad_offer`) where an agent offers what no computer has: it would be kept, and shown to all."""
    amounts = [capacity.cpu_milli, capacity.memory_bytes, *(count for _, count in capacity.named)]
    words = [hello.boot_id, hello.started_by, *hello.features, *capacity.gpus]
    for problem, is_wrong in (
        (f"an amount that is not between 0 and {COUNT_MAX}", not all(0 <= each <= COUNT_MAX for each in amounts)),
        (f"more than {RESOURCES_EACH} named resources", len(capacity.named) > RESOURCES_EACH),
        ("a named resource without a proper name", not all(NAME.fullmatch(name) for name, _ in capacity.named)),
        ("a named resource twice", len({name for name, _ in capacity.named}) < len(capacity.named)),
        (f"more than {GPUS_EACH} gpus", len(capacity.gpus) > GPUS_EACH),
        (f"more than {WORDS_EACH} features", len(hello.features) > WORDS_EACH),
        ("a feature twice", len(set(hello.features)) < len(hello.features)),
        ("a feature without a proper name", not all(map(is_feature, hello.features))),
        (f"a word of more than {WORD_CHARACTERS} characters", any(len(word) > WORD_CHARACTERS for word in words)),
    ):
        if is_wrong:
            raise UserError(f"this agent offers {problem}", code="bad_offer", hint="lanai agent start --help")


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
