"""Questions that take long are answered by copies of the hub: a forked child has the core exactly as it is.

It works out one answer with the functions that the loop would call, writes it to a pipe and is gone; whatever it does
to its core is nobody else's. The loop is held by the fork alone, and by a little copying while the child lives.

The hub has threads (the store's, and one that reads ended batches), so a child may not rely on anything that one of
them could have been in the middle of. It closes all that it inherited before anything else: a lock, a listening socket
or a connection that it held would outlive the hub's own. Then it computes, allocates, writes to its pipe and leaves by
`os._exit`: no log, no store, no loop, no import. Python and the C library make their own locks usable in a child, that
of the allocator included (docs/decisions/0016-copies.md).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from lanai.model.errors import InternalError, LanaiError, Refusal

LIMIT_S: Final = 45.0
"""A question is answered, or refused, within that: before the API process gives it up."""
PIECE_BYTES: Final = 1 << 20
FAILED: Final = 1
"""The exit code of a child that has written a traceback instead of an answer."""
NAME: Final = "lanai-copy"
"""What a child is called in `ps -e`, in `top`, and by the kernel where that ends it."""

Outcome: TypeAlias = bytes | LanaiError
"""What a question came to: what its work returned, or why there is no answer."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Question:
    asker: str
    work: Callable[[], bytes]
    then: Callable[[Outcome], None]
    due_s: float
    expiry: asyncio.TimerHandle = field(init=False)
    """What happens when it is due: it is refused while it waits, afterwards its child is killed."""


@dataclass(slots=True)
class _Child:
    pid: int
    pipe: int
    question: _Question
    written: bytearray = field(default_factory=bytearray)


class Copies:
    """Has questions answered by children, a few at once. Askers take turns, each with his questions in order.

    Args:
        loop: its thread is the only one that calls.
        most: children at once. Each may come to need as much memory as the hub has.
        limit_s: for each question, its waiting for a child included.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, most: int, limit_s: float = LIMIT_S) -> None:
        self._loop = loop
        self._most = most
        self._limit_s = limit_s
        self._waiting: dict[str, deque[_Question]] = {}
        """By asker, the one first whose turn is next. None is empty."""
        self._children: dict[int, _Child] = {}
        """By process id."""
        self._next: asyncio.Handle | None = None
        self._is_closed = False

    def ask(self, asker: str, work: Callable[[], bytes], then: Callable[[Outcome], None]) -> None:
        """Have `work` done in a child, and `then` called on the loop with what came of it.

        An error of `work` is logged with its traceback and comes as an InternalError; a child that takes too long is
        killed, and a Refusal comes. Where no child can be made, `work` is done on the loop, where its errors are the
        loop's. After `close` nothing is done.
        """
        if self._is_closed:
            return
        question = _Question(asker, work, then, self._loop.time() + self._limit_s)
        question.expiry = self._loop.call_at(question.due_s, self._refuse, question)
        self._waiting.setdefault(asker, deque()).append(question)
        self._go_on()

    def close(self) -> None:
        """End all children, and leave what they were asked unanswered. A repeat is harmless."""
        self._is_closed = True
        for question in chain.from_iterable(self._waiting.values()):
            question.expiry.cancel()
        self._waiting.clear()
        if self._next is not None:
            self._next.cancel()
        for child in list(self._children.values()):
            os.kill(child.pid, signal.SIGKILL)
            self._bury(child)

    # -- within

    def _go_on(self) -> None:
        """Begin with one of those that wait. The others have their turn after whatever else waits for the loop."""
        if self._next is None and self._waiting and len(self._children) < self._most:
            self._next = self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._next = None
        if not self._waiting:  # what was to begin was refused meanwhile
            return
        question = self._waiting[next(iter(self._waiting))][0]
        left_s = question.due_s - self._loop.time()
        if left_s <= 0:
            self._refuse(question)
        else:
            self._take_out(question)
            self._have_answered(question, left_s)
        self._go_on()

    def _have_answered(self, question: _Question, left_s: float) -> None:
        try:
            pid, pipe = _forked(question.work, left_s)
        except OSError as error:
            _log.warning("a long question is answered on the loop, there can be no child: %s", error.strerror)
            question.then(question.work())
        else:
            question.expiry = self._loop.call_at(question.due_s, os.kill, pid, signal.SIGKILL)
            child = self._children[pid] = _Child(pid, pipe, question)
            self._loop.add_reader(pipe, self._read, child)

    def _take_out(self, question: _Question) -> None:
        """Have it wait no more. The turn of its asker is the last then."""
        question.expiry.cancel()
        questions = self._waiting.pop(question.asker)
        questions.remove(question)
        if questions:
            self._waiting[question.asker] = questions

    def _refuse(self, question: _Question) -> None:
        self._take_out(question)
        question.then(self._too_late())

    def _read(self, child: _Child) -> None:
        piece = os.read(child.pipe, PIECE_BYTES)
        if piece:
            child.written += piece
            return
        code = self._bury(child)
        self._go_on()
        child.question.then(self._outcome(child, code))

    def _outcome(self, child: _Child, code: int) -> Outcome:
        if code == 0:
            return bytes(child.written)
        if self._loop.time() >= child.question.due_s:
            return self._too_late()
        if code == FAILED:
            text = child.written.decode(errors="replace").strip()
            _log.error("a question failed in process %d: %s", child.pid, text)
            return InternalError(text.rpartition("\n")[2])
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        _log.error("process %d, which was to answer a question, ended with %s", child.pid, how)
        return InternalError(f"the process that was to answer ended with {how}", code="answer_lost")

    def _bury(self, child: _Child) -> int:
        """Have no trace of it left; returns its exit code, or the negative of the signal that ended it."""
        child.question.expiry.cancel()
        self._loop.remove_reader(child.pipe)
        os.close(child.pipe)
        del self._children[child.pid]
        # No wait to speak of: a process that ends closes its files last.
        return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])

    def _too_late(self) -> Refusal:
        text = f"the hub had no answer within {self._limit_s:g} s"
        return Refusal(text, code="answer_too_late", hint="ask for less, or when it has less to answer")


def _forked(work: Callable[[], bytes], limit_s: float) -> tuple[int, int]:
    """(process id, the pipe's end to read) of a child that does the work. Raises OSError where there can be none."""
    ours, theirs = os.pipe()
    # A signal that the child got before it has handlers of its own would wake our loop, as if it were for us.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with warnings.catch_warnings():
            # Python from 3.12 on says that a child of a process with threads may hang; the module says why not here.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _answer(work, theirs, limit_s)
    except OSError:
        os.close(ours)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(theirs)
    os.set_blocking(ours, False)
    return pid, ours


def _answer(work: Callable[[], bytes], pipe: int, limit_s: float) -> NoReturn:
    """What the child does."""
    code = FAILED
    try:
        try:
            _become_a_copy(pipe, limit_s)
            text, told = work(), 0
        except BaseException:
            text, told = traceback.format_exc().encode(), FAILED
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # it would come for each piece that is read
        left = memoryview(text)
        while left:
            left = left[os.write(pipe, left) :]
        code = told
    finally:
        os._exit(code)


def _become_a_copy(pipe: int, limit_s: float) -> None:
    """Put away all that was the hub's but its memory, and see to it that this process ends."""
    # Told by what is open: the limit may have been lowered since, or be a thousand times as high.
    highest = max(map(int, os.listdir("/proc/self/fd")))
    os.closerange(0, pipe)
    os.closerange(pipe + 1, highest + 1)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGIO):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # typed at a hub in the foreground: that ends its copies itself
    # The hub is gone once nobody can read what is written here, or does not come round to us: either signal ends us.
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_ASYNC)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Where memory is short, it goes before the hub.
    for file, word in (("comm", NAME), ("oom_score_adj", "1000")):
        with suppress(OSError):
            Path("/proc/self", file).write_text(word)
