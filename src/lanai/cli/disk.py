"""What is said while the hub's disk is full: a state that nobody has to end but by making room."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from lanai.cli.terminal import coloured, printable, say


def is_full(hub: Mapping[str, Any]) -> bool:
    """Whether a hub has no room for what it has to keep, by what it says of itself."""
    return hub.get("store") == "full"


def say_if_full(hub: Mapping[str, Any]) -> None:
    """Say so, and where room is to be made, on standard error."""
    if is_full(hub):
        line = f"lanai: the hub's disk is full; it goes on by itself when there is room in {hub['directory']}"
        say(coloured(printable(line), "red", sys.stderr))
