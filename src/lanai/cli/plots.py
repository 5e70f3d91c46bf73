"""The pictures of replays: utilisation and queue length over time, and the distribution of waits, as PNG and SVG.

All replays of a call are in each picture. Drawn by matplotlib, which is an extra and is imported here only, when a
picture is asked for. What is drawn is worked out in `lanai.sim.curves`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lanai.cli.replacing import replace_bytes
from lanai.model.errors import UserError

if TYPE_CHECKING:
    from lanai.sim.curves import Curve
    from lanai.sim.swf import Trace

KINDS: Final = ("png", "svg")
INCHES: Final = (10.0, 5.0)
DPI: Final = 144
HANDLE_INCHES: Final = 0.9
LETTER_INCHES: Final = 0.09
LINE_INCHES: Final = 0.24
"""What a column of the legend takes, and each letter and each line of it, in inches."""
LINES_WITHIN: Final = 3
"""So many lines of the legend leave room enough for the picture as it is."""
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart by the colour-blind as well (Okabe, Ito 2008)."""
DASHES: Final = ("-", "--", ":", "-.")
DAY_S: Final = 86_400
DAYS_FROM_S: Final = 2 * DAY_S
HOURS_FROM_S: Final = 2 * 3600
APART: Final = 20
"""Queues whose peaks lie further apart than this are drawn on a logarithmic axis, so that the short ones are seen."""
WAIT_TICKS: Final = (
    *((1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"), (6 * 3600, "6 h"), (DAY_S, "1 d")),
    *((4 * DAY_S, "4 d"), (14 * DAY_S, "14 d"), (60 * DAY_S, "60 d"), (365 * DAY_S, "1 y"), (3650 * DAY_S, "10 y")),
)


class Drawn(NamedTuple):
    """A replay to be drawn: its name in the legend, what was replayed, and the starts."""

    name: str
    trace: Trace
    starts: Sequence[int]


def require() -> None:
    """Raises UserError where there is nothing to draw with."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UserError(
            "pictures are drawn by matplotlib, which is not installed here",
            code="no_matplotlib",
            hint="pip install 'lanai[plots]'",
        ) from None


def draw(directory: str, title: str, drawn: Sequence[Drawn]) -> list[str]:
    """Write `utilisation`, `queue` and `waits` into a directory, which is made where it is missing.

    Returns:
        The files, in that order, PNG before SVG. Each is whole, or as it was before.

    Raises:
        UserError: they cannot be written.
    """
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {directory}: {error.strerror}", facts={"file": directory}) from error
    files = []
    for name, figure in _figures(title, drawn):
        for kind in KINDS:
            path = os.path.join(directory, f"{name}.{kind}")
            replace_bytes(path, _rendered(figure, kind))
            files.append(path)
    return files


def _figures(title: str, drawn: Sequence[Drawn]) -> Iterator[tuple[str, Any]]:
    from lanai.sim.curves import queue_length, span_of, stretch_of, utilisation

    stretch = stretch_of(span_of(each.trace, each.starts) for each in drawn)
    with _style():
        used = [(each.name, utilisation(each.trace, each.starts, stretch)) for each in drawn]
        yield "utilisation", _over_time(used, f"Utilisation: {title}", "processors used", is_part=True)
        queued = [(each.name, queue_length(each.trace, each.starts, stretch)) for each in drawn]
        yield "queue", _over_time(queued, f"Queue length: {title}", "waiting jobs")
        yield "waits", _of_waits(drawn, f"Waits: {title}")


# -- the pictures


def _over_time(curves: Sequence[tuple[str, Curve]], title: str, what: str, *, is_part: bool = False) -> Any:
    stretch = curves[0][1].stretch_s
    figure, axes = _axes(title)
    unit, unit_s = _unit_of_time(max(len(curve.means) for _, curve in curves) * stretch)
    for (name, curve), look in zip(curves, _looks(len(curves)), strict=True):
        edges = [at * stretch / unit_s for at in range(len(curve.means) + 1)]
        axes.plot(edges, [*curve.means, curve.means[-1]], drawstyle="steps-post", label=name, **look)
    axes.set_xlabel(f"{unit} since the first submission")
    axes.set_ylabel(f"{what} (mean of each {_length(stretch)})")
    axes.set_xlim(0, max(len(curve.means) for _, curve in curves) * stretch / unit_s)
    peaks = [max(curve.means) for _, curve in curves]
    if is_part:
        axes.yaxis.set_major_formatter(_percent)
    elif max(peaks) > APART * max(min(peaks), 1):
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter(_plain)
    axes.set_ylim(bottom=0, top=1.02 if is_part else None)
    _explain(figure, axes, len(curves))
    return figure


def _of_waits(drawn: Sequence[Drawn], title: str) -> Any:
    from lanai.sim.curves import waits

    figure, axes = _axes(title)
    longest = 1
    for each, look in zip(drawn, _looks(len(drawn)), strict=True):
        steps = waits(each.trace, each.starts)
        longest = max(longest, steps[-1][0])
        at_once = next((part for wait, part in reversed(steps) if wait <= 1), 0.0)
        later = [step for step in steps if step[0] > 1]
        axes.plot(
            [1, *[wait for wait, _ in later]],
            [at_once, *[part for _, part in later]],
            drawstyle="steps-post",
            label=each.name,
            **look,
        )
    shown = [(wait, label) for wait, label in WAIT_TICKS if wait <= max(10, 2 * longest)]
    axes.set_xscale("log")
    axes.set_xticks([wait for wait, _ in shown], [label for _, label in shown])
    axes.minorticks_off()
    axes.set_xlim(1, max(shown[-1][0], longest))
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(_percent)
    axes.set_xlabel("wait (at its left end: no more than 1 s)")
    axes.set_ylabel("jobs that waited no longer")
    _explain(figure, axes, len(drawn))
    return figure


# -- what they share


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    settings = {
        "font.size": 11,
        "axes.grid": True,
        "grid.color": "#d9d9d9",
        "grid.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "lanai",
        "text.parse_math": False,
    }
    with mpl.rc_context(settings):
        yield


def _axes(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=13)
    return figure, axes


def _explain(figure: Any, axes: Any, count: int) -> None:
    """The legend, below the picture, where it hides nothing: as wide as that at most, which grows by its lines."""
    handles, labels = axes.get_legend_handles_labels()
    width, height = INCHES
    fitting = int(width / (HANDLE_INCHES + LETTER_INCHES * max(map(len, labels))))
    columns = max(1, min(count, 4, fitting))
    figure.set_size_inches(width, height + LINE_INCHES * max(0, -(-count // columns) - LINES_WITHIN))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def _looks(count: int) -> Iterator[dict[str, Any]]:
    """How each line is drawn: by colour, then by its dashes as well; the first ones lie wider beneath the others."""
    for at in range(count):
        colour, dashes = COLOURS[at % len(COLOURS)], DASHES[at // len(COLOURS) % len(DASHES)]
        width = 1.6 if count == 1 else 2.4 - 1.2 * at / (count - 1)
        yield {"color": colour, "linestyle": dashes, "linewidth": width}


def _unit_of_time(span_s: int) -> tuple[str, int]:
    if span_s >= DAYS_FROM_S:
        return "days", DAY_S
    return ("hours", 3600) if span_s >= HOURS_FROM_S else ("seconds", 1)


def _length(stretch_s: int) -> str:
    for unit, unit_s in (("d", DAY_S), ("h", 3600), ("min", 60)):
        if stretch_s % unit_s == 0:
            return f"{stretch_s // unit_s} {unit}"
    return f"{stretch_s} s"


def _percent(value: float, _place: int | None = None) -> str:
    return f"{value:.0%}"


def _plain(value: float, _place: int | None = None) -> str:
    return f"{value:,.0f}"


def _rendered(figure: Any, kind: str) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
