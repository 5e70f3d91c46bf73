import csv
import io
import json
import sys
import time
from typing import Any

import click
import pytest

from lanai.cli.asking import ROOMS
from lanai.cli.filters import filter_test
from lanai.cli.listings import BATCHES, JOBS, NODES
from lanai.cli.tables import Listing, View, for_people, print_rows, pushed_limit, view_of
from lanai.cli.terminal import write_bytes
from lanai.model.batch import Counts
from lanai.model.job import JobState, Outcome
from lanai.model.node import NodeState

THINGS = Listing(
    kind="things",
    key="id",
    columns=("id", "state", "wall_s", "size_bytes", "command"),
    shown=("id", "state", "wall_s", "command"),
)
ROWS = [
    {"id": "1/1", "state": "done", "wall_s": 0.5, "size_bytes": 2048, "command": "true", "extra": "not ours"},
    {"id": "1/2", "state": "failed", "wall_s": 90.0, "size_bytes": None, "command": "echo 'a\tb'"},
    {"id": "1/10", "state": "failed", "wall_s": None, "size_bytes": 1 << 30, "command": "caf\udce9"},
]


def printed(capsys: pytest.CaptureFixture[str], **view: object) -> str:
    print_rows(THINGS, iter(ROWS), View(**view))  # type: ignore[arg-type]
    return capsys.readouterr().out


def ids(capsys: pytest.CaptureFixture[str], *filters: str) -> list[str]:
    return printed(capsys, format="quiet", filters=filters).split()


def test_a_table_has_aligned_columns_and_units_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys).splitlines()
    assert lines == [
        "ID    STATE   WALL_S  COMMAND",
        "1/1   done     500ms  true",
        "1/2   failed   1m30s  echo 'a\\tb'",
        "1/10  failed       -  caf\\xe9",
    ]


def test_json_is_versioned_and_holds_exactly_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    answer = json.loads(printed(capsys, format="json"))
    assert answer["version"] == 1
    assert [list(row) for row in answer["things"]] == [list(THINGS.columns)] * 3
    assert answer["things"][2]["command"] == "caf\udce9"


def test_a_key_of_several_names_is_as_in_csv(capsys: pytest.CaptureFixture[str]) -> None:
    """`lanai free --format quiet` printed Python's lists."""
    print_rows(ROOMS, [{"names": ["n1", "n2"]}], View(format="quiet"))
    assert capsys.readouterr().out == "n1,n2\n"


def test_json_of_no_rows_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, format="json", limit=0)) == {"version": 1, "things": []}


def test_ndjson_comes_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is out before the next one is asked for, so that a million of them need no memory."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    lengths = []

    def rows() -> object:
        for row in ROWS:
            lengths.append(out.getvalue().count("\n"))
            yield row

    print_rows(THINGS, rows(), View(format="ndjson"))  # type: ignore[arg-type]
    assert lengths == [0, 1, 2]
    assert [json.loads(line)["id"] for line in out.getvalue().splitlines()] == ["1/1", "1/2", "1/10"]


def test_csv_quotes_and_leaves_unknown_values_empty(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.reader(io.StringIO(printed(capsys, format="csv", filters=("wall_s!=",)))))
    assert rows[0] == list(THINGS.columns)
    assert rows[2] == ["1/2", "failed", "90.0", "", "echo 'a\tb'"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["state=failed"], ["1/2", "1/10"]),
        (["state!=failed"], ["1/1"]),
        (["wall_s>1m"], ["1/2"]),
        (["wall_s<=0.5"], ["1/1"]),
        (["wall_s="], ["1/10"]),
        (["wall_s!="], ["1/1", "1/2"]),
        (["wall_s!=90"], ["1/1", "1/10"]),
        (["size_bytes>=1G"], ["1/10"]),
        (["size_bytes=2k"], ["1/1"]),
        (["command~^t.*e$"], ["1/1"]),
        (["state=failed", "wall_s>1"], ["1/2"]),
        (["command=echo 'a\tb'"], ["1/2"]),
    ],
)
def test_filters(capsys: pytest.CaptureFixture[str], filters: list[str], expected: list[str]) -> None:
    assert ids(capsys, *filters) == expected


@pytest.mark.parametrize("text", ["state", "=x", "state failed", "stat=failed", "command~["])
def test_a_filter_that_cannot_be_understood_is_refused(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        ids(capsys, text)
    if text.startswith("stat="):
        assert "did you mean state?" in caught.value.message


@pytest.mark.parametrize(
    ("listing", "text", "accepted"),
    [
        (JOBS, "exit_code=x", "a number"),
        (JOBS, "exit_code<nan", "a number"),
        (JOBS, "wall_s>abc", "a duration such as"),
        (JOBS, "wall_s>", "a duration such as"),
        (JOBS, "memory_peak_bytes=much", "a size such as"),
        (JOBS, "started_at>10m", "a time such as 2026-11-21"),
        (JOBS, "state=bogus", "held, blocked, queued"),
        (JOBS, "outcome!=bad", "ok, exit, signal"),
        (NODES, "is_drained=yes", "true, false"),
        (NODES, "state=gone", "up, silent, away"),
        (BATCHES, "state=done", "open, held, paused, ended"),
    ],
)
def test_what_a_column_never_holds_is_refused(listing: Listing, text: str, accepted: str) -> None:
    """Such a filter gave an empty list and exit code 0, or, for times, all of it."""
    with pytest.raises(click.UsageError) as caught:
        view_of(listing, "table", filters=(text,))
    assert text in caught.value.message
    assert f"accepted is {accepted}" in caught.value.message


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("started_at>2026-11-21", True),
        ("started_at>2026-11-21T20:02:03Z", True),
        ("started_at>=2026-11-21 20:02:04", False),
        ("started_at<2026-11-21T20:02:02-01:00", True),
        ("exit_code>=2", True),
        ("exit_code<10", True),
        ("signal=", True),
        ("signal!=9", True),
        ("signal<9", False),
        ("state=FAILED", True),
    ],
)
def test_filters_compare_by_what_a_column_holds(monkeypatch: pytest.MonkeyPatch, text: str, holds: bool) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        row = {"state": "failed", "exit_code": 2, "signal": None, "started_at": "2026-11-21T20:02:03.000004Z"}
        assert filter_test(JOBS, text)(row) is holds
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_words_of_columns_are_those_of_the_model() -> None:
    assert JOBS.words == {"state": tuple(JobState), "outcome": tuple(Outcome)}
    assert NODES.words == {"state": tuple(state for state in NodeState if state != NodeState.REMOVED)}


def test_the_table_of_batches_shows_every_count() -> None:
    """Without those that are locked, its rows did not add up to the jobs."""
    assert set(Counts.__struct_fields__) <= set(BATCHES.shown)


def test_columns_and_filters_name_columns_that_there_are() -> None:
    for listing in (JOBS, NODES, BATCHES):
        assert listing.numbers | set(listing.words) <= set(listing.columns)


def test_a_limit_beyond_all_numbers_is_no_limit(capsys: pytest.CaptureFixture[str]) -> None:
    """It was a mistake of ours, exit code 70."""
    assert len(printed(capsys, format="quiet", limit=10**20).split()) == 3


def test_columns_are_taken_in_the_order_given(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, format="csv", columns=("state", "id"), limit=1)
    assert out == "state,id\ndone,1/1\n"


def test_an_unknown_column_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.UsageError, match="did you mean command"):
        printed(capsys, columns=("comand",))


def test_the_limit_counts_after_the_filter(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, format="quiet", filters=("state=failed",), limit=1) == "1/2\n"
    assert pushed_limit(View(limit=5)) == 5
    assert pushed_limit(View(limit=5, filters=("state=failed",))) == 0
    assert pushed_limit(View()) == 0


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("x", None, "-"),
        ("x", True, "true"),
        ("x_bytes", 1536, "1.5 KiB"),
        ("x_s", 61.0, "1m1s"),
        ("labels", {"a": "b", "c": "d"}, "a=b,c=d"),
        ("x", "\x1b[31mred", "\\x1b[31mred"),
    ],
)
def test_values_for_people(name: str, value: object, expected: str) -> None:
    assert for_people(name, value) == expected


def test_people_read_the_time_of_the_clock_on_their_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    try:
        assert for_people("ended_at", "2026-11-21T20:02:03.000004Z") == "2026-11-22 01:32:03"
    finally:
        monkeypatch.undo()
        time.tzset()


class PartlyTaking(io.RawIOBase):
    """Takes seven bytes at a time, as a pipe may."""

    def __init__(self) -> None:
        self.taken = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += bytes(data[:7])
        return min(7, len(data))


def test_bytes_are_written_whole_where_a_stream_takes_only_a_part() -> None:
    taking = PartlyTaking()
    stream = io.TextIOWrapper(taking, write_through=True)  # type: ignore[type-var]
    write_bytes(b"0123456789" * 5, stream)
    assert taking.taken == b"0123456789" * 5
