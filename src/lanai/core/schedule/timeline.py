"""How much of a machine is free at each time from now on, running jobs and reservations taken off.

Kept as steps: from `_times[i]` to `_times[i + 1]`, `_free[i]` is free; the last step has no end. Neighbours differ, so
there are at most two steps for each job in it. Whoever plans calls `advance` as time passes, which drops the past.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from lanai.core.schedule.rigid import Amount, RigidJob

NEVER: Final = 1 << 62


class Timeline:
    """The free amount over time.

    Args:
        capacity: what is free where nothing is taken.
        now: the first time that can be asked about.
        releases: (time, amount) in order of time, all after `now`: what is taken from now on until then.
    """

    def __init__(self, capacity: Amount, now: int = 0, releases: Iterable[tuple[int, Amount]] = ()) -> None:
        self._times = [now]
        self._free = [0]
        released = 0
        for when, amount in releases:
            if when != self._times[-1]:
                self._times.append(when)
                self._free.append(released)
            released += amount
            self._free[-1] = released
        self._free = [free + capacity - released for free in self._free]

    def advance(self, now: int) -> None:
        """Forget what was before `now`."""
        past = bisect_right(self._times, now) - 1
        if past > 0:
            del self._times[:past], self._free[:past]
        self._times[0] = now

    def take(self, begin: int, end: int, amount: Amount) -> None:
        """Take `amount` for [begin, end). The caller has seen to it that so much is free."""
        self._change(begin, end, -amount)

    def give(self, begin: int, end: int, amount: Amount) -> None:
        """Give back for [begin, end) what was taken; nothing where that is empty."""
        if begin < end:
            self._change(begin, end, amount)

    def fits(self, begin: int, width: Amount, length: int) -> bool:
        """Whether `width` is free for all of [begin, begin + length)."""
        return self._search(begin, width, length, begin + 1, NEVER) is not None

    def earliest(self, begin: int, width: Amount, length: int) -> int:
        """The least time from `begin` on at which `width`, up to the capacity, is free for `length`."""
        found = self._search(begin, width, length, NEVER, NEVER)
        if found is None:
            raise ValueError(f"{width} is never free")
        return found

    def earlier(self, begin: int, job: RigidJob, reserved: int, before: int) -> int | None:
        """The least time from `begin` on, and before `before`, for a job reserved at `reserved`; None: there is none.

        Asked as if its reservation were lifted out. From then on the job has what it needs, so it is enough that the
        way there is free. `before` is no later than `reserved`.
        """
        return self._search(begin, job.width, job.estimate or 1, before, reserved)

    def _search(self, begin: int, width: Amount, length: int, before: int, reserved: int) -> int | None:
        times, free = self._times, self._free
        last = len(times) - 1
        at = bisect_right(times, begin) - 1
        found = begin
        while True:
            while free[at] < width:
                if at == last:
                    return None
                at += 1
                found = times[at]
                if found >= before:
                    return None
            end = found + length
            if end > reserved:
                end = reserved
            while at < last and times[at + 1] < end:
                at += 1
                if free[at] < width:
                    break
            else:
                return found

    def _change(self, begin: int, end: int, amount: Amount) -> None:
        first = self._cut(begin)
        last = self._cut(end)
        free = self._free
        for at in range(first, last):
            free[at] += amount
        self._join(last)
        self._join(first)

    def _cut(self, when: int) -> int:
        """The step that begins at `when`, made where there is none."""
        at = bisect_right(self._times, when) - 1
        if self._times[at] == when:
            return at
        self._times.insert(at + 1, when)
        self._free.insert(at + 1, self._free[at])
        return at + 1

    def _join(self, at: int) -> None:
        if at and self._free[at] == self._free[at - 1]:
            del self._times[at], self._free[at]
