"""Only the hub's user and root by the kernel's word, only users' tokens on TLS; the token file may change meanwhile."""

import hashlib
import json
import os
import pwd
from pathlib import Path

import pytest

from lanai.api.identity import Identity
from lanai.model.errors import NotAllowed


def hub_tokens(path: Path, **tokens: str) -> None:
    known = [
        {"sha256": hashlib.sha256(token.encode()).hexdigest(), "kind": kind, "user": "ann"}
        for kind, token in tokens.items()
    ]
    replaced = path.with_suffix(".new")
    replaced.write_text(json.dumps({"tokens": known}))
    replaced.rename(path)


def test_by_uid(tmp_path: Path) -> None:
    identity = Identity(tmp_path / "tokens.json")
    assert identity.by_uid(os.geteuid()) == pwd.getpwuid(os.geteuid()).pw_name
    assert identity.by_uid(0) == "root"
    with pytest.raises(NotAllowed):
        identity.by_uid(os.geteuid() + 54321)


def test_by_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    hub_tokens(path, user="secret", agent="join")
    identity = Identity(path)
    assert identity.by_authorization(b"Bearer secret") == "ann"
    for header in (None, b"", b"secret", b"Basic secret", b"Bearer ", b"Bearer wrong", b"Bearer join"):
        with pytest.raises(NotAllowed):
            identity.by_authorization(header)


def test_a_token_may_be_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    hub_tokens(path, user="old")
    identity = Identity(path)
    assert identity.by_authorization(b"Bearer old") == "ann"
    hub_tokens(path, user="new")
    assert identity.by_authorization(b"Bearer new") == "ann"
    with pytest.raises(NotAllowed):
        identity.by_authorization(b"Bearer old")


@pytest.mark.parametrize("content", [None, "", "[]", '{"tokens": 3}'])
def test_without_readable_tokens_nobody_comes_in(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokens.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NotAllowed):
        Identity(path).by_authorization(b"Bearer x")
