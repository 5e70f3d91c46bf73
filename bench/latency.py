"""How long one job takes to begin, and how long commands take to come back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from processes import bare_environment, scratch
from sites import site

from lanai.model.batch import BatchSettings

LANAI = os.path.join(os.path.dirname(sys.executable), "lanai")
_STAMP = r"""#include <stdio.h>
#include <time.h>
int main(void) {
    struct timespec at;
    clock_gettime(CLOCK_BOOTTIME, &at);
    return printf("%lld\n", at.tv_sec * 1000000LL + at.tv_nsec / 1000) < 0;
}
"""


def one_job(repeats: int = 15) -> float:
    """Seconds from the client's call to the job's own first look at the clock; the median on an idle hub."""
    with site() as here, scratch() as directory:
        stamp = _stamp(directory)
        client = here.client()
        settings = BatchSettings(cwd=str(directory), output=str(directory / "at"), shell="never")
        found = []
        for _ in range(repeats + 1):
            began_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
            batch = client.submit([str(stamp).encode() + b"\n"], settings, env={b"PATH": b"/bin"}).batch
            client.wait(batch)
            found.append((int((directory / "at").read_text()) - began_us) / 1e6)
            time.sleep(0.05)
        client.close()
    return median(found[1:])


def _stamp(directory: Path) -> Path:
    program = directory / "stamp"
    words = ["gcc", "-O2", "-o", str(program), "-x", "c", "-"]
    subprocess.run(words, input=_STAMP, text=True, check=True)
    return program


def run_with_hub(repeats: int = 7) -> float:
    """`lanai run -- true` as a whole process, the hub running."""
    with site() as here:
        here.client().close()
        environment = bare_environment() | {"LANAI_HUB": str(here.hub.facts["directory"])}
        return median(_seconds(["run", "--", "true"], environment) for _ in range(repeats))


def run_from_nothing(repeats: int = 3) -> float:
    """The same with nothing running: a private hub and agent are started."""
    found = []
    for _ in range(repeats):
        with scratch() as directory:
            environment = bare_environment() | {"LANAI_HOME": str(directory / "home")}
            try:
                found.append(_seconds(["run", "--", "true"], environment))
            finally:
                subprocess.run([LANAI, "hub", "stop", "--now"], env=environment, capture_output=True, check=False)
                _wait_until_gone(directory / "home" / "private")
    return median(found)


def _wait_until_gone(private: Path) -> None:
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        if not any((private / name).exists() for name in ("hub.pid", "agent/agent.json")):
            return
        time.sleep(0.05)


def show_help(repeats: int = 9) -> float:
    """`lanai --help`."""
    return median(_seconds(["--help"], bare_environment()) for _ in range(repeats))


def _seconds(words: list[str], environment: dict[str, str]) -> float:
    began_s = time.monotonic()
    subprocess.run(
        [LANAI, *words], env=environment, stdin=subprocess.DEVNULL, check=True, capture_output=True, timeout=60
    )
    return time.monotonic() - began_s
