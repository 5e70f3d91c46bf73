"""How the pass comes to look at one line before another: tier, turn by shares, and the parts of each head's score.

Questions, which change nothing. They cost by the number of lines, never of jobs.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

import msgspec

from lanai.core.asking import SPANS, block_of, pass_order, reason_of, takes_turns
from lanai.core.batches import Batch
from lanai.core.queue import Span
from lanai.core.schedule.heads import tier
from lanai.core.schedule.lines import Line
from lanai.core.schedule.score import Part, Scorer
from lanai.core.schedule.shares import share_of
from lanai.core.world import World
from lanai.model.ids import BatchId, Index
from lanai.model.policy import DEFAULT_SERVICE, Preset

FEW: Final = 3
"""So many parts of a score a sentence names."""
UNCAPPED: Final = 1e300
"""A cap that lets everything count."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines are wanted.

    Attributes:
        only: the one user whose lines may be told; empty: everybody's.
        user: lines of this user alone; empty: of any.
        batch: lines of this batch alone; 0: of any.
        index: the line alone that this job of the batch waits in; None: all of them.
        skip, most: lines to leave out before, and to tell at most.
    """

    only: str = ""
    user: str = ""
    batch: BatchId = BatchId(0)
    index: Index | None = None
    skip: int = 0
    most: int = 100


class Factor(msgspec.Struct, frozen=True, kw_only=True):
    """One factor of a score: it adds `points`, its weight times its value, of which no more than `cap` counts.

    `cap` None: it has none. `part` is what it makes of the sum of what all factors add or take, 0..1.
    """

    name: str
    value: float
    cap: float | None
    weight: float
    points: float
    part: float


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a line, and where it stands.

    Attributes:
        spans: the first few of the line's ranges of indices, of `pieces`.
        jobs: how many wait in it.
        place: in the order of the pass among all that is eligible, from 1; 0: something blocks it.
        tier: of its service.
        turn: of its batch in the order of shares, from 1, of `turns` batches with something that may start; 0 where
            nothing of it may: it is paused, its date is still to come, or the reservation that it names is not there.
        code, reason: why it waits.
    """

    batch: BatchId
    spans: tuple[Span, ...]
    pieces: int
    jobs: int
    user: str
    account: str
    service: str
    name: str
    place: int
    tier: int
    turn: int
    turns: int
    score: float
    factors: list[Factor]
    code: str
    reason: str


class Priorities(msgspec.Struct, frozen=True, kw_only=True):
    """Lines in the order of the pass, those that something blocks last.

    `more` lines that were asked for follow. `lines` is how many of all users are eligible.
    """

    preset: Preset
    rows: list[Ranked]
    more: int
    lines: int


def priorities(world: World, asked: Asked) -> Priorities:
    """Where the lines stand that are asked for."""
    place = pass_order(world)
    eligible: list[Line] = []
    blocked: list[Line] = []
    for batch in world.batches.values():
        for line in batch.lines.values():
            if line.waiting:
                (eligible if block_of(batch, line) == "eligible" else blocked).append(line)
    eligible.sort(key=place)
    places = {line: number for number, line in enumerate(eligible, 1)}
    wanted = [line for line in eligible if _is_wanted(world, line, asked)]
    wanted += sorted((line for line in blocked if _is_wanted(world, line, asked)), key=place)
    upto = asked.skip + asked.most
    ranks = _Ranks(world)
    rows = [ranks.row(line, places.get(line, 0)) for line in wanted[asked.skip : upto]]
    return Priorities(preset=world.policy.preset, rows=rows, more=max(0, len(wanted) - upto), lines=len(eligible))


def score_facts(world: World, batch: Batch, index: Index | None) -> list[str]:
    """The score of the job's line and what makes the most of it, as a fact of `why`.

    None where nothing of it waits for its turn, and in the preset `fair`, which looks at shares first.
    """
    if world.policy.preset != "tight":
        return []
    lines = [line for line in batch.lines.values() if line.waiting and (index is None or index in line.waiting)]
    line = min(lines, key=lambda line: line.waiting.head(), default=None)
    if line is None or block_of(batch, line) != "eligible":
        return []
    ranks = _Ranks(world)
    first = [factor for factor in factors_of(ranks.scorer.parts(batch, line)) if factor.points]
    first.sort(key=lambda factor: -abs(factor.points))
    parts = ", ".join(f"{factor.name} {factor.points:.3g}" for factor in first[:FEW])
    rest = f" and {len(first) - FEW} more" if len(first) > FEW else ""
    return [f"its score is {ranks.scorer.score(batch, line):.3g}: {parts or 'no factor counts'}{rest}"]


def factors_of(parts: list[Part]) -> list[Factor]:
    """The parts of a score as they are told."""
    whole = sum(abs(part.points) for part in parts)
    return [
        Factor(
            name=part.name,
            value=part.value,
            cap=part.cap if part.cap < UNCAPPED else None,
            weight=part.weight,
            points=part.points,
            part=abs(part.points) / whole if whole else 0.0,
        )
        for part in parts
    ]


def _is_wanted(world: World, line: Line, asked: Asked) -> bool:
    batch = world.batches[line.batch]
    if (asked.only and batch.user != asked.only) or (asked.user and batch.user != asked.user):
        return False
    if asked.batch and batch.id != asked.batch:
        return False
    return asked.index is None or asked.index in line.waiting


class _Ranks:
    """Shares and scores as of now."""

    def __init__(self, world: World) -> None:
        self._world = world
        shares = share_of(batch for batch in world.batches.values() if takes_turns(world, batch))
        self._turns = {batch: number for number, batch in enumerate(shares, 1)}
        self.scorer = Scorer(world, shares, world.total)

    def row(self, line: Line, place: int) -> Ranked:
        """The line as it is told."""
        world = self._world
        batch = world.batches[line.batch]
        code, reason = reason_of(batch, line)
        return Ranked(
            batch=batch.id,
            spans=tuple(islice(line.waiting, SPANS)),
            pieces=line.waiting.pieces,
            jobs=line.waiting.count,
            user=batch.user,
            account=world.policy.account_of(batch.user, batch.settings.account),
            service=batch.settings.service or DEFAULT_SERVICE,
            name=batch.settings.name,
            place=place,
            tier=tier(world, batch),
            turn=self._turns.get(batch.id, 0),
            turns=len(self._turns),
            score=self.scorer.score(batch, line),
            factors=factors_of(self.scorer.parts(batch, line)),
            code=code,
            reason=reason,
        )
