"""A second replay, written from the conventions alone: slow, and plain enough to be right at sight.

It keeps no queue in order, no profile and nothing from one pass to the next but the reservations that conservative
backfill is about. What is free at a time is counted anew each time from who holds what from when to when.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lanai.sim.swf import Trace


@dataclass(eq=False)
class Job:
    place: int
    submit: int
    width: int
    run: int
    estimate: int
    request: int
    user: int
    is_predicted: bool = False
    start: int | None = None
    reserved: int | None = None
    has_ended: bool = False


def reference_starts(trace: Trace, policy: str, *, predicts: bool = False) -> list[int]:
    """The start of each job of the trace, in its order."""
    jobs = [
        Job(n, job.submit_s, job.width, job.run_s, job.estimate_s, job.estimate_s, job.user)
        for n, job in enumerate(trace.jobs)
    ]
    ended: list[Job] = []
    now = -1
    left = jobs
    while any(job.start is None for job in left):
        now = next_instant(left, now, predicts)
        ends = [job for job in left if is_running(job) and job.start + job.run <= now]
        for job in ends:
            job.has_ended = True
        ended += sorted(ends, key=lambda job: job.place)
        left = [job for job in left if not job.has_ended]
        there = [job for job in left if job.submit <= now]
        if predicts:
            predict(there, ended, now)
        waiting = [job for job in there if job.start is None]
        taken = sum(job.width for job in there if is_running(job))
        if waiting and taken < trace.procs:
            PASSES[policy.partition(":")[0]](Pass(now, trace.procs, there, waiting, bool(ends)), policy)
        assert sum(job.width for job in there if is_running(job)) <= trace.procs
    return [job.start for job in jobs]


def predict(jobs: list[Job], ended: list[Job], now: int) -> None:
    """Of those that come now: the mean of the user's last two that ended. Of those that outlive it: the request."""
    for job in jobs:
        if job.start is not None:
            if now >= job.start + job.estimate:
                job.estimate = job.request
        elif job.submit == now and not job.is_predicted:
            job.is_predicted = True
            runs = [other.run for other in ended if other.user == job.user][-2:]
            job.estimate = min(job.request, max(1, sum(runs) // 2)) if len(runs) == 2 else job.request


def next_instant(jobs: list[Job], now: int, predicts: bool) -> int:
    """The next event; the same instant again while a job of 0 s has not been taken note of."""
    again = [now for job in jobs if is_running(job) and job.start + job.run == now]
    arrivals = [job.submit for job in jobs if job.submit > now]
    ends = [job.start + job.run for job in jobs if is_running(job) and job.start + job.run > now]
    reservations = [job.reserved for job in jobs if job.start is None and job.reserved is not None]
    outlived = [job.start + job.estimate for job in jobs if is_running(job) and job.start + job.estimate > now]
    return min(again + arrivals + ends + reservations + (outlived if predicts else []))


def is_running(job: Job) -> bool:
    return job.start is not None and not job.has_ended


@dataclass
class Pass:
    now: int
    procs: int
    jobs: list[Job]
    waiting: list[Job]
    has_ends: bool

    def running(self) -> list[Job]:
        return [job for job in self.jobs if is_running(job)]

    def free(self) -> int:
        return self.procs - sum(job.width for job in self.running())

    def start(self, job: Job) -> None:
        assert job.width <= self.free()
        job.start = self.now

    def ordered(self, order: str) -> list[Job]:
        return sorted((job for job in self.waiting if job.start is None), key=self.rank(order))

    def rank(self, order: str) -> Callable[[Job], tuple[float, int, int]]:
        return {
            "fcfs": lambda job: (0, job.submit, job.place),
            "sjf": lambda job: (job.estimate, job.submit, job.place),
            "wfp3": lambda job: (-self.wfp3(job), job.submit, job.place),
        }[order]

    def wfp3(self, job: Job) -> float:
        waited = float(self.now - job.submit)
        if job.estimate == 0:
            return float("inf") if waited else 0.0
        r = waited / float(job.estimate)
        return r * r * r * job.width


def list_pass(this: Pass, order: str) -> None:
    for job in this.ordered(order):
        if job.width > this.free():
            break
        this.start(job)


def easy_pass(this: Pass, order: str, backfill: str) -> None:
    list_pass(this, order)
    left = this.ordered(order)
    if not left:
        return
    head = left[0]
    released = {job: job.start + job.estimate for job in this.running()}

    def free_by(when: int) -> int:
        return this.free() + sum(job.width for job, end in released.items() if end <= when)

    shadow = min(end for end in released.values() if free_by(end) >= head.width)
    extra = free_by(shadow) - head.width
    for job in this.ordered(backfill):
        if job is head or job.width > this.free():
            continue
        if this.now + job.estimate <= shadow:
            this.start(job)
        elif job.width <= extra:
            this.start(job)
            extra -= job.width


def conservative_pass(this: Pass, _policy: str) -> None:
    for job in this.ordered("fcfs"):
        if job.reserved is None or this.has_ends:
            before = job.reserved
            job.reserved = None
            job.reserved = earliest(this, job, [other for other in this.waiting if other.reserved is not None])
            assert before is None or job.reserved <= before, "a promise has moved to a later time"
    for job in this.ordered("fcfs"):
        if job.reserved == this.now:
            this.start(job)


def depth_pass(this: Pass, policy: str) -> None:
    depth = int(policy.partition(":")[2])
    reserved: list[Job] = []
    for job in this.ordered("fcfs"):
        job.reserved = earliest(this, job, reserved)
        if job.reserved == this.now:
            this.start(job)
        elif len(reserved) < depth:
            reserved.append(job)
    for job in this.waiting:
        job.reserved = None


def earliest(this: Pass, job: Job, reserved: list[Job]) -> int:
    """The least time from now on at which the job fits for all of its estimate beside those running and reserved."""
    held = [(other.start, other.start + length(other), other.width) for other in this.running()]
    held += [(other.reserved, other.reserved + length(other), other.width) for other in reserved]
    for begin in sorted({this.now, *(end for _, end, _ in held if end > this.now)}):
        end = begin + length(job)
        instants = {begin, *(start for start, _, _ in held if begin < start < end)}
        if all(
            this.procs - sum(width for start, end, width in held if start <= instant < end) >= job.width
            for instant in instants
        ):
            return begin
    raise AssertionError("a job that is no wider than the machine fits once everything has ended")


def length(job: Job) -> int:
    return max(job.estimate, 1)


PASSES: dict[str, Callable[[Pass, str], None]] = {
    "fcfs": list_pass,
    "sjf": list_pass,
    "wfp3": list_pass,
    "easy": lambda this, _: easy_pass(this, "fcfs", "fcfs"),
    "easy-sjbf": lambda this, _: easy_pass(this, "fcfs", "sjf"),
    "sjf+easy": lambda this, _: easy_pass(this, "sjf", "sjf"),
    "wfp3+easy": lambda this, _: easy_pass(this, "wfp3", "wfp3"),
    "conservative": conservative_pass,
    "depth": depth_pass,
}
