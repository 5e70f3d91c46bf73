"""How long a client goes on asking a hub that does not answer any more, and what is said of it meanwhile.

A hub that has never answered is not waited for. The limit counts from when the first question got no answer, not from
when that was asked: a long poll that breaks at its end leaves all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from lanai.model.errors import OtherEnd, TimedOut

PAUSE_S: Final = 0.2

Say = Callable[[str], None]


class Patience:
    """Told of each answer, and of each question that got none.

    Args:
        for_s: how long a hub may be silent.
        quiet_s: how long it may be so without a word: what is over in a moment is no news.
        say: told, one line a time, that the hub does not answer, and that it does again; each once a silence.
    """

    def __init__(self, *, for_s: float, quiet_s: float, say: Say) -> None:
        self._for_s = for_s
        self._quiet_s = quiet_s
        self._say = say
        self._has_answered = False
        self._silent_since_s: float | None = None
        self._has_said = False

    def answered(self) -> None:
        """The hub has answered."""
        self._has_answered = True
        if self._has_said:
            self._say("lanai: the hub answers again")
        self._forget()

    def failed(self, error: OtherEnd, *, deadline_s: float | None = None) -> None:
        """A question got no answer; returns after a moment, when it may be asked again.

        Args:
            deadline_s: of the asker, by the monotonic clock; None is never.

        Raises:
            OtherEnd: `error`, where the hub has been silent for too long, or has never answered.
            TimedOut: the deadline came first.
        """
        now_s = time.monotonic()
        if self._silent_since_s is None:
            self._silent_since_s = now_s
        ends_s = self._silent_since_s + self._for_s
        if not self._has_answered or now_s >= ends_s:
            self._forget()
            raise error
        if deadline_s is not None and now_s >= deadline_s:
            self._forget()
            raise TimedOut("the time is up, and the hub does not answer", hint="lanai hub status")
        until_s = ends_s if deadline_s is None else min(ends_s, deadline_s)
        if not self._has_said and now_s >= self._silent_since_s + self._quiet_s:
            self._has_said = True
            self._say(f"lanai: the hub does not answer; trying again for {round(until_s - now_s)} s")
        time.sleep(min(PAUSE_S, until_s - now_s))

    def _forget(self) -> None:
        self._silent_since_s = None
        self._has_said = False
