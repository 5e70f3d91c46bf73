"""What runs, by when it is expected to end: how much is free, and from when on a given amount will be.

It knows no reservations, so what is free only grows from now on; see `timeline` for what may shrink.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from lanai.core.schedule.rigid import Amount, RigidJob


class Running:
    """The running jobs of one machine.

    Attributes:
        capacity: of the machine, all jobs gone.
        free: what no running job has.
    """

    def __init__(self, capacity: Amount) -> None:
        self.capacity = capacity
        self.free = capacity
        self._ends: list[tuple[int, int, Amount]] = []

    def start(self, job: RigidJob, now: int) -> None:
        """The job has what it takes from now on."""
        self.free -= job.width
        insort(self._ends, (now + job.estimate, job.seq, job.width))

    def end(self, job: RigidJob, started: int) -> None:
        """Take back what a job has that was started at `started`."""
        self.free += job.width
        del self._ends[bisect_left(self._ends, (started + job.estimate, job.seq))]

    def shadow(self, width: Amount) -> tuple[int, Amount]:
        """(earliest estimated end at which `width` is free, what is free besides at that time).

        All that is released up to and including that time counts. `width` is more than is free now, and no more than
        the capacity.
        """
        free, shadow = self.free, None
        for when, _seq, released in self._ends:
            if shadow is not None and when != shadow:
                break
            free += released
            if free >= width:
                shadow = when
        if shadow is None:
            raise ValueError(f"{width} is wider than the capacity of {self.capacity}")
        return shadow, free - width

    def steps(self) -> list[tuple[int, Amount]]:
        """(estimated end, what it releases) of each running job, in order of time."""
        return [(when, released) for when, _seq, released in self._ends]
