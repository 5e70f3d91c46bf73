"""What the verbs that change jobs say of what they have done: only what is known."""

from typing import Any

import pytest

from lanai.cli.changes import changed_text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"changed": 0}, "0 jobs held"),
        ({"changed": 1}, "1 job held"),
        ({"changed": 1200, "at_nodes": 0, "running": 0, "resumed": False}, "1,200 jobs held"),
        ({"changed": 10, "at_nodes": 2}, "8 jobs held, 2 jobs at nodes are held unless begun"),
        ({"changed": 1, "at_nodes": 1}, "1 job at nodes is held unless begun"),
        ({"changed": 8, "running": 1}, "8 jobs held, 1 job runs on"),
        ({"changed": 0, "running": 2}, "0 jobs held, 2 jobs run on"),
        ({"changed": 0, "resumed": True}, "goes on"),
        ({"changed": 3, "resumed": True}, "goes on, 3 jobs held"),
        ({"changed": 3, "stay": 2}, "3 jobs held, 2 jobs stay held, by an operator"),
        ({"changed": 3, "stay": 1}, "3 jobs held, 1 job stays held, by an operator"),
    ],
)
def test_only_what_is_known_is_counted_as_done(answer: dict[str, Any], text: str) -> None:
    assert changed_text(answer, "held", "held unless begun") == text
