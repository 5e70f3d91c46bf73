"""The live line: bar, counts by state, jobs per second, and when the batch will be done.

`Pace` is pure: it is told what was seen and when, and estimates. `Live` draws: on a terminal one line that is drawn
over, elsewhere a new line every ten seconds. Both write to standard error only.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Final, Self

from lanai.cli.terminal import CLEAR_LINE, coloured, has_cursor, shortened, talk, width
from lanai.model.units import format_duration

FINAL: Final = ("done", "failed", "cancelled")
STATES: Final = ("done", "failed", "cancelled", "running", "locked", "queued", "held")
WINDOW_S: Final = 15.0
BAR_COLUMNS: Final = 24
SHORT_BAR_COLUMNS: Final = 10
PIPE_EVERY_S: Final = 10.0
_COLOURS: Final = {"done": "green", "failed": "red", "cancelled": "yellow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A batch at one moment.

    Attributes:
        at_s: by any clock that only goes forward.
        counts: jobs by state.
        mean_run_s: of the attempts that ended, or None while there are none.
        slots: attempts that run, or could run, at once; 0 is not known.
        is_disk_full: the hub has no room; what waits goes on when there is some.
    """

    at_s: float
    counts: Mapping[str, int]
    mean_run_s: float | None = None
    slots: int = 0
    is_disk_full: bool = False

    @property
    def total(self) -> int:
        """All jobs."""
        return sum(self.counts.get(state, 0) for state in STATES)

    @property
    def ended(self) -> int:
        """Jobs that came to an end."""
        return sum(self.counts.get(state, 0) for state in FINAL)


class Pace:
    """How quickly a batch gets done, from what was seen of it during the last fifteen seconds."""

    def __init__(self) -> None:
        self._seen: deque[Seen] = deque()
        self._ended_here = 0

    def see(self, seen: Seen) -> None:
        """Take note. `at_s` must not go back."""
        if self._seen:
            self._ended_here += max(0, seen.ended - self._seen[-1].ended)
        self._seen.append(seen)
        while len(self._seen) > 2 and self._seen[1].at_s <= seen.at_s - WINDOW_S:
            self._seen.popleft()

    def jobs_per_s(self) -> float:
        """Jobs that came to an end per second; 0 while nothing did."""
        if len(self._seen) < 2:
            return 0.0
        first, last = self._seen[0], self._seen[-1]
        return max(0, last.ended - first.ended) / max(last.at_s - first.at_s, 0.001)

    def eta_s(self) -> tuple[float, float] | None:
        """The least and the most seconds until all is done, or None while that is unknown.

        Two ways of asking, the rate seen and the mean run time over the slots, span the range; it is widened by what
        so few samples leave open, 1/sqrt(n), and by the one job that is still to come.
        """
        if not self._seen:
            return None
        now = self._seen[-1]
        left = now.total - now.ended - now.counts.get("held", 0)
        guesses = []
        rate = self.jobs_per_s()
        if rate > 0:
            guesses.append(left / rate)
        slots = now.slots or now.counts.get("running", 0)
        if now.mean_run_s is not None and slots:
            guesses.append(math.ceil(left / slots) * now.mean_run_s)
        if not guesses or not left:
            return None
        doubt = 1 / math.sqrt(max(self._ended_here, now.ended, 1))
        return min(guesses) / (1 + doubt), max(guesses) * (1 + doubt) + (now.mean_run_s or 0.0)


def eta_text(eta_s: tuple[float, float] | None) -> str:
    """The estimate for people: `ETA 10s to 14s`, or `ETA unknown`."""
    if eta_s is None:
        return "ETA unknown"
    low, high = (format_duration(_rounded(value)) for value in eta_s)
    return f"ETA {low}" if low == high else f"ETA {low} to {high}"


def _rounded(value_s: float) -> float:
    """Two figures at most, and whole seconds at least: more would pretend to a knowledge that nobody has."""
    if value_s < 1:
        return 1.0
    digits = max(0, math.floor(math.log10(value_s)) - 1)
    return float(round(value_s, -digits))


def bar(counts: Mapping[str, int], stream: IO[str], columns: int = BAR_COLUMNS) -> str:
    """The share of each way to end, as a bar of `columns` characters."""
    total = sum(counts.get(state, 0) for state in STATES) or 1
    ends, text = 0, ""
    drawn = 0
    for state in FINAL:
        ends += counts.get(state, 0)
        upto = ends * columns // total
        text += coloured("█" * (upto - drawn), _COLOURS[state], stream) if upto > drawn else ""
        drawn = upto
    return text + "░" * (columns - drawn)


def counts_text(counts: Mapping[str, int]) -> str:
    """The counts that are not 0, in words."""
    return ", ".join(f"{counts[state]:,} {state}" for state in STATES if counts.get(state)) or "no jobs"


def line(label: str, pace: Pace, seen: Seen) -> str:
    """The live line without its bar."""
    return _variants(label, pace, seen)[0]


def fitted(label: str, pace: Pace, seen: Seen, columns: int) -> str:
    """The same in at most `columns`: what matters least is left out first, and nothing is cut where that helps."""
    variants = _variants(label, pace, seen)
    return next((text for text in variants if len(text) <= columns), shortened(variants[-1], columns))


def _variants(label: str, pace: Pace, seen: Seen) -> tuple[str, ...]:
    """The live line in full, and ever shorter. The short ones count what is on its way to a node as queued."""
    percent = f"{100 * seen.ended // (seen.total or 1)}%"
    if seen.is_disk_full:
        stands = f"{percent}, the hub's disk is full"
        counts = counts_text(seen.counts)
        return f"{label} {stands}, it goes on when there is room: {counts}", f"{stands}: {counts}", stands
    rate = pace.jobs_per_s()
    speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
    eta = "" if seen.ended == seen.total else f", {eta_text(pace.eta_s())}"
    waiting = seen.counts.get("queued", 0) + seen.counts.get("locked", 0)
    counts = counts_text({**seen.counts, "queued": waiting, "locked": 0})
    return (
        f"{label} {percent}, {speed} jobs/s{eta}: {counts_text(seen.counts)}",
        f"{label} {percent}, {speed}/s{eta}: {counts}",
        f"{percent}, {speed}/s{eta}: {counts}",
        f"{percent}{eta}: {counts}",
        f"{percent}: {counts}",
        f"{percent}{eta}",
    )


class Live:
    """Draws a batch's progress on standard error; use as a context manager, so that the line is cleared at the end."""

    def __init__(self, label: str, *, now_s: float) -> None:
        self._label = label
        self._stream = sys.stderr
        self._is_live = has_cursor(self._stream)
        self._next_s = now_s + PIPE_EVERY_S
        self._is_drawn = False
        self.pace = Pace()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, seen: Seen) -> None:
        """Draw what was seen; off a terminal only if ten seconds have gone by since the last line."""
        self.pace.see(seen)
        if self._is_live:
            room = (width(self._stream) or 80) - 1
            columns = BAR_COLUMNS if room >= 100 else SHORT_BAR_COLUMNS
            drawn = bar(seen.counts, self._stream, columns)
            self._write(f"{CLEAR_LINE}{drawn} {fitted(self._label, self.pace, seen, room - columns - 1)}")
            self._is_drawn = True
        elif seen.at_s >= self._next_s:
            self._next_s = seen.at_s + PIPE_EVERY_S
            self._write(line(self._label, self.pace, seen) + "\n")

    def clear(self) -> None:
        """Take the line away, so that others can write."""
        if self._is_drawn:
            self._write(CLEAR_LINE)
            self._is_drawn = False

    def _write(self, text: str) -> None:
        talk(text)
