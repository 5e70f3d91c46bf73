"""The clock of a replay: it jumps from one instant with an event to the next and tells the planner what happened.

At one instant: all ends, all arrivals, one pass. A job of 0 s ends in a second round of the same instant. Who starts is
the planner's to say; this only keeps the time.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from lanai.core.schedule.rigid import Planner, RigidJob
from lanai.core.schedule.timeline import NEVER
from lanai.model.errors import InternalError
from lanai.sim.swf import Trace

TOLD_EVERY: Final = 256


def replay(trace: Trace, planner: Planner, tell: Callable[[int], None] = lambda started: None) -> list[int]:
    """When each job of `trace` starts, in seconds and in the order of its jobs.

    Args:
        trace: what is replayed.
        planner: a new one, for as many processors as the trace has.
        tell: called after each `TOLD_EVERY` instants with the number of jobs that have started.

    Raises:
        InternalError: the planner has left jobs waiting for ever.
    """
    rigid = [RigidJob(seq, job.submit_s, job.width, job.estimate_s) for seq, job in enumerate(trace.jobs)]
    lasts = [job.run_s for job in trace.jobs]
    submits = [job.submit_s for job in trace.jobs]
    submits.append(NEVER)
    starts = [-1] * len(rigid)
    ends: list[tuple[int, int]] = []
    ended, arrived, decide, wake = planner.ended, planner.arrived, planner.decide, planner.wake
    at = 0
    started = rounds = 0
    while True:
        now = submits[at]
        if ends and ends[0][0] < now:
            now = ends[0][0]
        due = wake()
        if due is not None and due < now:
            now = due
        if now == NEVER:
            break
        while ends and ends[0][0] == now:
            seq = heappop(ends)[1]
            ended(rigid[seq], now, starts[seq])
        while submits[at] == now:
            arrived(rigid[at])
            at += 1
        for job in decide(now):
            seq = job.seq
            starts[seq] = now
            heappush(ends, (now + lasts[seq], seq))
            started += 1
        rounds += 1
        if not rounds % TOLD_EVERY:
            tell(started)
    if -1 in starts:
        raise InternalError(f"job {trace.jobs[starts.index(-1)].id} of {trace.file} was never started")
    return starts
