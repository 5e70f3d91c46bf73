"""Batches that somebody watches: how each stands, told to the API process when that has changed, and not too often.

Streams that wait for a batch's jobs hear of the same changes at the same pace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lanai.core.hub import HubCore
from lanai.hub.peers import Peer
from lanai.hub.streams import Streams
from lanai.model.batch import Counts
from lanai.model.ids import BatchId
from lanai.wire import messages

PROGRESS_S: Final = 0.1


class Watching:
    """Who watches what.

    Args:
        later: calls back after so many seconds.
    """

    def __init__(
        self, core: HubCore, streams: Streams, later: Callable[[float, Callable[[], None]], None]
    ) -> None:
        self._core = core
        self._streams = streams
        self._later = later
        self._watched: dict[BatchId, dict[int, Peer]] = {}
        self._moved: dict[BatchId, None] = {}
        self._is_telling = False

    def count(self) -> int:
        """How many batches somebody watches right now."""
        return len(self._watched)

    def watch(self, peer: Peer, message: messages.Watch) -> None:
        """Begin to tell, at once how it stands now, or end it."""
        watchers = self._watched.setdefault(message.batch, {})
        if message.is_on:
            watchers[peer.number] = peer
            self._tell(message.batch)
        else:
            watchers.pop(peer.number, None)
        if not watchers:
            del self._watched[message.batch]

    def lost(self, peer: Peer) -> None:
        """The connection has ended, and watches nothing more."""
        for watchers in self._watched.values():
            watchers.pop(peer.number, None)
        self._watched = {batch: watchers for batch, watchers in self._watched.items() if watchers}

    def moved(self, batch: BatchId) -> None:
        """Something of the batch has changed: tell it soon, where somebody is to be told."""
        if batch in self._watched or self._streams.awaits(batch):
            self._moved[batch] = None
            if not self._is_telling:
                self._is_telling = True
                self._later(PROGRESS_S, self._tell_all)

    def ended(self, batch: BatchId) -> None:
        """The batch has ended: tell it at once."""
        self._moved.pop(batch, None)
        self._tell(batch)

    def _tell_all(self) -> None:
        self._is_telling = False
        moved, self._moved = self._moved, {}
        for batch in moved:
            self._streams.batch_moved(batch, has_ended=False)
            self._tell(batch)

    def _tell(self, batch: BatchId) -> None:
        watchers = self._watched.get(batch)
        if not watchers:
            return
        standing = self._core.standing(batch)
        if standing is None:
            message = messages.Progress(batch, 1 << 62, "ended", Counts())
        else:
            message = messages.Progress(
                batch,
                standing.version,
                standing.state,
                standing.counts,
                standing.reason,
                standing.mean_run_us,
                standing.slots,
            )
        for peer in watchers.values():
            peer.send(message)
