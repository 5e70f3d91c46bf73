"""The agent's process: what it logs."""

from __future__ import annotations

import pytest

from lanai.agent.__main__ import _logger


def test_words_of_others_do_not_look_like_lines_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    """The reason that a user's starter gives may hold anything."""
    _logger("n1")("no: \n2026-01-01T00:00:00 agent 1: all is well \x1b[2J")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith("no: \\x0a2026-01-01T00:00:00 agent 1: all is well \\x1b[2J")
