"""`lanai run -- CMD`: one command, as if it ran here: output and input pass through, its exit code is ours.

Output is followed attempt by attempt, and goes on from where it broke off where a connection did. Input is sent by a
thread of its own while the job runs; when the job has ended, what was not read is left where it is.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from lanai.cli.causes import cause
from lanai.cli.terminal import say, write_bytes
from lanai.model.errors import LanaiError, OtherEnd

if TYPE_CHECKING:
    from lanai.client.client import Client

INPUT_BYTES: Final = 1 << 16
INDEX: Final = 1
PATIENCE_S: Final = 30.0
HEALTHY_S: Final = 10.0
RETRY_PAUSE_S: Final = 0.2
ENDED: Final = ("done", "failed", "cancelled")
AT_NODE: Final = ("locked", "running")
OUT, ERR, END = 1, 2, 0
COMMAND_NOT_FOUND: Final = 127


def has_input() -> bool:
    """Whether standard input is something to pass on: a pipe, a socket or a file; no terminal, and not /dev/null."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


def run_single(client: Client, batch: int, input_client: Client | None) -> int:
    """Copy the command's output through until it has ended; returns its exit code.

    Args:
        client: for everything but the input.
        batch: of the one job.
        input_client: to send standard input with, or None where there is none to send.
    """
    if input_client is not None:
        threading.Thread(target=_send_input, args=(input_client, batch), daemon=True).start()
    attempt = 1
    while True:
        job = _Copy(client, batch, attempt).to_end()
        following = _next_attempt(job, attempt)
        if following is None:
            return _end(batch, job)
        attempt = following


def _next_attempt(job: Mapping[str, Any], shown: int) -> int | None:
    """The attempt to show after `shown`, which may have ended already or be still to come; None where there is none.

    A grant that was given back leaves a number without an attempt.
    """
    begun = [each["attempt"] for each in job["attempts_list"] if each["started_at"] or each["state"] not in ENDED]
    later = min((each for each in begun if each > shown), default=None)
    if later is None and job["state"] not in ENDED:
        return max(shown, int(job["attempts"])) + 1
    return later


def exit_code(job: Mapping[str, Any]) -> int:
    """The exit code that stands for how a job ended, by the shell's conventions."""
    if job["state"] == "done":
        return 0
    if job.get("outcome") == "notfound":
        return COMMAND_NOT_FOUND
    if job.get("signal"):
        return 128 + int(job["signal"])
    return int(job.get("exit_code") or 1)


def _end(batch: int, job: Mapping[str, Any]) -> int:
    # A command that exits by itself has said what it had to say; anything else would go unexplained.
    if job["state"] != "done" and job.get("outcome") != "exit":
        how, reason = cause(job), job.get("reason") or ""
        say(f"lanai: job {batch}/{INDEX}: {reason if how in reason else ': '.join(filter(None, (how, reason)))}")
    return exit_code(job)


class _Copy:
    """Copies the output of one attempt, from where it broke off where that happens."""

    def __init__(self, client: Client, batch: int, attempt: int) -> None:
        self._client = client
        self._batch = batch
        self._attempt = attempt
        self._offsets = [0, 0]

    def to_end(self) -> dict[str, Any]:
        """Copy until the attempt has ended; returns the job once it has ended or waits for the next.

        The end of the output comes before the result is on the hub's disk: until then the job still stands at the
        attempt, and asking for its output again would copy it twice.
        """
        while True:
            problem = self._copy(follow=True)
            job = self._client.job(self._batch, INDEX)
            if not problem:
                return self._left(job)
            if self._has_left(job):
                if problem := self._copy(follow=False):
                    say(f"lanai: output: {problem}")
                return job
            time.sleep(RETRY_PAUSE_S)

    def _copy(self, *, follow: bool) -> str:
        """Copy what there is, or what comes; returns what kept the rest away, or nothing."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            asked_s = time.monotonic()
            try:
                for which, data in self._pieces(follow=follow):
                    if which == END:
                        return str(json.loads(data)["problem"] or "")
                    _write(which, data)
                    self._offsets[which - 1] += len(data)
            except OtherEnd:
                now_s = time.monotonic()
                if now_s > asked_s + HEALTHY_S:  # a connection that was good for so long broke only now
                    deadline_s = now_s + PATIENCE_S
                if now_s >= deadline_s:
                    raise
                time.sleep(RETRY_PAUSE_S)

    def _pieces(self, *, follow: bool) -> Iterator[tuple[int, bytes]]:
        out, err = self._offsets
        return self._client.output(self._batch, INDEX, attempt=self._attempt, follow=follow, offsets=(out, err))

    def _has_left(self, job: Mapping[str, Any]) -> bool:
        return job["state"] not in AT_NODE or job["attempts"] > self._attempt

    def _left(self, job: dict[str, Any]) -> dict[str, Any]:
        change = None
        while not self._has_left(job):
            change = self._client.batch(self._batch, after=change, timeout_s=10)["change"]
            job = self._client.job(self._batch, INDEX)
        return job


def _write(which: int, data: bytes) -> None:
    stream = sys.stdout if which == OUT else sys.stderr
    write_bytes(data, stream)
    stream.flush()


def _send_input(client: Client, batch: int) -> None:
    offset = 0
    try:
        while data := os.read(0, INPUT_BYTES):
            client.send_input(batch, INDEX, data, offset=offset)
            offset += len(data)
        client.send_input(batch, INDEX, b"", offset=offset, is_end=True)
    except (LanaiError, OSError):
        pass  # the command reads no more, or has ended; how, is told by its result
    finally:
        client.close()
