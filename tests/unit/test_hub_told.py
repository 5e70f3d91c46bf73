"""Events as lines of the log: each is one line, whatever an agent has said."""

import logging

import pytest

from lanai.hub.told import log_events
from lanai.model.records import SaveEvent


def test_what_an_agent_says_does_not_look_like_lines_of_the_hubs(caplog: pytest.LogCaptureFixture) -> None:
    trouble = "disk full\n2026-11-27 CRITICAL lanai.hub: all is lost \33[2J"
    with caplog.at_level(logging.INFO):
        log_events([SaveEvent(1, "node_trouble", "n1", trouble), SaveEvent(1, "node_joined", "n\N{SNOWMAN}", "again")])
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "node_trouble n1: disk full\\n2026-11-27 CRITICAL lanai.hub: all is lost \\x1b[2J",
        "node_joined n\N{SNOWMAN}: again",
    ]
    assert vars(caplog.records[0])["lanai_node"] == "n1"
