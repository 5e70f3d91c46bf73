"""All that a hub's core holds, in plain values that can be compared."""

from __future__ import annotations

from collections import deque

import msgspec

from lanai.core.hub import HubCore
from lanai.core.schedule.cells import Cell


def dump(thing: object, seen: dict[int, int]) -> object:
    """All that hangs from an object, in plain values. The same object is named by when it was met first."""
    if thing is None or isinstance(thing, (int, float, str, bytes)):
        return thing
    if id(thing) in seen:
        return f"#{seen[id(thing)]}"
    seen[id(thing)] = len(seen)
    if isinstance(thing, Cell):  # nodes stand there in the order of their last change, which decides nothing
        content = sorted((int(node.id), thing._indexed[node.id], thing._places[node.id]) for node in thing.nodes())
        return content, dump(thing.tickets, seen), thing.ended
    if isinstance(thing, dict):
        return [(dump(key, seen), dump(value, seen)) for key, value in thing.items()]
    if isinstance(thing, (set, frozenset)):
        return sorted(map(repr, thing))
    if isinstance(thing, (list, tuple, deque)):
        return [dump(each, seen) for each in thing]
    if callable(thing):
        return getattr(thing, "__qualname__", "callable")
    names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    names += list(getattr(thing, "__dict__", ()))
    if isinstance(thing, msgspec.Struct):
        names = list(thing.__struct_fields__)
    return type(thing).__name__, [(name, dump(getattr(thing, name), seen)) for name in names]


def state(core: HubCore) -> object:
    return dump(core.world, {})
