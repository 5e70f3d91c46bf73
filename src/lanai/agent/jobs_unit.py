"""`python -m lanai.agent.jobs_unit`: holds the unit in whose control group an agent makes those of its jobs.

systemd (before 254) cannot start a unit again while there are groups with controllers in that unit's own: so the jobs'
groups do not lie in the agent's unit, which is started again with every upgrade, but in one that is not. A unit needs a
process. Version 2 wants none in a group that shares out memory and cpus, so this one moves into a group of its own
inside; then it is `sleep`, which takes no memory worth naming.

See the rule on inner processes in the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final, NoReturn

from lanai.agent import cgroup_mounts
from lanai.wire.notify import Notifier

LEAF: Final = "keep"


def main() -> NoReturn:
    """Move aside, say so, and stay until ended. Exit code 1 where the group is not ours to divide."""
    notifier = Notifier.taken_from(os.environ)
    sleep = shutil.which("sleep")
    if sleep is None:
        sys.exit("lanai.agent.jobs_unit: there is no `sleep` here to become")
    try:
        move_aside()
    except OSError as error:
        sys.exit(f"lanai.agent.jobs_unit: cannot move into {error.filename}: {error.strerror}; is Delegate=yes set?")
    notifier.ready("holds the control groups of jobs")
    os.execv(sleep, ["sleep", "infinity"])


def move_aside() -> None:
    """Move into a group inside ours, where version 2 is mounted. Harmless when it is done already. Raises OSError."""
    for one in cgroup_mounts.find():
        if one.version == 2 and one.own is not None and one.own.name != LEAF:
            leaf = one.own / LEAF
            leaf.mkdir(exist_ok=True)
            # Not write_text: the file is the kernel's, and is neither made nor cut off.
            door = os.open(leaf / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(door, b"0")
            except OSError as error:
                raise OSError(error.errno, error.strerror, os.fspath(leaf)) from None
            finally:
                os.close(door)


if __name__ == "__main__":
    main()
