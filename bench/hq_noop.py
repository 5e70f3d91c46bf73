"""HyperQueue from its wheel, which brings no command: server and worker as threads of this process.

    python bench/hq_noop.py JOBS CORES PROGRAM [ARGUMENT...]

Without output files. Prints seconds from before the submission to the end of the last task, and microseconds of CPU a
job, those of the jobs included.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time

from hyperqueue import Job
from hyperqueue.cluster import LocalCluster, WorkerConfig


def main() -> None:
    """Run, print, and end without the wheel's slow farewell."""
    jobs, cores, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    os.chdir(tempfile.mkdtemp(prefix="hq-noop-"))
    shown = os.dup(1)
    quiet = os.open("/dev/null", os.O_WRONLY)
    os.dup2(quiet, 1)  # the wheel draws tables and a bar
    os.dup2(quiet, 2)
    job = Job()
    for _ in range(jobs):
        job.program(command, stdout=None, stderr=None)
    cluster = LocalCluster(worker_config=WorkerConfig(cores=cores))
    client = cluster.client()
    before_s = _cpu_s()
    began_s = time.monotonic()
    client.wait_for_jobs([client.submit(job)])
    wall_s = time.monotonic() - began_s
    line = f"{wall_s:.6f} {(_cpu_s() - before_s) / jobs * 1e6:.1f}\n"
    os.write(shown, line.encode())
    os._exit(0)


def _cpu_s() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


if __name__ == "__main__":
    main()
