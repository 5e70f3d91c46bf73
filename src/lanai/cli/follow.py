"""Following a batch to its end: asked again whenever it has changed, but never more often than anybody can look.

An interruption is the user's way to leave: the first detaches, a second within two seconds cancels; a terminal that is
closed detaches at once. The batch goes on in any case but the second.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

from lanai.cli.progress import Live, Seen
from lanai.cli.terminal import say

if TYPE_CHECKING:
    from lanai.client.client import Client

DETACHED: Final = 130
CANCEL_WITHIN_S: Final = 2.0
LONG_POLL_S: Final = 10.0
PAUSE_MIN_S: Final = 0.01
PAUSE_MAX_S: Final = 0.2
ENDS: Final = ("ended", "paused")


class HangUp(BaseException):
    """The terminal was closed."""


def has_ended(batch: Mapping[str, Any]) -> bool:
    """Whether nothing more happens in a batch without somebody's doing."""
    return batch["state"] in ENDS


def seen(batch: Mapping[str, Any]) -> Seen:
    """A batch of the API as the live line takes it."""
    return Seen(
        at_s=time.monotonic(),
        counts=batch["counts"],
        mean_run_s=batch.get("mean_run_s"),
        slots=batch.get("slots") or 0,
    )


def changes(client: Client, batch: int | str, *, deadline_s: float | None = None) -> Iterator[dict[str, Any]]:
    """The batch now, and when it has changed, until it has ended or is paused; that state comes last.

    Args:
        deadline_s: by the monotonic clock; None is never.

    Raises:
        TimedOut: the deadline passed first.
    """
    pause_s = PAUSE_MIN_S
    shown = client.batch(batch)
    while True:
        yield shown
        if has_ended(shown):
            return
        left_s = LONG_POLL_S if deadline_s is None else deadline_s - time.monotonic()
        if left_s <= 0:
            from lanai.model.errors import TimedOut

            raise TimedOut(f"batch {shown['batch']} has not ended yet", hint=f"lanai watch {shown['batch']}")
        time.sleep(min(pause_s, left_s))
        # A quick batch is seen to end at once; one of many jobs changes all the time, and is not asked for ever.
        pause_s = min(2 * pause_s, PAUSE_MAX_S)
        shown = client.batch(shown["batch"], after=shown["change"], timeout_s=min(left_s, LONG_POLL_S))


def follow(client: Client, batch: int | str) -> dict[str, Any]:
    """Show the live line until the batch has ended or is paused; returns its last state."""
    with Live(f"batch {batch}", now_s=time.monotonic()) as live:
        for shown in changes(client, batch):
            live.show(seen(shown))
    return shown


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


def interruptible(client: Client, batch: int | str, work: Callable[[], int]) -> int:
    """Do `work` and return its exit code; interrupted, detach from the batch or cancel it."""
    try:
        with hang_ups():
            return work()
    except HangUp:
        return DETACHED
    except KeyboardInterrupt:
        client.close()  # the answer that was waited for may be half read
        return _left(client, batch)


def _left(client: Client, batch: int | str) -> int:
    try:
        say(f"\nlanai: detached; batch {batch} goes on. Ctrl-C again within two seconds cancels it.")
        say(f"try: lanai watch {batch}")
        time.sleep(CANCEL_WITHIN_S)
        return DETACHED
    except KeyboardInterrupt:
        changed = client.cancel(batch)
        say(f"\nlanai: cancelled batch {batch}: {changed:,} jobs had not ended")
        return 1
