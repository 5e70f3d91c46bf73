"""Copies of the hub that answer long questions: real children of this process, which leave nothing behind."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from lanai.hub.copies import LIMIT_S, NAME, Copies, Outcome
from lanai.model.errors import InternalError, Refusal

WITHIN_S = 20.0
PIPES_BYTES = 64 << 10
"""What a pipe holds unread."""


class Asker:
    """Asks, on a loop of its own."""

    def __init__(self, most: int, limit_s: float) -> None:
        self.copies = Copies(asyncio.get_running_loop(), most=most, limit_s=limit_s)

    def ask(self, work: Callable[[], bytes], asker: str = "ann") -> asyncio.Future[Outcome]:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.copies.ask(asker, work, answer.set_result)
        return answer

    async def answer(self, work: Callable[[], bytes]) -> Outcome:
        return await asyncio.wait_for(self.ask(work), WITHIN_S)


def with_asker(scene: Callable[[Asker], Awaitable[None]], *, most: int = 2, limit_s: float = LIMIT_S) -> None:
    """Run a scene, after which there is no child, no zombie and no descriptor that was not there before."""

    async def run() -> None:
        before = descriptors()
        asker = Asker(most, limit_s)
        try:
            await asyncio.wait_for(scene(asker), WITHIN_S)
        finally:
            asker.copies.close()
            asker.copies.close()
        assert descriptors() == before
        assert children() == []

    asyncio.run(run())


def descriptors() -> set[str]:
    return {f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}" for fd in map(int, os.listdir("/proc/self/fd")) if is_open(fd)}


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


_others: set[int] = set()
"""Children of this process that are there for other tests."""


@pytest.fixture(autouse=True)
def others() -> Iterator[None]:
    _others.update(children())
    yield
    _others.clear()


def children() -> list[int]:
    """Those of the test that runs."""
    pids = map(int, Path("/proc/thread-self/children").read_text().split())
    return [pid for pid in pids if pid not in _others]


class Gate:
    """What a child waits for: it says that it has begun, and goes on when it is let."""

    def __init__(self, place: Path) -> None:
        self.begun, self.go = place / "begun", place / "go"
        os.mkfifo(self.begun)
        os.mkfifo(self.go)

    def pass_through(self) -> bytes:
        self.begun.write_bytes(b"%d" % os.getpid())
        return self.go.read_bytes()

    async def reached(self) -> int:
        """The process that is at the gate."""
        return int(await asyncio.to_thread(self.begun.read_bytes))

    async def open(self, word: bytes) -> None:
        await asyncio.to_thread(self.go.write_bytes, word)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def stand_still_until_ended(pid: int) -> int:
    """Hold the loop until a child has ended, and leave it to be reaped; returns the signal that ended it."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status


def wait_for_ever() -> bytes:
    while True:
        signal.pause()


def stop_oneself() -> bytes:
    os.kill(os.getpid(), signal.SIGSTOP)
    return b"went on"


def test_a_child_works_on_a_copy() -> None:
    known = [1, 2, 3]

    def work() -> bytes:
        known.append(os.getpid())
        return b"%d" % len(known)

    async def scene(asker: Asker) -> None:
        assert await asker.answer(work) == b"4"
        assert known == [1, 2, 3]

    with_asker(scene)


def test_an_answer_that_no_pipe_holds_comes_whole() -> None:
    async def scene(asker: Asker) -> None:
        assert await asker.answer(lambda: b"0123456789" * PIPES_BYTES) == b"0123456789" * PIPES_BYTES
        assert await asker.answer(bytes) == b""

    with_asker(scene)


def test_a_child_has_nothing_of_its_parents_but_the_pipe(tmp_path: Path) -> None:
    """A lock, a door or a connection in it would outlive the hub."""

    def work() -> bytes:
        return " ".join(sorted(entry.partition(":")[0] for entry in descriptors())).encode()

    async def scene(asker: Asker) -> None:
        with (tmp_path / "lock").open("w"):
            assert (await asker.answer(work)).partition(b" ")[2] == b"pipe"

    with_asker(scene)


def test_a_child_has_nothing_either_that_lies_above_the_limit_of_descriptors(tmp_path: Path) -> None:
    """As where that was lowered after hundreds of agents had come."""
    high = 500

    def work() -> bytes:
        return b"%d" % is_open(high)

    async def scene(asker: Asker) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with (tmp_path / "lock").open("w") as lock:
            assert fcntl.fcntl(lock, fcntl.F_DUPFD_CLOEXEC, high) == high
            resource.setrlimit(resource.RLIMIT_NOFILE, (high - 1, hard))
            try:
                assert await asker.answer(work) == b"0"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                os.close(high)

    with_asker(scene)


def test_a_child_is_told_from_its_parent_by_its_name() -> None:
    async def scene(asker: Asker) -> None:
        assert await asker.answer(Path("/proc/self/comm").read_bytes) == f"{NAME}\n".encode()

    with_asker(scene)
    assert Path("/proc/self/comm").read_text() != f"{NAME}\n"


def test_the_loop_goes_on_meanwhile_and_no_more_than_a_few_are_at_work(tmp_path: Path) -> None:
    gates = []
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        gates.append(Gate(tmp_path / name))

    async def scene(asker: Asker) -> None:
        answers = [asker.ask(gate.pass_through) for gate in gates]
        pids = [await gates[0].reached(), await gates[1].reached()]
        assert sorted(children()) == sorted(pids)
        assert not any(answer.done() for answer in answers)
        await gates[1].open(b"the second")
        assert await answers[1] == b"the second"
        assert await gates[2].reached() not in pids
        await gates[2].open(b"the third")
        await gates[0].open(b"the first")
        assert [await answer for answer in answers] == [b"the first", b"the second", b"the third"]

    with_asker(scene, most=2)


def test_somebody_who_asks_much_does_not_keep_others_waiting() -> None:
    """Askers take turns: one that comes late waits for one question of each of the others."""
    answered: list[str] = []

    async def scene(asker: Asker) -> None:
        asked = [("ann", "1"), ("ann", "2"), ("ann", "3"), ("bob", "4"), ("cyd", "5"), ("bob", "6")]
        answers = [asker.ask(number.encode, by) for by, number in asked]
        for (by, number), answer in zip(asked, answers, strict=True):
            answer.add_done_callback(lambda _, name=f"{by} {number}": answered.append(name))
        await asyncio.gather(*answers)
        assert answered == ["ann 1", "bob 4", "cyd 5", "ann 2", "bob 6", "ann 3"]

    with_asker(scene, most=1)


def test_an_error_of_ours_in_a_child_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> bytes:
        raise KeyError("a mistake of ours")

    async def scene(asker: Asker) -> None:
        outcome = await asker.answer(work)
        assert isinstance(outcome, InternalError)
        assert outcome.message == "KeyError: 'a mistake of ours'"
        assert await asker.answer(lambda: b"goes on") == b"goes on"

    with_asker(scene)
    (said,) = caplog.messages
    assert "Traceback" in said
    assert "in work" in said


def test_a_child_that_is_killed_is_an_error_and_no_more(gate: Gate) -> None:
    async def scene(asker: Asker) -> None:
        answer = asker.ask(gate.pass_through)
        os.kill(await gate.reached(), signal.SIGKILL)
        outcome = await answer
        assert isinstance(outcome, InternalError)
        assert (outcome.code, outcome.message) == ("answer_lost", "the process that was to answer ended with signal 9")

    with_asker(scene)


def test_a_child_that_is_asked_to_end_does_not_wake_its_parent(gate: Gate) -> None:
    """Both have the loop's handlers and the descriptor that wakes the loop until the child puts them away."""

    async def scene(asker: Asker) -> None:
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
        answer = asker.ask(gate.pass_through)
        os.kill(await gate.reached(), signal.SIGTERM)
        outcome = await answer
        assert isinstance(outcome, InternalError)
        assert "signal 15" in outcome.message
        assert not asked.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await asked.wait()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    with_asker(scene)


def test_what_is_typed_at_a_terminal_is_for_the_parent_alone() -> None:
    """Ctrl-C goes to the whole group of processes. A hub ends its copies itself, and does not take it for a fault."""

    def work() -> bytes:
        os.kill(os.getpid(), signal.SIGINT)
        return b"went on"

    async def scene(asker: Asker) -> None:
        assert await asker.answer(work) == b"went on"

    with_asker(scene)


@pytest.mark.parametrize("hang", [wait_for_ever, stop_oneself])
def test_a_child_that_hangs_is_killed(hang: Callable[[], bytes]) -> None:
    """Also one that does not get to its own alarm."""

    async def scene(asker: Asker) -> None:
        outcome = await asker.answer(hang)
        assert isinstance(outcome, Refusal)
        assert (outcome.code, outcome.message) == ("answer_too_late", "the hub had no answer within 0.2 s")

    with_asker(scene, limit_s=0.2)


def test_a_question_that_waits_too_long_for_its_turn_is_refused() -> None:
    async def scene(asker: Asker) -> None:
        outcomes = await asyncio.gather(asker.answer(wait_for_ever), asker.answer(lambda: b"too late"))
        assert [type(outcome) for outcome in outcomes] == [Refusal, Refusal]

    with_asker(scene, most=1, limit_s=0.2)


def test_a_child_whose_parent_does_not_come_round_to_it_ends_by_itself() -> None:
    """As where the hub is gone by kill -9: nobody else would end one that hangs."""

    async def scene(asker: Asker) -> None:
        answer = asker.ask(wait_for_ever)
        await asyncio.sleep(0)
        (pid,) = children()
        assert stand_still_until_ended(pid) == signal.SIGALRM
        assert isinstance(await answer, Refusal)

    with_asker(scene, limit_s=0.2)


PARENT = """
import asyncio, sys
from pathlib import Path
from lanai.hub.copies import Copies

def work():
    Path(sys.argv[1]).write_text(Path("/proc/self/stat").read_text().split()[0])
    return Path(sys.argv[2]).read_bytes()

async def live():
    Copies(asyncio.get_running_loop(), most=1).ask("ann", work, print)
    await asyncio.Event().wait()

asyncio.run(live())
"""


def test_a_child_ends_with_a_parent_that_is_killed(gate: Gate) -> None:
    """Long before its time is over: it would work for nobody, and take what the next hub needs."""
    with subprocess.Popen([sys.executable, "-c", PARENT, gate.begun, gate.go]) as parent:
        child = os.pidfd_open(int(gate.begun.read_text()))
        parent.kill()
    ended = select.poll()
    ended.register(child, select.POLLIN)
    assert ended.poll(WITHIN_S * 1000)
    os.close(child)


def test_the_end_leaves_nobody_behind(gate: Gate) -> None:
    async def scene(asker: Asker) -> None:
        answers = [asker.ask(work) for work in (gate.pass_through, wait_for_ever, bytes)]
        await gate.reached()
        asker.copies.close()
        answers.append(asker.ask(bytes))  # what was read from a connection before that was closed
        for _ in range(3):
            await asyncio.sleep(0)
        assert children() == []
        assert not any(answer.done() for answer in answers)

    with_asker(scene, most=1)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_process_left() -> Iterator[None]:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        yield


@pytest.mark.parametrize("shortage", [no_descriptor_left, no_process_left])
def test_where_there_can_be_no_child_the_loop_answers(
    shortage: Callable[[], AbstractContextManager[None]], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(asker: Asker) -> None:
        with shortage():
            assert await asker.answer(lambda: b"%d" % os.getpid()) == b"%d" % os.getpid()
        assert await asker.answer(lambda: b"%d" % os.getpid()) != b"%d" % os.getpid()

    with_asker(scene)
    (said,) = caplog.messages
    assert said.startswith("a long question is answered on the loop, there can be no child: ")


def test_threads_that_log_and_allocate_do_not_hang_a_child() -> None:
    """Whatever another thread was in the middle of, the child needs nothing of it."""
    is_over = threading.Event()
    log = logging.getLogger("lanai.busy")

    def busy() -> None:
        while not is_over.is_set():
            log.info("busy with %d", len(bytearray(1 << 20)))

    threads = [threading.Thread(target=busy) for _ in range(2)]

    async def scene(asker: Asker) -> None:
        for _ in range(50):
            assert await asker.answer(lambda: b"%d" % len(bytearray(1 << 20))) == b"1048576"

    for thread in threads:
        thread.start()
    try:
        with_asker(scene)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
