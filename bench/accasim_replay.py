"""AccaSim's EASY on a trace, in this process: to be timed as a whole.

    python bench/accasim_replay.py TRACE PROCS

TRACE is plain SWF; the machine is one node of PROCS cores, by which AccaSim is quickest and decides the same as with
PROCS nodes of one core. It writes no schedule. Prints the seconds from before the simulator is made to its end.
"""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import io
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

# AccaSim 1.1.3 asks `collections` for what has been in `collections.abc` alone since Python 3.10.
collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]


def main() -> None:
    """Run and print."""
    from accasim.base.allocator_class import FirstFit
    from accasim.base.scheduler_class import EASYBackfilling
    from accasim.base.simulator_class import Simulator

    trace, procs = sys.argv[1], int(sys.argv[2])
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="accasim-") as directory:
        system = Path(directory, "system.json")
        machine = {"groups": {"one": {"core": procs}}, "resources": {"one": 1}}
        system.write_text(json.dumps({**machine, "equivalence": {"processor": {"core": 1}}, "start_time": 0}))
        began_s = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()):
            simulator = Simulator(
                trace,
                str(system),
                EASYBackfilling(FirstFit()),
                scheduling_output=False,
                statistics_output=False,
                show_statistics=False,
                RESULTS_FOLDER_PATH=directory,
            )
            simulator.start_simulation()
        print(f"{time.monotonic() - began_s:.3f}")


if __name__ == "__main__":
    main()
