"""Host files of attempts over several nodes: what is in them, who can read them, and when they are gone."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lanai.agent.starter_hosts import hosts_of
from services.starter_bench import Bench

HOSTS = {"hosts": {"names": ["n1", "n2", "n3"], "tasks": 2}}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def left(bench: Bench) -> list[str]:
    folder = bench.directory / "hosts"
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_the_command_finds_its_nodes_and_nothing_is_left(bench: Bench) -> None:
    bench.prepare(umask=0)
    script = 'echo "$LANAI_NODES $LANAI_NNODES"; cat $LANAI_HOSTFILE $LANAI_MPI_HOSTFILE; stat -c %a $LANAI_HOSTFILE'
    bench.run((f"{script} $(dirname $LANAI_HOSTFILE)", HOSTS))
    (end,) = bench.ends()
    hosts = ["n1", "n1", "n2", "n2", "n3", "n3"]
    expected = ["n1 n2 n3 3", *hosts, "n1 slots=2", "n2 slots=2", "n3 slots=2", "600", "700"]
    assert bench.output(end).decode().split("\n") == [*expected, ""]
    assert left(bench) == []


def test_a_command_with_an_umask_that_denies_everything_reads_them_all_the_same(bench: Bench) -> None:
    bench.prepare(umask=0o777)
    bench.run(("cat $LANAI_HOSTFILE >/dev/null && exit 3", HOSTS))
    assert bench.ends()[0].exit_code == 3
    assert left(bench) == []


def test_one_that_cannot_begin_leaves_nothing(bench: Bench) -> None:
    bench.prepare()
    bench.run((["no-such-program"], HOSTS))
    assert bench.ends()[0].outcome == "notfound"
    assert left(bench) == []


def test_one_that_is_ended_leaves_nothing(bench: Bench) -> None:
    bench.prepare()
    bench.run((["sleep", "100"], HOSTS))
    bench.until(bench.begun)
    assert left(bench) == ["1.1"]
    bench.say(bench.link.kill(1, 1, grace_us=0))
    assert bench.ends()[0].outcome == "cancelled"
    assert left(bench) == []


def test_what_a_killed_starter_has_left_is_removed_by_the_next(bench: Bench, tmp_path: Path) -> None:
    bench.prepare()
    bench.run((["sleep", "100"], HOSTS))
    bench.until(bench.begun)
    os.kill(bench.pid, signal.SIGKILL)
    os.waitpid(bench.pid, 0)
    bench.is_reaped = True
    (tmp_path / "again").mkdir()
    again = Bench(tmp_path / "again", place=bench.place)
    assert left(bench) == []
    again.close()


def test_more_names_than_a_variable_can_hold_are_in_the_file_only(bench: Bench) -> None:
    names = [f"node-{number:030}" for number in range(4096)]
    bench.prepare()
    bench.run(("echo ${LANAI_NODES-none} $(wc -l <$LANAI_HOSTFILE)", {"hosts": {"names": names, "tasks": 1}}))
    assert bench.output(bench.ends()[0]) == b"none 4096\n"


def test_a_disk_without_room_is_the_nodes_fault(bench: Bench) -> None:
    (bench.directory / "hosts").write_text("in the way")
    bench.prepare()
    bench.run((["true"], HOSTS))
    end = bench.ends()[0]
    assert end.outcome == "node" and "host file" in str(end.reason)


@pytest.mark.parametrize(
    "extra", [{"names": [], "tasks": 1}, {"names": ["a"], "tasks": 0}, {"names": ["a\nb"], "tasks": 1}, {"tasks": 1}]
)
def test_hosts_that_cannot_be_are_refused(extra: dict[str, Any]) -> None:
    with pytest.raises((ValueError, LookupError)):
        hosts_of({"hosts": extra})
    assert hosts_of({}) is None
