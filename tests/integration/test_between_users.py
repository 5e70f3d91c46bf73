"""Between users: whoever has a million jobs does not delay another's ten by more than what waits at the agents."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.site import Site

SURPLUS_S = 0.5

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub()
    for user in ("ann", "bob"):
        made.lanai("token", "create", user, "--file", f"{user}.token")
    yield made
    made.close()


def submit(site: Site, user: str, lines: str) -> int:
    words = ("--token-file", f"{user}.token", "submit", "-", "--format", "quiet")
    return int(site.lanai(*words, stdin=lines).stdout)


def test_a_million_jobs_of_one_user_and_ten_of_another(site: Site) -> None:
    """Ann's go on meanwhile: the shares are even, and bob's are over when his ten are."""
    site.start_agent("n1", "--cpus", "2")
    anns = submit(site, "ann", "echo >> ann; sleep 0.05\n" * 1_000_000)
    site.await_lines("ann", 40)
    bobs = submit(site, "bob", "date +%s.%N >> bob; sleep 0.05\n" * 10)
    submitted_s = time.time()
    before = len(site.lines_of("ann"))
    begun = [float(line) for line in site.await_lines("bob", 10)]
    between = len(site.lines_of("ann")) - before
    site.wait(bobs)
    # One of two slots is his: ten jobs one after the other, on two slower cores than ours too.
    assert begun[0] - submitted_s < SURPLUS_S
    assert begun[9] - begun[0] < 10 * 0.05 * 4
    assert between > 3, "nothing of ann's ran meanwhile"
    site.lanai("--token-file", "ann.token", "cancel", str(anns))
    site.wait(anns, ok=False)
