"""Pictures: what is said where none can be drawn, that a repeat gives the same file, and the axes that are chosen."""

import re
import sys
from pathlib import Path

import pytest

from lanai.cli.plots import Drawn, draw, require
from lanai.model.errors import UserError
from lanai.sim.swf import Trace, TraceJob


def drawn(name: str, *jobs: tuple[int, int, int]) -> Drawn:
    """A replay of jobs of (submit, start, run)."""
    made = [TraceJob(str(n), submit, run, 1, run, 1) for n, (submit, _, run) in enumerate(jobs)]
    return Drawn(name, Trace("log", 1, len(jobs), made, []), [start for _, start, _ in jobs])


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError) as refused:
        require()
    assert refused.value.code == "no_matplotlib"
    assert refused.value.hint == "pip install 'lanai[plots]'"


def test_the_same_replays_give_the_same_pictures(tmp_path: Path) -> None:
    replays = [drawn("easy", (0, 0, 5), (0, 5, 5))]
    for into in ("one", "two"):
        draw(str(tmp_path / into), "log", replays)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    ("last", "unit", "stretch"),
    [(5, "seconds", "1 s"), (7200, "hours", "1 min"), (86_400 * 30, "days", "6 h")],
)
def test_time_is_in_a_unit_that_fits_the_trace(tmp_path: Path, last: int, unit: str, stretch: str) -> None:
    draw(str(tmp_path), "log", [drawn("easy", (0, 0, 5), (last, last, 1))])
    for name in ("utilisation", "queue"):
        text = (tmp_path / f"{name}.svg").read_text()
        assert f"{unit} since the first submission" in text
        assert f"(mean of each {stretch})" in text


def test_many_replays_and_jobs_of_no_time_can_be_drawn(tmp_path: Path) -> None:
    """Nine curves are more than there are colours; a queue of thousands stands beside none; `$` is no formula."""
    replays = [drawn(f"depth:{n}", (0, 0, 0)) for n in range(8)]
    replays.append(drawn("a $b$", *[(0, 10 + n, 1) for n in range(5000)]))
    draw(str(tmp_path), "log $x_$", replays)
    text = (tmp_path / "queue.svg").read_text()
    assert "log $x_$" in text and ">1,000<" in text and ">a $b$<" in text


def test_the_legend_of_many_long_names_stays_within_the_picture(tmp_path: Path) -> None:
    """Four columns of them were wider than the picture, which cut off the first and the last."""
    names = [f"/etc/site/policy-{n}.toml, load*=1.2,procs-=10" for n in range(24)]
    draw(str(tmp_path), "log", [drawn(name, (0, 0, 5)) for name in names])
    text = (tmp_path / "waits.svg").read_text()
    places = re.findall(r'x="([-.0-9]+)" y="([-.0-9]+)"[^>]*>/etc/site', text)
    width, height = map(float, re.findall(r'viewBox="0 0 ([.0-9]+) ([.0-9]+)"', text)[0])
    assert len(places) == len(names)
    assert all(0 < float(x) < width - 250 and 0 < float(y) < height for x, y in places)
    assert min(float(y) for _, y in places) > height / 3


def test_where_it_cannot_be_written_the_picture_of_before_stays(tmp_path: Path) -> None:
    (tmp_path / "utilisation.png").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*utilisation\.png"):
        draw(str(tmp_path), "log", [drawn("easy", (0, 0, 5))])
    assert [path.name for path in tmp_path.iterdir()] == ["utilisation.png"]
