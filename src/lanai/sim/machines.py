"""The machine of a replay as a list of nodes, read from text: lines `name cpus memory gpus features`, or TOML.

The policies of replays know one machine of P equal processors: for them the nodes are their cpus together, wherever
these are. Memory, gpus and features are read and checked, and do not count.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, TypeVar

import msgspec

from lanai.model.errors import UserError
from lanai.model.policy_lines import no_toml
from lanai.model.units import UnitError, parse_bytes, parse_count

NODES_MOST: Final = 1_000_000
_FIELDS: Final = 5
_CODE: Final = "bad_nodes"
_HINT: Final = "see docs/guide/simulate.md"
_HEAD: Final = re.compile(r"^[ \t]*(\[\[)[ \t]*node[ \t]*\]\]", re.MULTILINE)
T = TypeVar("T")


class MachineNode(msgspec.Struct, frozen=True):
    """A node. `cpus` are 1 or more; `memory_bytes` 0 is not known."""

    name: str
    cpus: int
    memory_bytes: int = 0
    gpus: int = 0
    features: tuple[str, ...] = ()


_Placed: TypeAlias = tuple[str, MachineNode]
"""A node, and where it stands, as `FILE:LINE`."""


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """A `[[node]]` of TOML: `count` nodes alike, which are called by its name and a number if there are several."""

    name: str
    cpus: int
    memory: str | int = 0
    gpus: int = 0
    features: list[str] = []
    count: int = 1


def read_nodes(text: str, file: str) -> list[MachineNode]:
    """The nodes of a file, TOML if its name ends in `.toml`, in its order.

    Raises:
        UserError: what is no node is named with its line; so is a name that comes twice, and no node.
    """
    nodes: dict[str, MachineNode] = {}
    for where, node in _of_toml(text, file) if file.endswith(".toml") else _of_lines(text, file):
        if node.name in nodes:
            raise _bad(where, f"found node {node.name} a second time, accepted is each name once")
        nodes[node.name] = node
    if not nodes:
        raise _bad(file, "found no node, accepted is one `name cpus memory gpus features` a line, or TOML")
    return list(nodes.values())


def cpus_of(nodes: Sequence[MachineNode]) -> int:
    """All cpus together."""
    return sum(node.cpus for node in nodes)


def resized(nodes: Sequence[MachineNode], count: int) -> list[MachineNode]:
    """The first `count` nodes; where that is more than there are, further ones like the commonest (of several, the
    first of the list)."""
    kinds: dict[MachineNode, int] = {}
    for node in nodes:
        kind = msgspec.structs.replace(node, name="")
        kinds[kind] = kinds.get(kind, 0) + 1
    commonest = max(kinds, key=lambda kind: kinds[kind])
    more = [msgspec.structs.replace(commonest, name=f"+{n}") for n in range(1, count - len(nodes) + 1)]
    return [*nodes[:count], *more]


def _of_lines(text: str, file: str) -> Iterator[_Placed]:
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.partition("#")[0].split()
        if fields:
            where = f"{file}:{number}"
            yield where, _of_fields(fields, where)


def _of_fields(fields: list[str], where: str) -> MachineNode:
    if not 2 <= len(fields) <= _FIELDS:
        found = f"{len(fields)} field{'' if len(fields) == 1 else 's'}"
        raise _bad(where, f"found {found}, accepted is `name cpus [memory [gpus [features]]]`")
    name, cpus, memory, gpus, features = [*fields, *["-"] * (_FIELDS - len(fields))]
    return MachineNode(
        name=name,
        cpus=_at_least_one(_value(parse_count, cpus, where, "cpus"), where),
        memory_bytes=0 if memory == "-" else _value(parse_bytes, memory, where, "memory"),
        gpus=0 if gpus == "-" else _value(parse_count, gpus, where, "gpus"),
        features=() if features == "-" else tuple(features.split(",")),
    )


def _of_toml(text: str, file: str) -> Iterator[_Placed]:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(no_toml(text, file, str(error)), code=_CODE, hint=_HINT) from None
    tables = found.get("node")
    if found.keys() != {"node"} or not isinstance(tables, list):
        raise _bad(file, f"found {', '.join(found) or 'nothing'}, accepted are tables [[node]] and nothing else")
    lines = [text.count("\n", 0, head.start(1)) + 1 for head in _HEAD.finditer(text)]
    for place, table in enumerate(tables, 1):
        where = f"{file}:{lines[place - 1]}" if len(lines) == len(tables) else f"{file}: node {place}"
        for node in _of_table(table, where):
            yield where, node


def _of_table(table: object, where: str) -> Iterator[MachineNode]:
    try:
        node = msgspec.convert(table, _Table)
    except msgspec.ValidationError as error:
        raise _bad(where, f"{error}; accepted are {', '.join(_Table.__struct_fields__)}") from None
    if node.gpus < 0:
        raise _bad(where, f"found gpus = {node.gpus}, accepted is 0 or more")
    if not 1 <= node.count <= NODES_MOST:
        raise _bad(where, f"found count = {node.count}, accepted is 1 to {NODES_MOST}")
    cpus = _at_least_one(node.cpus, where)
    memory = _value(parse_bytes, str(node.memory), where, "memory")
    for n in range(1, node.count + 1):
        name = node.name if node.count == 1 else f"{node.name}{n}"
        yield MachineNode(name, cpus, memory, node.gpus, tuple(node.features))


def _value(parse: Callable[[str], T], text: str, where: str, what: str) -> T:
    try:
        return parse(text)
    except UnitError as error:
        raise _bad(where, f"found {error.found!r} as {what}, accepted is {error.accepted}") from None


def _at_least_one(cpus: int, where: str) -> int:
    if cpus < 1:
        raise _bad(where, f"found {cpus} cpus, accepted is 1 or more")
    return cpus


def _bad(where: str, what: str) -> UserError:
    return UserError(f"{where}: {what}", code=_CODE, hint=_HINT)
