"""So many of a thing now, and only so many in the long run: bounds what strangers can have us write down."""

from __future__ import annotations

from typing import Final

KEYS_MOST: Final = 1_000
"""Beyond so many keys at a time all further ones share one."""


class Allowance:
    """Up to `burst` for each key, one more every `every_s`; what is left out meanwhile is counted.

    Args:
        burst: how many at once.
        every_s: after how long there is room for one more.
    """

    def __init__(self, *, burst: int, every_s: float) -> None:
        self._burst = burst
        self._every_s = every_s
        self._kept: dict[str, tuple[float, float, int]] = {}
        """By key: how much room there was at what time, and how many were left out since the last one let in."""

    def take(self, key: str, now_s: float) -> int | None:
        """Ask for one.

        Returns:
            How many were left out before it since the last one, or None: this one is left out as well.
        """
        if key not in self._kept and len(self._kept) >= KEYS_MOST:
            self._forget(now_s)
            key = key if len(self._kept) < KEYS_MOST else ""
        room, at_s, left_out = self._kept.get(key, (float(self._burst), now_s, 0))
        room = min(float(self._burst), room + max(0.0, now_s - at_s) / self._every_s)
        if room < 1.0:
            self._kept[key] = room, now_s, left_out + 1
            return None
        self._kept[key] = room - 1.0, now_s, 0
        return left_out

    def _forget(self, now_s: float) -> None:
        """Whoever has all his room again, and nothing left out to be told, is as if he had never asked."""
        full_s = self._burst * self._every_s
        self._kept = {k: each for k, each in self._kept.items() if each[2] or now_s - each[1] < full_s}
