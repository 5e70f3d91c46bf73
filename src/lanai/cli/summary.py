"""What is said when a batch has ended: counts, failures grouped by cause with what they wrote, what to type next."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from lanai.cli.causes import cause
from lanai.cli.progress import counts_text
from lanai.cli.terminal import coloured, printable, say, shortened, width
from lanai.model.units import format_duration

if TYPE_CHECKING:
    from lanai.client.client import Client

GROUPS: Final = 10
EXAMPLES: Final = 3
ERROR_LINES: Final = 3
SETTLE_TRIES: Final = 5
SETTLE_S: Final = 0.2


def exit_code(batch: Mapping[str, Any]) -> int:
    """0 where all jobs of the batch are done, else 1."""
    counts = batch["counts"]
    is_all = batch["state"] == "ended" and not counts.get("failed") and not counts.get("cancelled")
    return 0 if is_all else 1


def summarize(client: Client, batch: Mapping[str, Any], *, took_s: float | None = None) -> int:
    """Say on standard error what came of a batch; returns the exit code that follows from it."""
    number = batch["batch"]
    failures: Mapping[str, Any] = {"groups": []}
    if batch["counts"].get("failed"):
        batch, failures = _settled(client, batch)
    took = "" if took_s is None else f" in {format_duration(took_s)}"
    say(f"batch {number}: {counts_text(batch['counts'])}{took}")
    if batch["state"] == "paused":
        say(coloured(f"batch {number} is paused: {batch.get('reason') or 'no reason given'}", "red", sys.stderr))
    elif batch.get("reason"):
        say(f"batch {number}: {batch['reason']}")
    for line in [*failure_lines(failures["groups"]), *_further_lines(batch, failures), *next_commands(batch)]:
        say(line)
    return exit_code(batch)


def _settled(client: Client, batch: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A batch with the counts of a moment at which its failures were looked up, and these.

    A batch that is paused goes on changing while its last jobs end, and a count is told before the failures behind it
    are on disk. So both are asked again until they agree, for a second at most.
    """
    number = batch["batch"]
    for _ in range(SETTLE_TRIES):
        failures = client.failures(number, limit=GROUPS)
        if _jobs_of(failures) == batch["counts"]["failed"]:
            break
        now = client.batch(number, after=batch["change"], timeout_s=SETTLE_S)
        batch = {**batch, "counts": now["counts"], "change": now["change"]}
    return batch, failures


def _jobs_of(failures: Mapping[str, Any]) -> int:
    shown: int = sum(group["count"] for group in failures["groups"])
    return shown + int(failures.get("more_jobs", 0))


def _further_lines(batch: Mapping[str, Any], failures: Mapping[str, Any]) -> list[str]:
    """What the groups that are shown leave out."""
    lines = []
    if jobs := failures.get("more_jobs", 0):
        groups = failures["more_groups"]
        causes = "1 further cause" if groups == 1 else f"{groups:,} further causes"
        lines.append(f"  {jobs:,} x {causes} (not shown): lanai job list {batch['batch']}@failed")
    late = batch["counts"].get("failed", 0) - _jobs_of(failures)
    if late > 0:
        lines.append(f"  {late:,} x failed while this was looked up: lanai job list {batch['batch']}@failed")
    return lines


def failure_lines(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """The failures as lines, the largest group first."""
    lines = []
    room = (width(sys.stderr) or 120) - 6
    for group in groups:
        examples = group["examples"]
        named = ", ".join(_id(example) for example in examples[:EXAMPLES])
        more = ", ..." if group["count"] > len(examples[:EXAMPLES]) else ""
        head = f"  {group['count']:,} x {cause(group)}: {named}{more}"
        lines.append(coloured(head, "red", sys.stderr))
        lines += ["      " + shortened(printable(text), room) for text in _first_lines(examples)]
    return lines


def next_commands(batch: Mapping[str, Any]) -> list[str]:
    """What one might type next."""
    number, counts = batch["batch"], batch["counts"]
    lines = []
    if counts.get("failed"):
        lines.append(f"lanai logs {number}@failed      what they wrote")
        lines.append(f"lanai retry {number}@failed     try them again")
    elif counts.get("cancelled"):
        lines.append(f"lanai retry {number}@cancelled  run them after all")
    if batch["state"] == "paused":
        lines.append(f"lanai release {number}          go on all the same")
    return [f"try: {line}" for line in lines]


def _id(example: Mapping[str, Any]) -> str:
    return str(example.get("id") or f"{example.get('batch')}/{example.get('index')}")


def _first_lines(examples: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first lines that the first example with any has written to standard error, else its reason."""
    for example in examples:
        written = [line for line in (example.get("stderr") or "").splitlines() if line.strip()]
        if written:
            return written[:ERROR_LINES]
    reasons = [str(example["reason"]) for example in examples if example.get("reason")]
    return reasons[:1]
