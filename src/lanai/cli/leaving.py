"""Leaving a batch that is followed: the first Ctrl-C detaches, a second within two seconds cancels.

A terminal that is closed detaches at once. The batch goes on in any case but the second.
"""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from lanai.cli.terminal import let_go, say

if TYPE_CHECKING:
    from lanai.client.client import Client

DETACHED: Final = 130
CANCEL_WITHIN_S: Final = 2.0


class HangUp(BaseException):
    """The terminal was closed."""


@contextmanager
def hang_ups() -> Iterator[None]:
    """Raise HangUp within where the terminal is closed."""

    def raised(*_: object) -> NoReturn:
        raise HangUp

    before = signal.signal(signal.SIGHUP, raised)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def interruptible(client: Client, batch: int | str, work: Callable[[], int], *, ends_with_reader: bool = False) -> int:
    """Do `work` and return its exit code; interrupted, detach from the batch or cancel it.

    With `ends_with_reader` the batch is cancelled once nobody reads its output, as a pipe ends a command that it feeds.
    """
    try:
        with hang_ups():
            return work()
    except HangUp:
        return _hung_up()
    except BrokenPipeError:
        if ends_with_reader:
            client.cancel(batch)
            raise
        say(f"lanai: nobody reads the output any more; batch {batch} goes on\ntry: lanai cancel {batch}")
        raise
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return _hung_up()  # a closed terminal is noticed by writing to it, too, on the way out or before the signal
    except KeyboardInterrupt:
        client.close()  # the answer that was waited for may be half read
        return _left(client, batch)


def _hung_up() -> int:
    """What is still in our buffers has nobody to be written to, and would spoil the exit code."""
    for descriptor in (1, 2):
        let_go(descriptor)
    return DETACHED


def _left(client: Client, batch: int | str) -> int:
    try:
        say(f"\nlanai: detached; batch {batch} goes on. Ctrl-C again within two seconds cancels it.")
        say(f"try: lanai watch {batch}")
        time.sleep(CANCEL_WITHIN_S)
        return DETACHED
    except KeyboardInterrupt:
        changed = client.cancel(batch)
        say(f"\nlanai: cancelled batch {batch}: {changed:,} {'job' if changed == 1 else 'jobs'} had not ended")
        return 1
