"""Worlds full of faults: nothing bad ever happens, and everything ends once the faults stop.

200 seeds or 60 s, whichever is less, and never fewer than 50 seeds; with LANAI_SOAK_S that many seconds, of seeds that
no run before had. A seed that fails is kept in `corpus/` and lived through again in every later run.
"""

import os
import time
import traceback
from pathlib import Path

import pytest

from sim.world import World

FAILURES = 10
"""After so many in one run the cause is not the seeds, and more of them would tell nothing."""
CORPUS = Path(__file__).parent / "corpus"
SEEDS = 200
SEEDS_AT_LEAST = 50
SHORT_SEEDS = 15
LIMIT_S = 60.0
SOAK_S = float(os.environ.get("LANAI_SOAK_S", "0"))


def live(
    seed: int, lived: dict[str, int], shortages: float = 0.0, wide: float = 0.0, preempts: float = 0.0
) -> None:
    world = World(seed, shortages, wide, preempts)
    try:
        world.run()
    except Exception as error:
        raise AssertionError(f"seed {seed} after {world.happened}: {error}") from error
    for what, count in (
        ("worlds", 1),
        ("attempts", world.promises.executions),
        ("attempts over several nodes", world.promises.wide_executions),
        ("attempts that made way", world.promises.preempted),
        ("comparisons of store and core", world.promises.comparisons),
        ("faults and wishes", sum(world.happened.values())),
    ):
        lived[what] = lived.get(what, 0) + count


def keep(seed: int) -> None:
    """The corpus remembers it, with what broke; the file is to be committed with the mending."""
    path = CORPUS / f"{seed}.txt"
    if not path.exists():
        broke = traceback.format_exc(limit=-3).replace(f"{Path.cwd()}/", "")
        path.write_text(f"{seed}\n{broke}", encoding="utf-8")


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.txt")), ids=lambda path: path.stem)
def test_a_seed_that_failed_once(path: Path, lived: dict[str, int]) -> None:
    live(int(path.read_text(encoding="utf-8").split(maxsplit=1)[0]), lived)


def _goes_on(count: int, until: float) -> bool:
    return (bool(SOAK_S) or count < SEEDS) and (time.monotonic() < until or count < SEEDS_AT_LEAST)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("shortages", [0.1, 0.5])
def test_worlds_short_of_something(shortages: float, lived: dict[str, int]) -> None:
    """Nodes that cannot begin the jobs of a batch for a while, beside all else that goes wrong."""
    for seed in range(SHORT_SEEDS):
        live(seed, lived, shortages)


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("shortages", "wide"), [(0.0, 0.3), (0.0, 1.0), (0.3, 0.5)])
def test_worlds_with_jobs_over_several_nodes(shortages: float, wide: float, lived: dict[str, int]) -> None:
    """Nodes are lost before, while and after room is claimed on them for what others run."""
    for seed in range(SHORT_SEEDS):
        live(seed, lived, shortages, wide)


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("wide", "preempts"), [(0.0, 0.8), (0.4, 0.8)])
def test_worlds_in_which_jobs_make_way(wide: float, preempts: float, lived: dict[str, int]) -> None:
    """Whoever makes way is tried again once and is charged nothing, whatever else befalls hub and nodes meanwhile."""
    before = lived.get("attempts that made way", 0)
    for seed in range(SHORT_SEEDS):
        live(seed, lived, 0.0, wide, preempts)
    assert lived["attempts that made way"] > before


@pytest.mark.timeout(0)
def test_many_worlds(lived: dict[str, int]) -> None:
    """One seed after another; failures are kept before the first is reported."""
    first = time.time_ns() // 1_000_000 if SOAK_S else 0
    until = time.monotonic() + (SOAK_S or LIMIT_S)
    failures: list[str] = []
    count = 0
    while _goes_on(count, until) and len(failures) < FAILURES:
        try:
            live(first + count, lived)
        except AssertionError as failure:
            keep(first + count)
            failures.append(str(failure))
        count += 1
    assert count >= SEEDS_AT_LEAST or failures
    assert not failures, f"{len(failures)} of {count} seeds failed, kept in {CORPUS.name}/:\n" + "\n".join(failures)
