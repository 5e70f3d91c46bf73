"""`lanai run -- COMMAND` in a pipe while hub, API process, agent or starter are killed: each byte once, and the end.

What the command has got is read from a file that it writes, so that each kill comes at a moment that the test knows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site, is_alive, starters

LANAI = [sys.executable, "-m", "lanai"]
WITHIN_S = 60.0
LEASE_S = "6"


class Run:
    """`lanai run -- WORDS`, fed by the test."""

    def __init__(self, site: Site, *words: str) -> None:
        self.site = site
        self._child = subprocess.Popen(
            [*LANAI, "run", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=site.work,
            env=site.environ(),
        )

    def feed(self, *lines: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self._child.stdin.flush()

    def end(self) -> tuple[int, bytes, str]:
        """Close its input; its exit code, and what it wrote."""
        out, err = self._child.communicate(timeout=WITHIN_S)
        return self._child.returncode, out, err.decode()

    def close(self) -> None:
        self._child.kill()
        self._child.communicate()


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Site]:
    """Nothing is started but what `lanai run` starts by itself."""
    made = Site(tmp_path / "site")
    yield made
    made.close()


@pytest.fixture
def site(bare: Site) -> Site:
    bare.start_hub("--lease-s", LEASE_S)
    bare.start_agent("n1")
    return bare


@contextmanager
def running(site: Site, *words: str) -> Iterator[Run]:
    run = Run(site, *words)
    try:
        yield run
    finally:
        run.close()


def text(*lines: object) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


# -- who is killed


def kill_hub(site: Site) -> Callable[[], object]:
    """Kills the hub, and with it its API process; returns how to bring it back."""
    assert site.hub is not None
    site.hub.kill()
    return site.start_hub


def kill_api(site: Site) -> Callable[[], object]:
    """The hub brings it back."""
    pid = json.loads(site.lanai("hub", "status", "--format", "json").stdout)["api_pid"]
    os.kill(pid, signal.SIGKILL)
    return lambda: None


def kill_agent(site: Site) -> Callable[[], object]:
    """Its starter and the command live on."""
    site.agents["n1"].kill()
    return lambda: site.start_agent("n1")


def kill_both(site: Site) -> Callable[[], object]:
    back = kill_hub(site), kill_agent(site)
    return lambda: [one() for one in back]


VICTIMS = [kill_hub, kill_api, kill_agent, kill_both]


@pytest.mark.parametrize("kill", VICTIMS)
def test_what_is_fed_before_during_and_after_a_death_arrives_once_and_ends(
    site: Site, kill: Callable[[Site], Callable[[], object]]
) -> None:
    with running(site, "--", "tee", "got") as run:
        run.feed(*range(50))
        site.await_lines("got", 50)
        bring_back = kill(site)
        run.feed(*range(50, 100))
        bring_back()
        site.await_lines("got", 100)
        run.feed(*range(100, 150))
        code, out, err = run.end()
    assert (code, out) == (0, text(*range(150))), err
    assert (site.work / "got").read_bytes() == out


@pytest.mark.parametrize("kill", VICTIMS)
def test_an_input_that_ended_while_somebody_was_dead_ends_for_the_command(
    site: Site, kill: Callable[[Site], Callable[[], object]]
) -> None:
    """The last bytes and the end of file fall into the gap."""
    with running(site, "--", "tee", "got") as run:
        run.feed("first")
        site.await_lines("got", 1)
        bring_back = kill(site)
        ended: list[tuple[int, bytes, str]] = []
        run.feed("last")
        waits = threading.Thread(target=lambda: ended.append(run.end()))
        waits.start()
        bring_back()
        waits.join(WITHIN_S)
    assert [one[:2] for one in ended] == [(0, text("first", "last"))]


@pytest.mark.parametrize("kill", [kill_hub, kill_agent])
def test_a_stream_under_way_loses_and_repeats_nothing(site: Site, kill: Callable[[Site], Callable[[], object]]) -> None:
    """Pieces are on their way everywhere when it happens, three times."""
    data = os.urandom(24 << 20)
    (site.work / "data").write_bytes(data)
    feeding = f"cat data | {sys.executable} -m lanai run -- sh -c 'cat > got'"
    shell = subprocess.Popen(["sh", "-c", feeding], cwd=site.work, env=site.environ(), stderr=subprocess.PIPE)
    got = site.work / "got"
    try:
        for arrived in (1 << 20, 6 << 20, 12 << 20):
            eventually(lambda size=arrived: got.exists() and got.stat().st_size >= size, WITHIN_S)
            kill(site)()
        _, err = shell.communicate(timeout=WITHIN_S)
    finally:
        shell.kill()
        shell.communicate()
    assert shell.returncode == 0, err
    assert got.read_bytes() == data


def test_a_private_hub_killed_under_a_pipe_is_brought_back_and_nothing_is_lost(bare: Site) -> None:
    with running(bare, "--", "tee", "got") as run:
        run.feed(*range(92))
        bare.await_lines("got", 92)
        os.kill(json.loads((bare.home / "private" / "hub.pid").read_bytes())["pid"], signal.SIGKILL)
        run.feed(*range(92, 200))
        code, out, err = run.end()
    assert (code, out) == (0, text(*range(200)))
    assert "the private hub was killed, and is started again" in err


# -- where the attempt is lost


def lose_starter(site: Site) -> None:
    (pid,) = starters(site.home)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_alive(pid))


def test_a_short_input_is_given_to_the_next_attempt_from_its_beginning(site: Site) -> None:
    """Also where the first attempt had got all of it, and its end: then nothing would be left to send."""
    with running(site, "--", "sh", "-c", "cat > got.$LANAI_ATTEMPT; [ $LANAI_ATTEMPT = 2 ] || sleep 60") as run:
        run.feed("one", "two")
        site.await_lines("got.1", 2)
        lose_starter(site)
        site.await_lines("got.2", 2)
        run.feed("three")
        code, _, err = run.end()
    assert (code, site.lines_of("got.2")) == (0, ["one", "two", "three"]), err


def test_a_file_is_given_to_the_next_attempt_whatever_its_length(site: Site) -> None:
    data = os.urandom(4 << 20)
    (site.work / "data").write_bytes(b"skipped\n" + data)
    script = "cat > got.$LANAI_ATTEMPT; echo > read.$LANAI_ATTEMPT; [ $LANAI_ATTEMPT = 2 ] || sleep 60"
    with open(site.work / "data", "rb") as file:
        os.lseek(file.fileno(), len(b"skipped\n"), os.SEEK_SET)
        run = subprocess.Popen([*LANAI, "run", "--", "sh", "-c", script], stdin=file, cwd=site.work, env=site.environ())
    try:
        site.await_lines("read.1", 1)
        lose_starter(site)
        assert run.wait(WITHIN_S) == 0
    finally:
        run.kill()
        run.wait()
    assert (site.work / "got.2").read_bytes() == data


def test_a_long_input_that_a_second_attempt_would_need_again_fails_the_job_and_says_why(site: Site) -> None:
    with running(site, "--", "sh", "-c", "tee got >&2") as run:
        run.feed("x" * (3 << 20))
        site.await_lines("got", 1)
        lose_starter(site)
        code, _, err = run.end()
    assert code != 0  # 143 where it had begun already
    assert "input of job 1/1: attempt 2 needs the input from its beginning, which is not kept" in err
    assert [job["state"] for job in site.jobs(1)] == ["cancelled"]


def test_a_node_that_is_lost_for_good_is_told_likewise(site: Site) -> None:
    """The second attempt begins at another node once the lease of the first has run out."""
    with running(site, "--", "sh", "-c", "tee got >&2") as run:
        run.feed("x" * (3 << 20))
        site.await_lines("got", 1)
        site.agents["n1"].kill()
        site.start_agent("n2")
        code, _, err = run.end()
    assert code != 0  # 143 where it had begun already
    assert "attempt 2 needs the input from its beginning, which is not kept" in err


def test_a_command_that_reads_no_more_is_no_trouble_after_a_death_either(site: Site) -> None:
    with running(site, "--", "sh", "-c", "head -n 1 > got; exec <&-; while [ ! -e go ]; do sleep 0.05; done") as run:
        run.feed("one")
        site.await_lines("got", 1)
        kill_hub(site)()
        run.feed(*range(1000))
        (site.work / "go").touch()
        code, out, err = run.end()
    assert (code, out) == (0, b"")
    assert "input" not in err
