"""Keeps a private hub and its agent going while somebody follows: whichever is killed is started again.

A thread waits on both processes. What ends on purpose, since nobody needed it or somebody stopped it, is left alone;
how the two are told apart stands in `private.py`. It starts nothing by itself but calls `private.start`, as whoever
came first did; so however many followers there are, one of them starts the hub.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from lanai.client import daemon, private
from lanai.client.private import AGENT, HUB, Part
from lanai.model.errors import LanaiError

REST_S: Final = 1.0
"""Between two starts, at least: something that dies at once is not to keep the machine busy."""

SETTLE_S: Final = 5.0
"""How long a part that was started may take to write down its process id."""

LOOK_S: Final = 0.2
CLOSE_WITHIN_S: Final = 5.0

WORDS: Final = {
    (HUB,): "the private hub was killed, and is started again",
    (AGENT,): "the agent of the private hub was killed, and is started again",
    (HUB, AGENT): "the private hub and its agent were killed, and are started again",
}


class Keeper:
    """Begins at once, and goes on until `close`.

    Args:
        directory: of the private hub.
        host: the agent's name.
        say: told what was started again, one line a time, from the keeper's thread.
    """

    def __init__(self, directory: Path, *, host: str, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._host = host
        self._say = say
        self._started_s = time.monotonic()
        self._seen: set[Part] = set()
        self._closed, self._closing = os.pipe()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Start nothing more. What is just being started is waited for, though not for long."""
        os.close(self._closing)
        self._thread.join(CLOSE_WITHIN_S)

    def _keep(self) -> None:
        try:
            while killed := self._await_killed():
                self._start_again(killed)
        except (LanaiError, OSError) as error:
            self._tell(f"lanai: the private hub was killed, and cannot be started again: {error}")
        finally:
            os.close(self._closed)

    def _await_killed(self) -> set[Part]:
        """The parts that were killed, once there are any; none once the keeper is closed."""
        while True:
            with ExitStack() as opened:
                living = {part: fd for part in private.PARTS if (fd := self._opened(part, opened)) is not None}
                self._seen |= living.keys()
                killed = {part for part in private.PARTS if part not in living and self._was_killed(part)}
                if killed:
                    return killed
                within_s = None if len(living) == len(private.PARTS) else LOOK_S
                if self._closed in _first_ready([self._closed, *living.values()], within_s):
                    return set()

    def _opened(self, part: Part, opened: ExitStack) -> int | None:
        """A descriptor that can be read once the part has ended; None where it has, or has not come up."""
        pid = private.pid_of(self._directory, part)
        if pid is None:
            return None
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        opened.callback(os.close, descriptor)
        # Looked at only now: before, the number might have gone to another.
        return descriptor if daemon.is_module(pid, part.module) else None

    def _was_killed(self, part: Part) -> bool:
        """Whether a part that does not run was killed; one that nobody saw running here may be coming up."""
        rest_s = REST_S if part in self._seen else SETTLE_S
        is_due = time.monotonic() >= self._started_s + rest_s
        return is_due and private.pid_of(self._directory, part) is not None

    def _start_again(self, killed: set[Part]) -> None:
        started = private.start(self._directory, host=self._host, say=lambda line: None)
        self._started_s = time.monotonic()
        self._seen -= killed
        if started is not None and started.parts:
            self._tell("lanai: " + WORDS[started.parts])

    def _tell(self, line: str) -> None:
        try:
            self._say(line)
        except OSError:
            pass  # nobody listens any more; that is no reason not to keep


def _first_ready(descriptors: list[int], within_s: float | None) -> list[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(None if within_s is None else within_s * 1000)]
