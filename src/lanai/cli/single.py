"""`lanai run -- CMD`: one command, as if it ran here: output and input pass through, its exit code is ours.

Output is followed attempt by attempt, from where it broke off where the connection did. Input is sent by a thread of
its own while the job runs; when the job has ended, what was not read is left where it is.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lanai.cli.summary import cause
from lanai.cli.terminal import say
from lanai.model.errors import LanaiError, OtherEnd, TimedOut

if TYPE_CHECKING:
    from lanai.client.client import Client

INPUT_BYTES: Final = 1 << 16
INDEX: Final = 1
PATIENCE_S: Final = 30.0
RETRY_PAUSE_S: Final = 0.2
ENDED: Final = ("done", "failed", "cancelled")
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
        shown = _copy_output(client, batch, attempt)
        job = _ended_or_tried_again(client, batch, shown)
        if job["state"] in ENDED:
            return _end(batch, job)
        attempt = shown + 1


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
        reason = job.get("reason")
        say(f"lanai: job {batch}/{INDEX}: {cause(job)}{f': {reason}' if reason else ''}")
    return exit_code(job)


def _copy_output(client: Client, batch: int, attempt: int) -> int:
    """Copy one attempt's output to its end; returns the attempt's number."""
    offsets = [0, 0]
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            for which, data in client.output(
                batch, INDEX, attempt=attempt, follow=True, offsets=(offsets[0], offsets[1])
            ):
                if which == END:
                    return _end_of_output(data, attempt)
                _write(which, data)
                offsets[which - 1] += len(data)
                deadline_s = time.monotonic() + PATIENCE_S
        except TimedOut:
            raise
        except OtherEnd:
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(RETRY_PAUSE_S)


def _end_of_output(data: bytes, attempt: int) -> int:
    end = json.loads(data or b"{}")
    if end.get("problem"):
        say(f"lanai: output: {end['problem']}")
    return int(end.get("attempt") or attempt)


def _write(which: int, data: bytes) -> None:
    stream = (sys.stdout if which == OUT else sys.stderr).buffer
    stream.write(data)
    stream.flush()


def _ended_or_tried_again(client: Client, batch: int, attempt: int) -> dict[str, Any]:
    """The job once it has ended, or has begun an attempt after `attempt`."""
    version: int | None = None
    while True:
        job = client.job(batch, INDEX)
        if job["state"] in ENDED or job["attempts"] > attempt:
            return job
        # The end of the output may come before the result is on the hub's disk.
        version = client.batch(batch, after=version, timeout_s=10)["version"]


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
