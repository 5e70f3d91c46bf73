"""A batch's settings: what its submitter fixed for all its jobs."""

from __future__ import annotations

from typing import Final

import msgspec

from lanai.model.resources import Shape


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """How many further attempts each cause of failure allows a job. A lost node uses `node`, never the others."""

    exit: int = 0
    signal: int = 0
    check: int = 0
    time: int = 0
    memory: int = 1
    node: int = 5


SHELL_SETTINGS: Final = ("auto", "always", "never", "words")
"""How a command line becomes a process: by GNU make's rule; by /bin/sh -c; split on blanks; split as a shell would."""

ENV_LIMIT_BYTES: Final = 128 * 1024
PRIORITY_MIN, PRIORITY_MAX, PRIORITY_DEFAULT = 1, 10000, 10
SETTINGS_BYTES: Final = 32 * 1024
"""The longest settings, as JSON: a hub holds those of every batch that has not ended."""
RESOURCES_EACH: Final = 64
"""Most named resources that a job may ask for."""
COUNT_MAX: Final = (1 << 53) - 1
"""The largest of any number in settings: what JSON carries exactly, and a store and the wire hold."""


class BatchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a batch but its jobs, its owner and its environment.

    Attributes:
        name: for people; may be empty.
        labels: for people and filters.
        priority: Parasol's: 1 (most) to 10000 (least); a batch's share is weighted by 1/priority.
        max_running: at once; 0 is without limit.
        stop_after: failed jobs after which the rest of the batch is cancelled; 0 is never.
        retries: per cause.
        cwd: absolute directory the commands start in.
        umask: of the commands.
        output, error: pattern of a file per job (`%b` batch, `%i` index, `%a` attempt, `%%`); None: kept by the node.
        shell: one of `SHELL_SETTINGS`.
        shape: the request of a job that names none of its own.
        grace_us: between SIGTERM and SIGKILL.
        stdin: `null`, or `pipe` where the client sends the input (a batch of one job).
        first_line: what to show for the batch where it has no name.
        account: what its use is charged to; empty: the user's own.
        service: its class of service; empty: the default one.
        start_after_us: wall time before which none of its jobs starts; 0: none.
        reservation: the name of the reservation that its jobs are to run in; empty: none.
        is_held: as it comes in all its jobs are held, by its user. They may have been released since.
    """

    name: str = ""
    labels: dict[str, str] = {}
    priority: int = PRIORITY_DEFAULT
    max_running: int = 0
    stop_after: int = 0
    retries: Retries = Retries()
    cwd: str = "/"
    umask: int = 0o022
    output: str | None = None
    error: str | None = None
    shell: str = "auto"
    shape: Shape = Shape()
    grace_us: int = 10_000_000
    stdin: str = "null"
    first_line: str = ""
    account: str = ""
    service: str = ""
    start_after_us: int = 0
    reservation: str = ""
    is_held: bool = False


class Counts(msgspec.Struct, kw_only=True):
    """How many jobs of a batch stand in each state. Their sum is the batch's total."""

    held: int = 0
    queued: int = 0
    locked: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0

    def total(self) -> int:
        """All jobs of the batch."""
        return self.waiting() + self.done + self.failed + self.cancelled

    def waiting(self) -> int:
        """Jobs that have not come to an end."""
        return self.held + self.queued + self.locked + self.running
