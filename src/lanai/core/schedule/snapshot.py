"""What objects hold, so that all of it can be put back: for a pass that is only rehearsed.

Every attribute is remembered, whatever it is called, and of dicts, lists, sets and deques what they hold, in its order.
What these hold is not looked into: who may be changed is named by himself. Putting back keeps each container, which
others may know as well. It is made for tens of thousands of objects: of an empty container nothing is copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, cast

_CONTAINERS: Final = frozenset((dict, list, set, deque))

class Snapshot:
    """What these objects hold now.

    Args:
        objects: each once.
        but: names of attributes whose contents are left out, because they are large and never changed by a pass.
    """

    def __init__(self, objects: Iterable[object], but: frozenset[str] = frozenset()) -> None:
        slots: dict[type, tuple[str, ...]] = {}
        self._slotted: list[tuple[object, dict[str, object]]] = []
        self._open: list[tuple[dict[str, object], dict[str, object]]] = []
        """Of objects with a dict: that, and a copy of it."""
        self._empty: list[object] = []
        self._full: list[object] = []
        """Containers, and"""
        self._contents: list[object] = []
        """copies of those that held something."""
        for each in objects:
            kind = type(each)
            if kind not in slots:
                slots[kind] = _slots(kind)
            if slots[kind]:
                held = {name: getattr(each, name) for name in slots[kind]}
                self._slotted.append((each, held))
                self._keep(held, but)
            own: dict[str, object] | None = getattr(each, "__dict__", None)
            if own is not None:
                self._open.append((own, own.copy()))
                self._keep(own, but)

    def _keep(self, held: dict[str, object], but: frozenset[str]) -> None:
        for name, value in held.items():
            if type(value) in _CONTAINERS and name not in but:
                if value:
                    self._full.append(value)
                    self._contents.append(_copied(value))
                else:
                    self._empty.append(value)

    def put_back(self) -> None:
        """Let all of them hold again what they held."""
        for each, held in self._slotted:
            for name, value in held.items():
                setattr(each, name, value)
        for own, before in self._open:
            own.update(before)
        for container in self._empty:
            if container:
                _refill(container, ())
        for container, content in zip(self._full, self._contents, strict=True):
            _refill(container, content)


def _slots(kind: type) -> tuple[str, ...]:
    """The names of all slots of a class, its parents' included."""
    return tuple(name for each in kind.__mro__ for name in getattr(each, "__slots__", ()))


def _copied(container: object) -> object:
    match container:
        case dict() | list() | set() | deque():
            return container.copy()
        case _:
            return ()


def _refill(container: object, content: object) -> None:
    """A container holds what another of its kind, or nothing at all, holds."""
    match container:
        case dict():
            container.clear()
            container.update(cast("dict[object, object]", content))
        case set():
            container.clear()
            container.update(cast("set[object]", content))
        case list() | deque():
            container.clear()
            container.extend(cast("list[object]", content))
