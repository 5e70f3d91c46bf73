"""A trace shaken a little: every submission moved by some seconds at random, so that nothing hangs on one chance.

An average slowdown is made by few jobs, and which they are depends on seconds. The mean over some shaken copies says
more than the log as it was recorded, and their deviation says how much (Tsafrir, Ouaknine, Feitelson 2007).
"""

from __future__ import annotations

from random import Random

import msgspec

from lanai.sim.swf import Trace


def shaken(trace: Trace, most_s: int, seed: int, copy: int) -> Trace:
    """The trace with each submission moved by a whole number of seconds, equally likely from -most_s to most_s.

    No submission comes before 0. Jobs of one instant stand in the order that they had. The same numbers give the same
    copy, on any machine.

    Args:
        trace: as it was recorded.
        most_s: 0 or more.
        seed: of all copies.
        copy: which of them, from 1.
    """
    draw = Random(f"{seed}/{copy}").random
    span = 2 * most_s + 1
    jobs = [
        msgspec.structs.replace(job, submit_s=max(0, job.submit_s + int(draw() * span) - most_s)) for job in trace.jobs
    ]
    jobs.sort(key=lambda job: job.submit_s)
    return msgspec.structs.replace(trace, jobs=jobs)
