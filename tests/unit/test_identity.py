"""Who a caller is: the kernel's word on the Unix socket, good tokens of the right kind on TLS; and what he is then."""

import asyncio
import hashlib
import os
import pwd
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from lanai.api.identity import Admission, Guests, Identity
from lanai.api.view import View
from lanai.model.access import Role
from lanai.model.errors import NotAllowed
from lanai.model.ids import TokenId
from lanai.model.records import SaveToken
from lanai.store.sqlite import SqliteWriter

T = TypeVar("T")
NOBODY = pwd.getpwnam("nobody").pw_uid
UNKNOWN = 54_321_987
NOW_US = time.time_ns() // 1000


def token(number: int, secret: str, kind: str = "user", user: str = "ann", **differs: int) -> SaveToken:
    return SaveToken(TokenId(number), kind, user, hashlib.sha256(secret.encode()).digest(), NOW_US, **differs)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SqliteWriter]:
    made = SqliteWriter(tmp_path)
    yield made
    made.close()


@pytest.fixture
def view(writer: SqliteWriter, tmp_path: Path) -> Iterator[View]:
    made = View(tmp_path)
    yield made
    made.close()


def asked(view: View, question: Callable[[Identity], object], admission: Admission = Admission()) -> object:  # noqa: B008
    async def ask() -> object:
        return await question(Identity(view, admission))  # type: ignore[misc]

    return asyncio.run(ask())


def test_root_and_the_hubs_own_user_are_administrators(view: View) -> None:
    own = asked(view, lambda identity: identity.by_credentials(7, os.geteuid()))
    root = asked(view, lambda identity: identity.by_credentials(8, 0))
    assert (own.user, own.role, own.origin.pid) == (pwd.getpwuid(os.geteuid()).pw_name, Role.ADMIN, 7)  # type: ignore[attr-defined]
    assert (root.user, root.role, str(root.origin)) == ("root", Role.ADMIN, "uid 0 pid 8")  # type: ignore[attr-defined]


def test_others_of_the_machine_come_in_only_where_the_hub_is_open(view: View) -> None:
    with pytest.raises(NotAllowed, match="nobody may not use it"):
        asked(view, lambda identity: identity.by_credentials(7, NOBODY))
    found = asked(view, lambda identity: identity.by_credentials(7, NOBODY), Admission(is_open=True))
    assert (found.user, found.role) == ("nobody", Role.USER)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("listed", "role"), [("operators", Role.OPERATOR), ("admins", Role.ADMIN)])
def test_the_configuration_says_who_is_more(view: View, listed: str, role: Role) -> None:
    admission = Admission(is_open=True, **{listed: frozenset({"nobody"})})
    found = asked(view, lambda identity: identity.by_credentials(7, NOBODY), admission)
    assert found.role is role  # type: ignore[attr-defined]


def test_a_number_without_a_name_is_refused(view: View) -> None:
    with pytest.raises(NotAllowed) as caught:
        asked(view, lambda identity: identity.by_credentials(7, UNKNOWN), Admission(is_open=True))
    assert caught.value.code == "unknown_user"
    assert str(UNKNOWN) in caught.value.message


def test_a_token_says_who_and_what(view: View, writer: SqliteWriter) -> None:
    writer.commit([token(1, "one"), token(2, "two", "admin", "eve"), token(3, "three", user="olga")])
    admission = Admission(operators=frozenset({"olga"}))
    for header, user, role, number in (
        (b"Bearer one", "ann", Role.USER, 1),
        (b"bearer two", "eve", Role.ADMIN, 2),
        (b"Bearer three ", "olga", Role.OPERATOR, 3),
    ):
        found, by = asked(view, lambda identity, h=header: identity.by_authorization(h, "10.0.0.9"), admission)  # type: ignore[misc]
        assert (found.user, found.role, by.token) == (user, role, number)
        assert str(found.origin) == f"10.0.0.9 token {number}"


def test_whoever_has_no_good_token_stays_outside(view: View, writer: SqliteWriter) -> None:
    writer.commit(
        [
            token(1, "join", "agent"),
            token(2, "late", expires_at_us=NOW_US - 1),
            token(3, "gone", revoked_at_us=NOW_US - 1),
            token(4, "good", expires_at_us=NOW_US + 10**12),
        ]
    )
    hashed = hashlib.sha256(b"good").hexdigest().encode()
    wrong = (None, b"", b"good", b"Basic good", b"Bearer ", b"Bearer wrong", b"Bearer join", b"Bearer late")
    for header in (*wrong, b"Bearer gone", b"Bearer " + hashed):
        with pytest.raises(NotAllowed):
            asked(view, lambda identity, h=header: identity.by_authorization(h, ""))
    asked(view, lambda identity: identity.by_authorization(b"Bearer good", ""))


def test_what_has_changed_counts_from_the_word_on(view: View, writer: SqliteWriter) -> None:
    writer.commit([token(1, "one")])

    async def live() -> list[str]:
        identity = Identity(view, Admission())
        guests = Guests(identity)
        said = []

        async def try_it() -> None:
            try:
                await identity.by_authorization(b"Bearer one", "")
                said.append("in")
            except NotAllowed:
                said.append("out")

        await try_it()
        writer.commit([token(1, "one", revoked_at_us=NOW_US)])
        guests.tokens_changed()
        await try_it()
        writer.commit([token(2, "one more")])
        guests.tokens_changed()
        await identity.by_authorization(b"Bearer one more", "")
        return said

    assert asyncio.run(live()) == ["in", "out"]


def test_a_request_ends_with_its_token(view: View, writer: SqliteWriter) -> None:
    """One that is revoked, one that expires, and one that stays good, each with an answer under way for ever."""
    writer.commit([token(1, "revoked"), token(2, "stays")])

    async def stream(guests: Guests, by: SaveToken, begun: asyncio.Event) -> bool:
        guest = guests.enter(by)
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return guest.is_turned_out
        finally:
            guests.leave(guest)
        return False

    async def live() -> list[bool]:
        guests = Guests(Identity(view, Admission()))
        expires = token(3, "expires", expires_at_us=time.time_ns() // 1000 + 50_000)
        streams = []
        for by in (token(1, "revoked"), expires, token(2, "stays")):
            begun = asyncio.Event()
            streams.append(asyncio.ensure_future(stream(guests, by, begun)))
            await begun.wait()
        writer.commit([token(1, "revoked", revoked_at_us=NOW_US), expires])
        guests.tokens_changed()
        ended = [await streams[0], await streams[1]]
        assert not streams[2].done()
        streams[2].cancel()
        return [*ended, await streams[2]]

    assert asyncio.run(live()) == [True, True, False]
