"""Holds: who keeps jobs from starting, since when, until when.

A job is held by its user, or by an operator (anybody else who may), whose hold its user cannot lift. The hub holds a
whole batch where it pauses it. A timed hold ends by itself.

Which jobs are held stands in `Batch.held`, and of those at nodes in `Batch.hold_wishes`. A `Hold` says who holds those
of its spans that are so, and nothing of the rest: jobs leave these sets in many ways, and none has to come by here. In
the store each hold is an override `hold KIND BY`, whose value is when it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from lanai.core.batches import Batch, Hold
from lanai.core.queue import Span, Spans, size, spans_of
from lanai.core.world import SECOND_US, World
from lanai.model.access import Caller, Role
from lanai.model.ids import Index
from lanai.model.moments import format_moment
from lanai.model.records import DropOverrides, HoldRow, SaveOverride

USER: Final = "user"
OPERATOR: Final = "operator"
SYSTEM: Final = "system"
PREFIX: Final = "hold"
AT_ONCE_US: Final = 10 * SECOND_US
"""Wishes of one person within so long are one hold, where they end together."""


class Wish(NamedTuple):
    """Somebody wants jobs held: who, when he said so, and until when (0: until they are released)."""

    caller: Caller | None
    at_us: int
    until_us: int


def put(world: World, batch: Batch, wanted: Sequence[Span], wish: Wish, *, anew: bool) -> int:
    """Say who holds these from now on. To be called before they join those that are held.

    `anew`: also those that are held already; but what an operator holds is not the user's to hold. Returns how many
    of those are now held by another, or until another time.
    """
    _, at_us, until_us = wish
    by = wish.caller.user if wish.caller else batch.user
    kind = OPERATOR if by != batch.user and _is_operator(wish.caller) else USER
    kept = [hold for hold in batch.holds if (hold.kind, hold.by, hold.until_us) == (kind, by, until_us)]
    kept += [hold for hold in batch.holds if hold.kind == OPERATOR and kind == USER]
    mine = Spans.of(wanted)
    for first, last in _held_by(batch, kept, wanted) if anew else _already_of(batch, wanted):
        mine.remove(first, last)
    changed = size(_already_of(batch, mine.spans()))
    if mine:
        _add(world, batch, Hold(kind, by, at_us, until_us, mine))
    return changed


def hold_all(world: World, batch: Batch, wish: Wish) -> None:
    """Hold all jobs of a batch that has just come in."""
    put(world, batch, ((1, batch.total),), wish, anew=False)
    batch.held.merge(batch.dequeue(1, batch.total))
    batch.counts.queued, batch.counts.held = 0, batch.total


def pause(world: World, batch: Batch) -> None:
    """The hub itself has paused the batch, whose `reason` says why."""
    batch.holds.append(Hold(SYSTEM, "", world.wall_us, 0, Spans([(1, batch.total)])))
    world.keep(SaveOverride(batch.id, 1, batch.total, _what(SYSTEM, ""), 0, world.wall_us))


def resume(world: World, batch: Batch) -> None:
    """The batch is no longer paused."""
    batch.holds = [hold for hold in batch.holds if hold.kind != SYSTEM]
    world.keep(DropOverrides(batch.id, 1, batch.total, _what(SYSTEM, "")))


def releasable(batch: Batch, wanted: Sequence[Span], caller: Caller | None) -> Spans:
    """Those of the jobs that the caller may release: all, but for a user those that an operator holds."""
    found = Spans.of(wanted)
    if caller is None or _is_operator(caller):
        return found
    for first, last in _held_by(batch, [hold for hold in batch.holds if hold.kind == OPERATOR], wanted):
        found.remove(first, last)
    return found


def still_held(batch: Batch, retried: Sequence[Span], caller: Caller | None) -> list[Span]:
    """Those of the jobs that an operator has held: cancelled and tried again by their user, they are held as before."""
    if caller is None or _is_operator(caller):
        return []
    holds = [hold for hold in batch.holds if hold.kind == OPERATOR]
    return sorted(span for hold in holds for first, last in retried for span in hold.spans.within(first, last))


def _is_operator(caller: Caller | None) -> bool:
    return caller is not None and caller.role is not None and caller.role.reaches(Role.OPERATOR)


def let_go(world: World, batch: Batch, spans: Iterable[Span], *, at_nodes: bool = True, held: bool = True) -> int:
    """These are held no longer; returns how many of them waited. `at_nodes`, `held`: of which of the two kinds."""
    freed: list[Span] = []
    for first, last in spans:
        if held:
            freed += batch.held.remove(first, last)
            _forget(world, batch, first, last)
        if at_nodes and batch.hold_wishes:
            batch.hold_wishes -= {index for index in batch.hold_wishes if first <= index <= last}
    batch.enqueue(freed)
    changed = size(freed)
    batch.counts.held -= changed
    batch.counts.queued += changed
    return changed


def release_due(world: World, batch: Batch) -> None:
    """Holds whose time is over end."""
    for hold in [hold for hold in batch.holds if 0 < hold.until_us <= world.wall_us]:
        changed = let_go(world, batch, hold.spans.spans())
        world.tell("hold_ended", str(batch.id), f"{changed} jobs that {hold.by} held until now may start")
        world.keep(batch.progress(world.last_row))
        world.touch(batch)
        world.needs_pass = True


def recover(world: World, batch: Batch, rows: Sequence[HoldRow]) -> None:
    """Take over what the store has of them; those whose time is over are looked at when time passes next."""
    by_who: dict[tuple[str, int, int], list[Span]] = {}
    for what, first, last, until_us, at_us in rows:
        by_who.setdefault((what, at_us, until_us), []).append((first, last))
    for (what, at_us, until_us), spans in by_who.items():
        _, kind, by = what.split(" ", 2)
        batch.holds.append(Hold(kind, by, at_us, until_us, Spans.of(spans)))
        if until_us:
            world.wake_at(batch.id, until_us)


def of_job(batch: Batch, index: Index) -> Hold | None:
    """Who holds a job that is held; None where that is not known, as of one that was held by an older version."""
    return next((hold for hold in batch.holds if hold.kind != SYSTEM and index in hold.spans), None)


def of_pause(batch: Batch) -> Hold | None:
    """The hub's own hold."""
    return next((hold for hold in batch.holds if hold.kind == SYSTEM), None)


def words(batch: Batch, hold: Hold | None) -> str:
    """A hold for people: who, since when, until when, and who can lift it."""
    release = f"`lanai release {batch.id}`"
    if hold is None:
        return f"held; {release} lets it run"
    if hold.kind == OPERATOR:
        return f"held by {_who(hold)}; an operator lets it run: {release}"
    return f"held by {_who(hold)}; {release} lets it run"


def words_of_all(batch: Batch) -> str:
    """The same of all of the batch that is held. Costs by the number of holds, not of jobs."""
    people = [hold for hold in batch.holds if hold.kind != SYSTEM]
    if len(people) > 1:
        return f"held in {len(people)} parts, by different people or until different times: `lanai why {batch.id}/N`"
    return words(batch, people[0] if people else None)


def facts(batch: Batch) -> list[str]:
    """What people hold of the batch: how many jobs each."""
    found = []
    for hold in batch.holds:
        held = 0 if hold.kind == SYSTEM else size(_already_of(batch, hold.spans.spans()))
        if held:
            found.append(f"{held} held by {_who(hold)}")
    return found


def _who(hold: Hold) -> str:
    who = f"the operator {hold.by}" if hold.kind == OPERATOR else hold.by
    times = (("since", hold.since_us), ("until", hold.until_us))
    return who + "".join(f" {word} {format_moment(at_us)}" for word, at_us in times if at_us)


def _held_by(batch: Batch, holds: Sequence[Hold], wanted: Sequence[Span]) -> list[Span]:
    """Those of the jobs that are held, and by one of these holds."""
    within = [span for hold in holds for first, last in wanted for span in hold.spans.within(first, last)]
    return _already_of(batch, within)


def _already_of(batch: Batch, wanted: Sequence[Span]) -> list[Span]:
    """Those of the jobs that are held, or are to be as they come back from their nodes."""
    sources = [batch.held, Spans.of(spans_of(batch.hold_wishes))] if batch.hold_wishes else [batch.held]
    return [span for source in sources for first, last in wanted for span in source.within(first, last)]


def _add(world: World, batch: Batch, new: Hold) -> None:
    """The jobs of `new` are held by nobody else any more. What is wished in many pieces is one hold in the end."""
    for first, last in new.spans:
        _forget(world, batch, first, last)
    for hold in batch.holds:
        if hold[:2] == new[:2] and hold.until_us == new.until_us and new.since_us - hold.since_us < AT_ONCE_US:
            hold.spans.merge(list(new.spans))
            new = new._replace(since_us=hold.since_us)
            break
    else:
        batch.holds.append(new)
        if new.until_us:
            world.wake_at(batch.id, new.until_us)
    for first, last in new.spans:
        world.keep(SaveOverride(batch.id, first, last, _what(new.kind, new.by), new.until_us, new.since_us))


def _forget(world: World, batch: Batch, first: int, last: int) -> None:
    """Nobody holds these."""
    for hold in batch.holds:
        if hold.kind != SYSTEM and hold.spans.remove(first, last):
            world.keep(DropOverrides(batch.id, first, last, _what(hold.kind, hold.by)))
    batch.holds = [hold for hold in batch.holds if hold.spans]


def _what(kind: str, by: str) -> str:
    return f"{PREFIX} {kind} {by}"
