"""Limits: how many more attempts of a line may go to nodes, and which limit holds it where none may.

A batch counts in the counters of its user, the user's group, its account, its service, itself and the hub, as far as
the policy limits these. Where its service has a limit of its own on a thing, that one counts instead of those of user,
group and account, and the batch does not count in theirs. A sent attempt counts from its grant on.

The soft limit holds while others wait that are within theirs, the hard one always.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from lanai.core.batches import Batch
from lanai.core.schedule import access
from lanai.core.schedule.considered import Considered
from lanai.core.schedule.counters import AMOUNTS, CPU_SECONDS, MILLI_US, WAITING, Counter
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.batch import BatchSettings
from lanai.model.policy import DEFAULT_SERVICE, NO_LIMITS, UNLIMITED, Bound, Limits, ServicePolicy
from lanai.model.resources import Shape
from lanai.model.units import format_bytes

THINGS: Final = (*AMOUNTS, CPU_SECONDS, WAITING)
OVERRIDDEN: Final = ("user", "group", "account")
"""Whose limits give way to those of a service."""
RECOUNT_US: Final = 100_000
RECOUNT_GRANT_US: Final = 40
"""Outstanding cpu-seconds are counted anew when the last count is so old, and so much for each grant, which takes 1 or
2 us: so it takes a twentieth of the time at most."""
_NONE: Final = Bound()


def attach(world: World, batch: Batch) -> None:
    """Have the batch count where it belongs, with what it has at nodes; also when it belonged elsewhere before."""
    for counter in batch.counters:
        _book_all(batch, counter, -1)
    found = list(_counters(world, batch))
    batch.counters = tuple(counter for counter in found if counter.thing != WAITING)
    batch.queues = tuple(counter for counter in found if counter.thing == WAITING)
    for counter in batch.counters:
        _book_all(batch, counter, 1)
        world.is_limited = True


def attach_supposed(world: World, batch: Batch) -> None:
    """Have a batch that nobody has submitted count where it would belong; nothing is remembered of that."""
    there = set(world.counters)
    batch.counters = tuple(counter for counter in _counters(world, batch) if counter.thing != WAITING)
    for counter in batch.counters:
        if counter.kind == "batch":
            counter.name = ""  # its number is not given yet
    for key in [key for key in world.counters if key not in there]:
        del world.counters[key]


def rebuild(world: World) -> None:
    """Make all counters anew: the policy is another one."""
    world.counters.clear()
    world.is_limited = False
    for batch in (*world.batches.values(), *(arriving.opened for arriving in world.arriving.values())):
        batch.counters = ()
        attach(world, batch)
    world.needs_pass = True


def room(world: World, line: Line, *, hard: bool) -> int:
    """How many more attempts of the line may go to nodes now, 0 or more: by its batch's own limit and all others.

    `hard`: by the hard limits; else by the soft ones, which never allow more.
    """
    batch = world.batches[line.batch]
    most = batch.room()
    for counter in batch.counters:
        most = min(most, _more(world, counter, line, hard=hard))
    return max(0, most)


def blocked_by(world: World, line: Line, considered: Considered | None = None) -> tuple[str, str] | None:
    """Which limit holds the line, as a code and in words with numbers; None where none does.

    Hard limits are named first. `considered` is the pass's, where those on waiting jobs are to be looked at as well.
    """
    batch = world.batches[line.batch]
    if batch.room() <= 0:
        return "max_running", f"its batch already runs its limit of {batch.max_running} jobs at once"
    for hard in (True, False):
        for counter in batch.counters:
            if _more(world, counter, line, hard=hard) < 1:
                return _code(counter), _words(world, counter, line, hard=hard)
        full = considered.full(line, hard=hard) if considered else None
        if full is not None:
            which = f"of the waiting jobs of {_whose(full)} the first {full.most(hard=hard)} are considered"
            return _code(full), f"{which} ({_bounds(full)}), and this one comes later"
    return None


def keep(world: World, line: Line) -> None:
    """The line's turn has come, and a hard limit holds it: what falls of that is for its head, and then for others.

    Else those who need less of a limit would take whatever falls, and who needs more would wait without bound. Of
    several limits one after the other is kept for it, in an order that is the same for all: so no two lines wait for
    each other. Who comes first keeps his place, but for a higher tier.
    """
    for counter in world.batches[line.batch].counters:
        keeper = counter.kept_for
        if keeper is not None and _kept(world, counter, line) and _tier(world, keeper) >= _tier(world, line):
            return
        if _each(world, counter, line) > counter.most(hard=True):
            return  # it never will have enough
        counter.kept_for = line
        if _more(world, counter, line, hard=True) < 1:
            return


def release(world: World, line: Line) -> bool:
    """The line waits for something else than a hard limit and room: nothing is kept for it. Whether anything was."""
    kept = [counter for counter in world.batches[line.batch].counters if counter.kept_for is line]
    for counter in kept:
        counter.kept_for = None
    return bool(kept)


def holding(world: World, line: Line) -> Counter | None:
    """The first limit, hard ones alone, that lets no further attempt of the line start now; None: none does."""
    for counter in world.batches[line.batch].counters:
        if _more(world, counter, line, hard=True) < 1:
            return counter
    return None


def tightest(world: World, line: Line) -> tuple[int, Counter] | None:
    """How many more attempts of the line the hard limits let start, 0 or more, and which of them is the first to hold.

    None where none of them limits it.
    """
    rooms = [(max(0, _more(world, each, line, hard=True)), each) for each in world.batches[line.batch].counters]
    most, counter = min(rooms, key=lambda room: room[0], default=(UNLIMITED, None))
    return (most, counter) if counter is not None and most < UNLIMITED else None


def named(world: World, counter: Counter, line: Line) -> str:
    """What a limit comes to that holds the line, in words with numbers."""
    return _words(world, counter, line, hard=True)


def never(world: World, batch: Batch, settings: BatchSettings | None = None) -> str:
    """Why some job of the batch that waits could not start even if nothing else ran; empty: each could.

    `settings`: those that the batch is to have; None: those that it has.
    """
    counters = batch.counters if settings is None else tuple(_counters(world, batch, settings))
    service = world.policy.service((settings or batch.settings).service)
    lines = [line for line in batch.lines.values() if line.waiting]
    found = (_beyond(counters, line.shape) or _too_long(counters, service, line) for line in lines)
    return next((text for text in found if text), "")


def beyond(batch: Batch, shape: Shape) -> str:
    """Why a job of this shape could not, by what it asks for."""
    return _beyond(batch.counters, shape)


def _beyond(counters: Iterable[Counter], shape: Shape) -> str:
    for counter in counters:
        amount = AMOUNTS.get(counter.thing)
        if amount is not None and amount(shape) > counter.bound.hard:
            return _refusal(counter, amount(shape))
    return ""


def _too_long(counters: Iterable[Counter], service: ServicePolicy, line: Line) -> str:
    """Why it could not, by the cpu-seconds that it is thought to take. A prediction refuses none."""
    if service.estimates == "predicted":
        return ""
    length_us = line.shape.time_limit_us or line.mean_run_us or service.estimate_us
    needs = AMOUNTS["cpus"](line.shape) * length_us
    for counter in counters:
        if counter.thing == CPU_SECONDS and needs > counter.most(hard=True):
            return _refusal(counter, needs) + ("" if line.shape.time_limit_us else "; it has no --time")
    return ""


def _refusal(counter: Counter, needs: int) -> str:
    asked, most = _shown(counter, needs), _shown(counter, counter.most(hard=True))
    return f"a job needs {asked}{_unit(counter)}, and {_whose(counter)} may have at most {most}"


def facts(world: World, batch: Batch) -> list[str]:
    """How the counters stand that the batch counts in."""
    found = []
    for counter in batch.counters:
        used = _shown(counter, _used(world, counter))
        found.append(f"{_whose(counter)} has {used}{_unit(counter)}{_still(counter)} ({_bounds(counter)})")
    return found


class Standing(NamedTuple):
    """How one limit stands to one line, in the unit of `Counter.used`.

    Attributes:
        counter: the limit.
        whose: in words.
        used: what is at nodes now.
        each: what a job of the line needs.
        kept: what of the limit is kept for the line `keeper`; 0 where nothing is.
    """

    counter: Counter
    whose: str
    used: int
    each: int
    kept: int
    keeper: Line | None

    def left(self, *, hard: bool) -> int:
        """What a job of the line could have; may be negative."""
        return self.counter.most(hard=hard) - self.used - self.kept

    @property
    def is_holding(self) -> bool:
        """Whether it holds the line, at least as a soft one. Of waiting jobs the pass alone knows; it has said so."""
        return self.counter.thing == WAITING or self.left(hard=False) < self.each

    def number(self, amount: int) -> str:
        """So much, without saying of what."""
        return _shown(self.counter, amount)

    def text(self, amount: int) -> str:
        """So much of the thing, in words."""
        return self.number(amount) + _unit(self.counter)


def standing(world: World, line: Line) -> Standing | None:
    """The limit that the line's reason names, as it stands now; None where that is another kind of reason."""
    batch = world.batches[line.batch]
    counter = next((each for each in (*batch.counters, *batch.queues) if _code(each) == line.reason), None)
    if counter is None:
        return None
    if counter.thing == WAITING:
        return Standing(counter, _whose(counter), 0, 1, 0, None)
    kept, each = _kept(world, counter, line), _each(world, counter, line)
    return Standing(counter, _whose(counter), _used(world, counter), each, kept, counter.kept_for if kept else None)


def others_holding(world: World, line: Line, but: Counter) -> list[str]:
    """In words, the other hard limits that let no further attempt of the line start now either."""
    counters = [counter for counter in world.batches[line.batch].counters if counter is not but]
    return [named(world, each, line) for each in counters if _more(world, each, line, hard=True) < 1]


def room_with(world: World, line: Line, settings: BatchSettings) -> int:
    """How many more attempts of the line the hard limits would let start if its batch had these settings."""
    counters = _counters(world, world.batches[line.batch], settings)
    return min((_more(world, each, line, hard=True) for each in counters), default=UNLIMITED)


def wake_for_time(world: World) -> None:
    """What is outstanding falls as time passes, without anything else happening: then a pass is wanted."""
    for batch in world.batches.values():
        if batch.counters and batch.waiting and any(counter.thing == CPU_SECONDS for counter in batch.counters):
            world.needs_pass = True
            return


def check(world: World) -> None:
    """Raise AssertionError where a counter differs from what the grants say. For tests."""
    counted = {counter: 0 for batch in world.batches.values() for counter in batch.counters}
    counted.update(dict.fromkeys(world.counters.values(), 0))
    for grant in world.grants.values():
        for counter in grant.batch.counters:
            if counter.thing in AMOUNTS:
                counted[counter] += len(grant.members) * AMOUNTS[counter.thing](grant.line.shape)
    for counter, count in counted.items():
        assert counter.thing not in AMOUNTS or counter.used == count, (counter.kind, counter.name, counter.thing)


# -- who counts where


def _counters(world: World, batch: Batch, settings: BatchSettings | None = None) -> Iterator[Counter]:
    """Those that the batch counts in; or would, if its settings were these."""
    settings = settings or batch.settings
    own = world.policy.service(settings.service).limits
    for kind, name, limits in _credentials(world, batch, settings):
        for thing in THINGS if limits is not NO_LIMITS else ():
            bound = _bound(limits, thing)
            if bound != _NONE and not (kind in OVERRIDDEN and _bound(own, thing) != _NONE):
                yield _counter(world, kind, name, thing, bound)


def _counter(world: World, kind: str, name: str, thing: str, bound: Bound) -> Counter:
    if kind == "batch":
        return Counter(kind, name, thing, bound)  # goes with the batch
    found = world.counters.get((kind, name, thing))
    if found is None:
        found = world.counters[kind, name, thing] = Counter(kind, name, thing, bound)
        found.counted_us = world.now_us
    return found


def _credentials(world: World, batch: Batch, settings: BatchSettings) -> Iterator[tuple[str, str, Limits]]:
    policy = world.policy
    yield "batch", str(batch.id), policy.batch_limits
    yield "user", batch.user, policy.user(batch.user).limits
    group = policy.group_of(batch.user)
    if group:
        yield "group", group, policy.groups[group].limits
    account = policy.account_of(batch.user, settings.account)
    yield "account", account, policy.account(account).limits
    yield "service", settings.service or DEFAULT_SERVICE, policy.service(settings.service).limits
    yield "hub", "", policy.limits


def _bound(limits: Limits, thing: str) -> Bound:
    bound: Bound = getattr(limits, thing)
    return bound


def _book_all(batch: Batch, counter: Counter, sign: int) -> None:
    for line in batch.lines.values():
        if line.sent:
            counter.book(line, sign * line.sent)
            counter.counted_us = -1


# -- what is left


def _more(world: World, counter: Counter, line: Line, *, hard: bool) -> int:
    """How many more of the line the counter allows; a job that has nothing of the thing is not limited by it."""
    each = _each(world, counter, line)
    if not each:
        return UNLIMITED
    return (counter.most(hard=hard) - _used(world, counter) - _kept(world, counter, line)) // each


def _tier(world: World, line: Line) -> int:
    return world.policy.service(world.batches[line.batch].settings.service).tier


def _kept(world: World, counter: Counter, line: Line) -> int:
    """What is kept of the limit for another line than this one; nothing any more for one that it is no use to."""
    keeper = counter.kept_for
    if keeper is None or keeper is line:
        return 0
    batch = world.batches.get(keeper.batch)
    if batch is not None and batch.is_open and keeper.waiting and not access.is_out(world, batch):
        each = _each(world, counter, keeper)
        if counter in batch.counters and each <= counter.most(hard=True):
            return each
    counter.kept_for = None
    return 0


def _each(world: World, counter: Counter, line: Line) -> int:
    amount = AMOUNTS.get(counter.thing)
    if amount is not None:
        return amount(line.shape)
    return AMOUNTS["cpus"](line.shape) * estimate_us(world, line)


def _used(world: World, counter: Counter) -> int:
    if counter.thing != CPU_SECONDS:
        return counter.used
    stale_us = max(RECOUNT_US, RECOUNT_GRANT_US * len(world.grants))
    if counter.counted_us < 0 or world.now_us - counter.counted_us >= stale_us:
        _recount(world)
    since = ((line, count) for line, count in counter.since.items() if line.batch in world.batches)
    return counter.used + sum(count * _each(world, counter, line) for line, count in since)


def _recount(world: World) -> None:
    """Count outstanding cpu-seconds anew, for all whose they are, in one walk over the grants."""
    owed = outstanding(world)
    everywhere = (counter for batch in world.batches.values() for counter in batch.counters)
    for counter in (*world.counters.values(), *everywhere):
        if counter.thing == CPU_SECONDS:
            counter.used = owed.get(counter, 0)
            counter.counted_us = world.now_us
            counter.since.clear()


def outstanding(world: World) -> dict[Counter, int]:
    """Thousandths of a cpu times microseconds that attempts are still thought to take, of each counter that has any.

    One that is not known to have begun is still to take all of its estimate.
    """
    owed: dict[Counter, int] = {}
    estimates: dict[Line, int] = {}

    def add(line: Line, counters: Iterable[Counter], time_us: int) -> None:
        for counter in counters:
            if counter.thing == CPU_SECONDS:
                owed[counter] = owed.get(counter, 0) + AMOUNTS["cpus"](line.shape) * time_us

    # By what is booked: a pass books what it starts before it makes the grants.
    for batch in world.batches.values():
        for line in batch.lines.values() if any(counter.thing == CPU_SECONDS for counter in batch.counters) else ():
            estimates[line] = estimate_us(world, line)
            add(line, batch.counters, line.sent * estimates[line])
    for grant in world.grants.values():
        if grant.started and grant.line in estimates:
            ran_us = (max(0, world.wall_us - began_us) for began_us in grant.started.values())
            add(grant.line, grant.batch.counters, -sum(min(estimates[grant.line], each_us) for each_us in ran_us))
    return owed


# -- in words


def _code(counter: Counter) -> str:
    return f"limit_{counter.kind}_{counter.thing}"


def _whose(counter: Counter) -> str:
    if not counter.name:
        return "the hub" if counter.kind == "hub" else "each batch"
    return f"{counter.kind} {counter.name}"


def _words(world: World, counter: Counter, line: Line, *, hard: bool) -> str:
    used, most = _shown(counter, _used(world, counter)), _shown(counter, counter.most(hard=hard))
    keeper = counter.kept_for
    is_left = counter.most(hard=hard) - _used(world, counter) >= _each(world, counter, line)
    if keeper is not None and is_left and _kept(world, counter, line):
        kept = _shown(counter, _each(world, counter, keeper))
        whose = f"{kept}{_unit(counter)} of it are kept for batch {keeper.batch}, which was first"
        return f"{_whose(counter)} has {used} of at most {most}{_unit(counter)}; {whose}"
    if counter.thing == "jobs":
        return f"{_whose(counter)} runs {used} of at most {most} jobs ({_bounds(counter)})"
    needs = _shown(counter, _each(world, counter, line))
    has = f"{_whose(counter)} has {used} of at most {most}{_unit(counter)}{_still(counter)}"
    return f"{has} ({_bounds(counter)}), and this needs {needs}"


def _unit(counter: Counter) -> str:
    return " cpu-seconds" if counter.thing == CPU_SECONDS else f" {counter.thing}"


def _still(counter: Counter) -> str:
    return " still to take" if counter.thing == CPU_SECONDS else " at nodes"


def _bounds(counter: Counter) -> str:
    return ", ".join(
        f"{name} {_shown(counter, counter.most(hard=hard)) if bound < UNLIMITED else 'none'}"
        for name, bound, hard in (("soft", counter.bound.soft, False), ("hard", counter.bound.hard, True))
    )


def _shown(counter: Counter, amount: int) -> str:
    match counter.thing:
        case "memory":
            return format_bytes(amount << 20)
        case "cpus" | "gpus":
            return f"{amount / 1000:g}"
        case "cpu_seconds":
            return str(-(-amount // MILLI_US))
        case _:
            return str(amount)
