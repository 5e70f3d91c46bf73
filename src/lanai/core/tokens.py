"""Tokens: created, revoked, and what follows when one is good no longer. Who shows one is checked by the shell."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lanai.core.effects import Answer, TokensChanged
from lanai.core.events import TokenCreated, TokensRevoked
from lanai.core.world import World
from lanai.model.errors import NothingThere, Refusal
from lanai.model.ids import TokenId
from lanai.model.records import SaveToken


def recover(world: World, found: Iterable[SaveToken]) -> None:
    """Take over what the store holds."""
    for token in found:
        _put(world, token)


def on_created(world: World, event: TokenCreated) -> None:
    """Give it a number."""
    if event.sha256 in world.token_of:
        error = Refusal("there is such a token already", code="token_exists")
        world.do(Answer(event.request, error=error.body()))
        return
    number = TokenId(max(world.tokens, default=0) + 1)
    token = SaveToken(number, event.kind, event.user, event.sha256, event.wall_us, event.expires_at_us, 0, event.label)
    world.keep(token)
    _put(world, token)
    world.do(TokensChanged())
    told: dict[str, object] = {"token": number}
    if event.expires_at_us:
        told["expires_at_us"] = event.expires_at_us
    world.do(Answer(event.request, told))


def on_revoked(world: World, event: TokensRevoked) -> None:
    """One by its number, or all of a user's. Those that were revoked before stay as they are."""
    meant = [token for token in world.tokens.values() if event.token == token.token or event.user == token.user]
    if not meant:
        what = f"user {event.user} has no token" if event.user else f"there is no token {event.token}"
        error = NothingThere(what, code="no_such_token", hint="lanai token list")
        world.do(Answer(event.request, error=error.body()))
        return
    fresh = [token for token in meant if not token.revoked_at_us]
    for token in fresh:
        revoked = msgspec.structs.replace(token, revoked_at_us=event.wall_us)
        world.keep(revoked)
        _put(world, revoked)
    if fresh:
        world.do(TokensChanged(tuple(token.token for token in fresh)))
    numbers = ",".join(str(token.token) for token in fresh)
    world.do(Answer(event.request, {"revoked": numbers, "count": len(fresh)}))


def look_at_expiry(world: World) -> None:
    """Whoever came in by a token that has expired meanwhile is to go."""
    if not world.token_due_us or world.wall_us < world.token_due_us:
        return
    since_us, world.token_due_us = world.token_due_us, 0
    live = [token for token in world.tokens.values() if token.expires_at_us and not token.revoked_at_us]
    for token in live:
        _note_due(world, token)
    gone = tuple(token.token for token in live if since_us <= token.expires_at_us <= world.wall_us)
    world.do(TokensChanged(gone))


def _put(world: World, token: SaveToken) -> None:
    world.tokens[token.token] = token
    world.token_of[token.sha256] = token
    if not token.revoked_at_us:
        _note_due(world, token)


def _note_due(world: World, token: SaveToken) -> None:
    at_us = token.expires_at_us
    if at_us > world.wall_us and (not world.token_due_us or at_us < world.token_due_us):
        world.token_due_us = at_us
