"""Following a batch to its end: asked again whenever it has changed, but never more often than anybody can look."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from lanai.cli.disk import is_full
from lanai.cli.progress import Live, Seen

if TYPE_CHECKING:
    from lanai.client.client import Client

LONG_POLL_S: Final = 10.0
LIVE_S: Final = 0.2
"""How often a live line moves. Where nobody watches it is enough that a line every ten seconds is fresh."""

UNSEEN_S: Final = 5.0
DISK_S: Final = 5.0
ENDS: Final = ("ended", "paused")


def has_ended(batch: Mapping[str, Any]) -> bool:
    """Whether nothing more happens in a batch without somebody's doing."""
    return batch["state"] in ENDS


def seen(batch: Mapping[str, Any], *, is_disk_full: bool = False) -> Seen:
    """A batch of the API as the live line takes it."""
    return Seen(
        at_s=time.monotonic(),
        counts=batch["counts"],
        mean_run_s=batch.get("mean_run_s"),
        slots=batch.get("slots") or 0,
        is_disk_full=is_disk_full,
    )


def changes(client: Client, batch: int | str, *, deadline_s: float | None = None) -> Iterator[dict[str, Any]]:
    """The batch now, and when it has changed, until it has ended or is paused; that state comes last.

    Args:
        deadline_s: by the monotonic clock; None is never.

    Raises:
        TimedOut: the deadline passed first.
        OtherEnd: the hub was silent for too long.
    """
    quiet_s = LIVE_S if sys.stderr.isatty() else UNSEEN_S
    shown = client.batch(batch, deadline_s=deadline_s)
    while True:
        yield shown
        if has_ended(shown):
            return
        left_s = LONG_POLL_S if deadline_s is None else deadline_s - time.monotonic()
        if left_s <= 0:
            from lanai.model.errors import TimedOut

            raise TimedOut(f"batch {shown['batch']} has not ended yet", hint=f"lanai watch {shown['batch']}")
        shown = client.batch(
            shown["batch"],
            after=shown["change"],
            timeout_s=min(left_s, LONG_POLL_S),
            quiet_s=quiet_s,
            deadline_s=deadline_s,
        )


class _Disk:
    """Whether the hub's disk is full: asked for now and then, also while nothing moves."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked_s = time.monotonic()
        self._is_full = False

    def is_full(self) -> bool:
        """As of at most five seconds ago."""
        if time.monotonic() >= self._asked_s + DISK_S:
            self._is_full = is_full(self._client.hub())
            self._asked_s = time.monotonic()
        return self._is_full


def follow(client: Client, batch: int | str) -> dict[str, Any]:
    """Show the live line until the batch has ended or is paused; returns its last state."""
    disk = _Disk(client)
    with Live(f"batch {batch}", now_s=time.monotonic()) as live:
        for shown in changes(client, batch):
            live.show(seen(shown, is_disk_full=not has_ended(shown) and disk.is_full()))
    return shown
