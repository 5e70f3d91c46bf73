"""The hub's own two tokens: found again, made anew where they are lost or good no longer, taken over from before."""

import getpass
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lanai.hub import identity
from lanai.model.ids import TokenId
from lanai.model.records import Recovered, SaveToken


class Home:
    """A hub's directory, and what its store holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.join, self.token = path / "join", path / "token"
        self.tokens: list[SaveToken] = []
        self.meta: dict[str, str] = {}

    def start(self, wall_us: int = 100) -> identity.Own:
        found = Recovered(meta=self.meta, last_batch=0, last_row=0, batches=[], nodes=[], tokens=self.tokens)
        own = identity.own_tokens(
            found, directory=self.path, join_file=self.join, token_file=self.token, wall_us=wall_us
        )
        self.tokens = own.tokens
        self.meta = own.meta
        identity.write_join(self.join, url="lanai://h:1", pin="p", next_pin="", token=own.join)
        urls = {"url": "https://h:2", "wire_url": "lanai://h:1"}
        identity.write_user_token(self.token, **urls, pin="p", next_pin="", token=own.user)
        identity.forget_before(self.path)
        return own

    def shown(self) -> list[tuple[int, str, bool]]:
        return [(token.token, token.kind, bool(token.revoked_at_us)) for token in self.tokens]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_the_first_start_makes_two_and_the_next_ones_find_them(home: Home) -> None:
    own = home.start()
    assert home.shown() == [(1, "agent", False), (2, "admin", False)]
    assert [len(secret) for secret in (own.join, own.user)] == [64, 64]
    assert all(token.user == getpass.getuser() for token in own.changed)
    again = home.start()
    assert (again.join, again.user, again.changed) == (own.join, own.user, [])


def test_a_lost_one_is_made_anew_and_the_last_is_revoked(home: Home) -> None:
    own = home.start()
    home.join.unlink()
    again = home.start(200)
    assert again.user == own.user and again.join != own.join
    assert home.shown() == [(1, "agent", True), (2, "admin", False), (3, "agent", False)]
    assert [token.token for token in again.changed] == [1, 3]


def test_a_revoked_one_is_made_anew(home: Home) -> None:
    own = home.start()
    home.tokens[1] = SaveToken(TokenId(2), "admin", "x", home.tokens[1].sha256, 100, revoked_at_us=150)
    again = home.start(200)
    assert again.join == own.join and again.user != own.user
    assert home.shown() == [(1, "agent", False), (2, "admin", True), (3, "admin", False)]


def test_a_users_token_in_the_hubs_file_is_not_taken_for_its_own(home: Home) -> None:
    """A file that somebody has put there by mistake must not be handed on as an administrator's."""
    home.start()
    user = "ab" * 32
    home.tokens.append(SaveToken(TokenId(3), "user", "ann", identity.digest(user), 100))
    home.token.write_text(json.dumps({"token": user}))
    again = home.start(200)
    assert again.user != user
    assert home.shown() == [(1, "agent", False), (2, "admin", True), (3, "user", False), (4, "admin", False)]


def before(path: Path, **secrets: str) -> None:
    """What a hub of before there were tokens in the store has left."""
    kinds: dict[str, Any] = {"join": "agent", "token": "user"}
    known = [{"sha256": identity.digest(s).hex(), "kind": kinds[n], "user": "x"} for n, s in secrets.items()]
    (path / "tokens.json").write_text(json.dumps({"tokens": known}))
    for name, secret in secrets.items():
        (path / name).write_text(json.dumps({"token": secret}))


def test_those_of_before_are_taken_over_once(home: Home) -> None:
    before(home.path, join="11" * 32, token="22" * 32)
    own = home.start()
    assert (own.join, own.user) == ("11" * 32, "22" * 32)
    assert home.shown() == [(1, "agent", False), (2, "admin", False)]
    assert not (home.path / "tokens.json").exists()


def test_files_that_were_not_the_hubs_are_not_taken_over(home: Home) -> None:
    before(home.path, join="11" * 32, token="22" * 32)
    (home.path / "join").write_text(json.dumps({"token": "33" * 32}))
    own = home.start()
    assert own.join not in ("11" * 32, "33" * 32)
    assert own.user == "22" * 32


def test_a_private_file_is_never_what_another_has_put_in_its_way(tmp_path: Path) -> None:
    """In a directory that others may write they could lie in wait under the name that it has first."""
    aim = tmp_path / "aim"
    for name in (f".join.{os.getpid()}", ".join", ".join.new"):
        (tmp_path / name).symlink_to(aim)
    (tmp_path / "join").symlink_to(aim)
    identity.write_private(tmp_path / "join", b"secret")
    assert not aim.exists() and not (tmp_path / "join").is_symlink()
    assert ((tmp_path / "join").read_bytes(), (tmp_path / "join").stat().st_mode & 0o777) == (b"secret", 0o600)
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        identity.write_private(tmp_path / "taken", b"secret")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".taken")]
