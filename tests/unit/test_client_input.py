"""Giving input through the client: on from what was taken, until all of it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from lanai.client import Client, Target
from lanai.model.errors import OtherEnd, Refusal
from scripted_api import error, serving

PATH = "/v1/jobs/7/1/input"


def test_what_was_not_taken_yet_is_sent_again_and_nothing_else(tmp_path: Path) -> None:
    answers = iter(
        [
            {"offset": 12, "end": False},
            (503, {"error": error("hub_unreachable", "the hub has ended", exit_code=3)}),
            {"offset": 14, "end": False},
            {"offset": 14, "end": True},
        ]
    )
    with serving(tmp_path) as api:
        api.on("POST", PATH, lambda query, body: next(answers))
        first = Client(Target(socket=tmp_path / "hub" / "api.sock"))
        client = first.another()
        assert client.send_input(7, 1, b"abcd", offset=10, is_end=True, attempt=2) == 14
        client.close()
        first.close()
    asked = [(int(query["offset"]), body) for _, _, query, body in api.asked]
    assert asked == [(10, b"abcd"), (12, b"cd"), (12, b"cd"), (14, b"")]
    assert {(query["end"], query["attempt"]) for _, _, query, _ in api.asked} == {("1", "2")}


def test_a_refusal_is_raised_as_what_it_is(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        api.on("POST", PATH, (409, {"error": error("input_missing", "byte 3 is to come first", exit_code=7, offset=3)}))
        client = Client(Target(socket=tmp_path / "hub" / "api.sock"))
        with pytest.raises(Refusal) as refused:
            client.send_input(7, 1, b"abcd", offset=10)
        client.close()
    assert (refused.value.code, refused.value.facts) == ("input_missing", {"offset": 3})


def test_a_hub_that_has_never_answered_is_not_waited_for(tmp_path: Path) -> None:
    client = Client(Target(socket=tmp_path / "api.sock"))
    with pytest.raises(OtherEnd):
        client.send_input(7, 1, b"abcd", offset=0)
    client.close()
