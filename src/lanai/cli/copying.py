"""Copying what a job writes, while it writes it: on from where it broke off, whichever connection broke.

How long a hub that does not answer is waited for is the client's affair; here it is only asked what became of the job.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from lanai.cli.follow import LONG_POLL_S
from lanai.cli.terminal import say, talk_bytes, write_bytes
from lanai.client.client import END, ERR, GAP, OUT
from lanai.model.errors import OtherEnd

if TYPE_CHECKING:
    from lanai.client.client import Client

RETRY_PAUSE_S: Final = 0.2
REST_TRIES: Final = 10
ENDED: Final = ("done", "failed", "cancelled")
AT_NODE: Final = ("locked", "running")


class Copy:
    """Copies the output of one attempt to standard output and standard error.

    Args:
        attempt: 0 is the current or next one.
        stream: `out`, `err` or `both`.
        to: where it is written to.
    """

    def __init__(
        self,
        client: Client,
        batch: int | str,
        index: int,
        *,
        attempt: int,
        stream: str = "both",
        to: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self._client = client
        self._batch = batch
        self._index = index
        self._attempt = attempt
        self._stream = stream
        self._write = to or write
        self._offsets = [0, 0]

    def to_end(self) -> dict[str, Any]:
        """Copy until all that the attempt writes is copied, or what is missing is said; returns the job as it is then.

        The end of the output comes before the result is on the hub's disk, so the job may still stand at the attempt;
        `left` waits for more.
        """
        while True:
            problem = self._copied(follow=True)
            job = self._client.job(self._batch, self._index)
            if any(self._offsets):
                self._attempt = self._attempt or int(job["attempts"])
            if not problem:
                return job
            if self._has_left(job):
                self._copy_rest()
                return job
            time.sleep(RETRY_PAUSE_S)

    def left(self, job: dict[str, Any]) -> dict[str, Any]:
        """The job once it has ended or waits for its next attempt. Asked for output before, it would give all again.

        A node may have given the attempt back before it began: then the job waits for the same one.
        """
        change = None
        while not self._has_left(job) and not self._is_to_come(job):
            change = self._client.batch(self._batch, after=change, timeout_s=LONG_POLL_S)["change"]
            job = self._client.job(self._batch, self._index)
        return job

    def _copied(self, *, follow: bool) -> str:
        """Copy what there is, or what comes; returns what kept the rest away, or nothing."""
        try:
            return self._copy(follow=follow)
        except OtherEnd as error:
            return error.message

    def _copy_rest(self) -> None:
        """Copy what an attempt that has ended left, and say what is missing of it."""
        for _ in range(REST_TRIES):
            try:
                problem = self._copy(follow=False)
                break
            except OtherEnd as error:
                problem = error.message
            self._client.job(self._batch, self._index)  # returns once the hub answers
            time.sleep(RETRY_PAUSE_S)
        if problem:
            say(f"lanai: output: {problem}")

    def _copy(self, *, follow: bool) -> str:
        out, err = self._offsets
        pieces = self._client.output(
            self._batch,
            self._index,
            attempt=self._attempt,
            stream=self._stream,
            follow=follow,
            offsets=(out, err),
        )
        for which, data in pieces:
            if which == END:
                return str(json.loads(data)["problem"] or "")
            if which == GAP:
                which, count = say_gap(data)
            else:
                self._write(which, data)
                count = len(data)
            self._offsets[which - 1] += count
        return ""

    def _has_left(self, job: Mapping[str, Any]) -> bool:
        if not self._attempt or job["state"] in ENDED or self._is_to_come(job):
            return job["state"] in ENDED
        return job["state"] not in AT_NODE or job["attempts"] > self._attempt

    def _is_to_come(self, job: Mapping[str, Any]) -> bool:
        return is_to_come(job, self._attempt)


def is_to_come(job: Mapping[str, Any], attempt: int) -> bool:
    """Whether the job has not got that far: no node has this attempt, and none has ended it."""
    return job["state"] not in ENDED and job["attempts"] < attempt


def say_gap(data: bytes) -> tuple[int, int]:
    """Say that the node has not kept all of an output; returns of which, and how many bytes are missing."""
    gap = json.loads(data)
    which, missing = int(gap["stream"]), int(gap["missing"])
    what = "standard output" if which == OUT else "standard error"
    say(f"lanai: {missing} bytes of its {what} are missing here: the node keeps the first and the last of so much")
    return which, missing


def write(which: int, data: bytes) -> None:
    """Write what a job wrote to where it belongs, at once."""
    if which == OUT:
        write_bytes(data, sys.stdout)
        sys.stdout.flush()
    else:
        talk_bytes(data)


class Lines:
    """Writes the outputs of several jobs one after the other, each beginning on a line of its own."""

    def __init__(self) -> None:
        self._is_cut = {OUT: False, ERR: False}

    def write(self, which: int, data: bytes) -> None:
        """As `write` does."""
        if data:
            write(which, data)
            self._is_cut[which] = not data.endswith(b"\n")

    def end(self) -> None:
        """End the lines that a job left without a newline."""
        for which, is_cut in self._is_cut.items():
            if is_cut:
                self.write(which, b"\n")
