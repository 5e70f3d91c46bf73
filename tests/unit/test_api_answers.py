"""Answers carry any bytes, times in UTC, and errors as they are."""

import json

import msgspec
import pytest

from lanai.api.answers import encoded, refusal, rfc3339, text
from lanai.model.errors import ErrorBody as Body
from lanai.model.errors import InternalError, NothingThere, raised_from


def test_times() -> None:
    assert rfc3339(0) is None
    assert rfc3339(1) == "1970-01-01T00:00:00.000001Z"
    assert rfc3339(1_790_000_000_000_000) == "2026-09-21T14:13:20.000000Z"


def test_bytes_survive_json() -> None:
    raw = b"caf\xe9 \x80"
    assert json.loads(encoded({"command": text(raw)}))["command"].encode("utf-8", "surrogateescape") == raw


def test_an_error_is_the_same_on_the_other_side() -> None:
    error = NothingThere("there is no batch 3", code="no_such_batch", hint="lanai batch list", facts={"batch": 3})
    response = refusal(error)
    assert response.status_code == 404
    body = msgspec.convert(json.loads(response.body)["error"], Body)
    again = raised_from(body)
    assert isinstance(again, NothingThere)
    assert (again.message, again.code, again.hint, again.facts) == (error.message, error.code, error.hint, error.facts)


def test_our_own_mistake_is_said_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    response = refusal(ZeroDivisionError("x"))
    assert response.status_code == InternalError.http_status
    assert json.loads(response.body)["error"]["exit_code"] == 70
    assert "ZeroDivisionError" in caplog.text
