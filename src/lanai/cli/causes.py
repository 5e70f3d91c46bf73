"""How a job failed, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_CHECK: Final = re.compile(r"\b((?:in|out)put check [a-z]+\+?): ")
_CAUSES: Final = {
    "time": "ran out of time",
    "memory": "ran out of memory",
    "check": "an input or output file is not in order",
    "notfound": "command not found",
    "node": "the node could not run it",
    "lost": "the node was lost",
    "cancelled": "cancelled",
    "preempted": "made way for another job",
}


def cause(failed: Mapping[str, Any]) -> str:
    """How a job, or a group of them, failed: from `outcome`, `exit_code` and `signal`, and of a check its `reason`."""
    outcome = failed["outcome"]
    if outcome == "exit":
        return f"exit code {failed['exit_code']}"
    if outcome == "signal":
        return signal_name(failed["signal"])
    if outcome == "check":
        kinds = sorted(set(_CHECK.findall(failed.get("reason") or "")))
        return " and ".join(kinds) + " failed" if kinds else _CAUSES["check"]
    return _CAUSES.get(str(outcome), str(outcome))


def signal_name(number: int) -> str:
    """`killed by SIGSEGV (11)`."""
    import signal

    try:
        return f"killed by {signal.Signals(number).name} ({number})"
    except ValueError:
        return f"killed by signal {number}"
