"""A hub's certificate is changed in two steps, so that all can know the next one before it counts."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest

from lanai.hub import identity
from lanai.model.errors import UserError


def test_an_announced_certificate_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    old = identity.ensure_certificate(tmp_path, "here")
    file = tmp_path / "join"
    identity.write_join(file, url="lanai://here:1", pin=old, next_pin="", token="t")
    assert "next_pin" not in file.read_text()
    announced = identity.announce_certificate(tmp_path, "here", [file, tmp_path / "missing"])
    assert identity.announce_certificate(tmp_path, "here", [file]) == announced == identity.next_pin(tmp_path)
    assert json.loads(file.read_text()) == {"url": "lanai://here:1", "pin": old, "token": "t", "next_pin": announced}
    assert file.stat().st_mode & 0o777 == 0o600
    assert identity.switch_certificate(tmp_path) == announced == identity.ensure_certificate(tmp_path, "here")
    assert identity.next_pin(tmp_path) == ""
    with pytest.raises(UserError):
        identity.switch_certificate(tmp_path)


def test_a_switch_that_was_broken_off_is_brought_to_its_end(tmp_path: Path) -> None:
    """The key has moved and the certificate has not: neither goes with the other."""
    identity.ensure_certificate(tmp_path, "here")
    announced = identity.announce_certificate(tmp_path, "here", [])
    (tmp_path / identity.NEXT_KEY).rename(tmp_path / identity.KEY)
    assert identity.ensure_certificate(tmp_path, "here") == announced
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / identity.CERTIFICATE, tmp_path / identity.KEY)


def test_nothing_is_announced_by_a_hub_without_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        identity.announce_certificate(tmp_path, "here", [])


def test_a_file_that_cannot_be_understood_is_named_before_anything_is_made(tmp_path: Path) -> None:
    """Else there would be a certificate to switch to that nobody has been told of."""
    identity.ensure_certificate(tmp_path, "here")
    (tmp_path / "join").write_text("garbage")
    with pytest.raises(UserError) as refused:
        identity.announce_certificate(tmp_path, "here", [tmp_path / "join"])
    assert refused.value.code == "bad_token_file" and f"{tmp_path}/join" in refused.value.message
    assert identity.next_pin(tmp_path) == ""
