"""What has been over for too long goes from the hub's store, and answers as if it had never been."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub("--keep-batches-days", "0", "--keep-events-days", "0")
    yield made
    made.close()


def rows(site: Site, table: str) -> int:
    with closing(sqlite3.connect(f"file:{site.home}/hub/hub.db?mode=ro", uri=True)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_a_batch_that_ended_too_long_ago_is_gone_and_one_that_waits_is_not(site: Site) -> None:
    site.start_agent("n1")
    over = site.submit(["echo out"] * 5)
    site.wait(over)
    going_on = site.submit(["sleep 600"])
    eventually(lambda: site.counts(going_on) == {"running": 1}, what="the other batch to run")
    eventually(lambda: rows(site, "tail") == 5, what="the ends of outputs")
    assert site.hub is not None and site.hub.stop() == 0
    # 0.9 ms: whatever has ended is too old.
    site.start_hub("--keep-batches-days", "1e-8", "--keep-events-days", "1e-8")
    eventually(lambda: not any(rows(site, table) for table in ("attempt", "tail", "pruned")), what="the batch to go")
    assert rows(site, "batch") == rows(site, "chunk_lines") == 1
    for words in (f"batch show {over}", f"job list {over}", f"logs {over}/1", f"retry {over}"):
        refused = site.lanai(*words.split(), ok=False)
        assert refused.returncode != 0
        assert f"there is no batch {over}" in refused.stderr, words
    assert site.counts(going_on) == {"running": 1}
    assert site.submit(["true"]) > going_on
