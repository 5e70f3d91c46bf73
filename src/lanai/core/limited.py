"""What would let a job start that a limit holds: what has to end, what could be asked for instead, who could raise it.

Each piece of advice is a sentence that could be acted on. The limit is the one that the job's reason names; how it
stands is as of now.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from lanai.core import credentials
from lanai.core.batches import Batch
from lanai.core.schedule import limits
from lanai.core.schedule.counters import CPU_SECONDS, MILLI_US, WAITING, Counter
from lanai.core.schedule.forecast import LOOKED_AT, ends
from lanai.core.schedule.limits import Standing
from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.policy import DEFAULT_SERVICE, EVERYONE, NO_ACCOUNT, UNLIMITED
from lanai.model.units import format_duration

_OPTIONS: Final = {"cpus": "--cpus", "memory": "--memory", "gpus": "--gpus", "nodes": "--nodes"}
_USUAL: Final = (DEFAULT_SERVICE, NO_ACCOUNT)
_TABLES: Final = {"user": "users", "group": "groups", "account": "accounts", "service": "services"}


def changes(world: World, batch: Batch, line: Line, found: Standing) -> Iterator[str]:
    """What would change that the limit holds the line."""
    if found.counter.thing == WAITING:
        yield f"when one of the waiting jobs of {found.whose} that are in front of it has started"
        yield _raised(world, found.counter, found.counter.bound.soft + 1)
        return
    if found.keeper is not None:
        yield f"when batch {found.keeper.batch}, which was first, has what is kept of the limit for it"
    is_soft = found.left(hard=True) >= found.each
    if is_soft:
        yield "beyond the soft limit it starts when nobody who is within his own waits for that room"
    elif found.used:
        yield _ended(world, found)
    yield from _within(line, found)
    yield from _elsewhere(world, batch, line, found.counter)
    needs = found.used + found.kept + found.each
    for text in limits.others_holding(world, line, found.counter):
        yield f"besides, another limit is not to hold it: {text}"
    yield _raised(world, found.counter, -(-needs // MILLI_US) if found.counter.thing == CPU_SECONDS else needs)


def _ended(world: World, found: Standing) -> str:
    """What has to end, and what of it does so first."""
    missing = found.each - found.left(hard=True)
    if found.counter.thing == CPU_SECONDS:
        owed = f"the {found.text(found.used)} that {found.whose} has still to take"
        what = f"when {owed} are {found.number(missing)} fewer"
    elif found.counter.thing == "jobs":
        which = "the one job" if found.used == 1 else f"one of the {found.text(found.used)}"
        what = f"when {which} of {found.whose} at nodes has ended"
    else:
        part = found.number(missing)
        what = f"when {part} of the {found.text(found.used)} that {found.whose} has at nodes come free"
    counting = (
        (at_us, line.batch, node.name)
        for node in world.nodes.values()
        for at_us, line in ends(world, node)
        if found.counter in world.batches[line.batch].counters
    )
    first = min(islice(counting, LOOKED_AT), default=None)
    if first is None:
        return f"{what}; nothing says when the first does: what runs has no time limit"
    at_us, batch, node = first
    return f"{what}; a job of batch {batch} on {node} is the first, in {format_duration((at_us - world.now_us) / 1e6)}"


def _within(line: Line, found: Standing) -> Iterator[str]:
    """A request that the limit would let start now."""
    left, thing = found.left(hard=True), found.counter.thing
    if not 0 < left < found.each:
        return
    if thing == CPU_SECONDS:
        left_s = left / (line.shape.cpu_milli * line.shape.nodes) / 1e6
        yield f"with --time of at most {format_duration(left_s)} it would be within the limit"
    elif thing == "nodes":
        yield f"with --nodes {left} it would be within the limit"
    elif thing in _OPTIONS and left // line.shape.nodes:
        each = " on each of its nodes" if line.shape.nodes > 1 else ""
        yield f"with at most {found.text(left // line.shape.nodes)}{each} it would be within the limit"


def _elsewhere(world: World, batch: Batch, line: Line, counter: Counter) -> Iterator[str]:
    """Another service, or account, that its user may use and whose limits leave room; the usual one before others."""
    policy, settings = world.policy, batch.settings
    if counter.kind == "service":
        names = credentials.services_of(policy, batch.user, batch.account)
        own = settings.service or DEFAULT_SERVICE
    elif counter.kind == "account":
        names, own = credentials.accounts_of(policy, batch.user), batch.account
    else:
        return
    for name in sorted(names, key=lambda name: name not in _USUAL):
        other = msgspec.structs.replace(settings, **{counter.kind: name})
        if name == own or limits.room_with(world, line, other) < 1:
            continue
        if credentials.refusal(policy, batch.user, account=other.account, service=other.service) is None:
            wish = f"`lanai set {batch.id} --{counter.kind} {name}`"
            yield f"{wish} has it count there, where there is room by the limits"
            return


def _raised(world: World, counter: Counter, needs: int) -> str:
    """What an administrator could write, and where: the soft limit alone where the hard one allows as much."""
    value, hard = _value(counter.thing, needs), counter.bound.hard
    if counter.bound.soft < needs <= hard < UNLIMITED:
        value = f"[{value}, {_value(counter.thing, hard)}]"
    wanted = f"`{counter.thing} = {value}` or more under {_table(world, counter)}"
    return f"{wanted} in the policy, which an administrator changes with `lanai policy apply`, is enough for it"


def _value(thing: str, needs: int) -> str:
    """As the policy file has it."""
    if thing == "memory":
        return f'"{needs}M"'
    return f"{needs / 1000:g}" if thing in ("cpus", "gpus") else str(needs)


def _table(world: World, counter: Counter) -> str:
    if counter.kind == "hub":
        return "[limits]"
    if counter.kind == "batch":
        return "[batch_limits]"
    kind = _TABLES[counter.kind]
    named = getattr(world.policy, kind)
    name = counter.name if counter.name in named else EVERYONE
    return f"[{kind}.{name if name.replace('-', '_').isidentifier() else json.dumps(name)}.limits]"
