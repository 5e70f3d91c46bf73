"""The `{check ...}` and `{use ...}` clauses inside one line of a job list, as in Parasol, and the further uses.

    {check in|out exists|exists+|line|line+ FILE}     replaced by FILE where it stands
    {use cpu N} {use ram N} {use gpu N} {use time D} {use nodes N} {use NAME N}     removed

A `{` that is not followed by `check` or `use` and a blank (or `}`) is ordinary text, so `awk '{print}'` passes. Where a
use is repeated in one line the last counts; a cpu or ram of 0 means the batch's own, both as in Parasol, and so do 0
nodes.

A clause ends at the next `}`. Good lines are taken apart with a few operations; only a line that is not good is looked
at word by word, to say where and what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, get_args

from lanai.model.request import AS_BATCH, Check, JobRequest, Rule, When
from lanai.model.resources import NODES_MAX
from lanai.model.units import UnitError, parse_bytes, parse_count, parse_duration, parse_milli

BLANKS: Final = b" \t\v\f\r"
"""What separates words and may stand before a command; a line of nothing else is blank."""

BEGIN: Final = re.compile(rb"\{(check|use)(?=[\s}]|$)")
"""Where a clause begins, good or bad."""

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)
"""What a named resource may be called."""

ACCEPTED_RESOURCE: Final = (
    "the name of a resource (a letter, then letters, digits, _ . -); cpus, memory, gpus, time and nodes are none"
)

_CLAUSE: Final = re.compile(rb"\{(check|use)(?=[\s}])([^}]*)\}")
# Splitting by it leaves a text, then kind, body and the next text for every clause.
_CACHE_LIMIT: Final = 4096

_MISTAKEN: Final = {
    "cpus": "cpu",
    "core": "cpu",
    "cores": "cpu",
    "mem": "ram",
    "memory": "ram",
    "gpus": "gpu",
    "walltime": "time",
    "timeout": "time",
    "node": "nodes",
}
_ACCEPTED_USE: Final = "{use cpu|ram|gpu|time|nodes|NAME VALUE}"
_ACCEPTED_CHECK: Final = "{check in|out exists|exists+|line|line+ FILE}"


class Fault(NamedTuple):
    """Something wrong in a line: at which byte (from 0), what was found and what is accepted."""

    offset: int
    found: str
    accepted: str


class ClauseParser:
    """Takes lines apart. It remembers the requests it has made, as most lines of a list ask for the same."""

    def __init__(self) -> None:
        self._requests: dict[tuple[bytes, ...], JobRequest] = {}

    def parse(self, line: bytes) -> tuple[bytes, JobRequest, tuple[Check, ...]] | None:
        """The command of a line without its clauses, what it asks for, and its checks in order.

        None where a clause is bad or no command is left; `faults` then tells why.
        """
        parts = _CLAUSE.split(line)
        if b"{" in parts[-1] and BEGIN.search(parts[-1]):
            return None
        rest = iter(parts)
        pieces = [next(rest)]
        checks: list[Check] = []
        uses: list[bytes] = []
        try:
            for kind, body, text in zip(rest, rest, rest, strict=True):
                if kind == b"use":
                    uses.append(body)
                    pieces.append(text)
                else:
                    when, rule, file = body.split()
                    checks.append(Check(_WHENS[when], _RULES[rule], file))
                    pieces += file, text
            request = self._request(tuple(uses)) if uses else AS_BATCH
        except (KeyError, ValueError):
            return None
        command = b"".join(pieces).strip(BLANKS) if len(pieces) > 1 else line
        return (command, request, tuple(checks)) if command else None

    def _request(self, uses: tuple[bytes, ...]) -> JobRequest:
        request = self._requests.get(uses)
        if request is None:
            if len(self._requests) >= _CACHE_LIMIT:
                self._requests.clear()
            request = self._requests[uses] = request_of([body.split() for body in uses])
        return request


def request_of(uses: Iterable[Sequence[bytes]]) -> JobRequest:
    """The request that (what, value) pairs make together; of repeated ones the last counts.

    Raises:
        UnitError: for the first that is not understood.
        ValueError: for one that is not a pair.
    """
    known: dict[str, int | float | None] = {}
    named: dict[str, int] = {}
    for what, value in uses:
        name, text = _text(what), _text(value)
        if name in _MISTAKEN or not NAME.fullmatch(name):
            raise UnitError(name, _accepted_name(name))
        match name:
            case "cpu":
                known["cpu_milli"] = parse_milli(text) or None
            case "ram":
                known["memory_bytes"] = parse_bytes(text) or None
            case "gpu":
                known["gpu_milli"] = parse_count(text) * 1000
            case "time":
                known["time_limit_s"] = _time_limit_s(text)
            case "nodes":
                known["nodes"] = parse_nodes(text) or None
            case _:
                named[name] = parse_count(text)
    return JobRequest(**known, named=tuple(sorted(named.items())))  # type: ignore[arg-type]


def checks_at(line: bytes) -> Iterator[tuple[int, Check]]:
    """The checks of a line that `ClauseParser.parse` takes, each with the byte (from 0) at which its file is named."""
    for clause in _CLAUSE.finditer(line):
        if clause[1] == b"check":
            when, rule, file = clause[2].split()
            yield clause.start(2) + clause[2].rindex(file), Check(_WHENS[when], _RULES[rule], file)


def faults(line: bytes) -> Iterator[Fault]:
    """What is wrong with a line that `ClauseParser.parse` did not take, from left to right, at least one."""
    is_faulty = False
    at = 0
    while begin := BEGIN.search(line, at):
        end = line.find(b"}", begin.end())
        if end < 0:
            yield Fault(begin.start(), _text(line[begin.start() :]), "a } that ends the clause")
            return
        words = [(found.start(), found[0]) for found in _WORD.finditer(line, begin.start() + 1, end)]
        fault = _check_fault(words) if begin[1] == b"check" else _use_fault(words)
        if fault is not None:
            is_faulty = True
            yield fault
        at = end + 1
    if not is_faulty:
        yield Fault(0, _text(line.strip(BLANKS)), "a command beside the clauses")


_WORD: Final = re.compile(rb"\S+")
_WHENS: Final[dict[bytes, When]] = {when.encode(): when for when in get_args(When)}
_RULES: Final[dict[bytes, Rule]] = {rule.encode(): rule for rule in get_args(Rule)}


def _check_fault(words: list[tuple[int, bytes]]) -> Fault | None:
    tables: tuple[Mapping[bytes, str], ...] = (_WHENS, _RULES)
    for (offset, word), known in zip(words[1:3], tables, strict=False):
        if word not in known:
            return Fault(offset, _text(word), " or ".join(known.values()))
    return None if len(words) == 4 else _count_fault(words, _ACCEPTED_CHECK)


def _use_fault(words: list[tuple[int, bytes]]) -> Fault | None:
    if len(words) != 3:
        return _count_fault(words, _ACCEPTED_USE)
    try:
        request_of([(words[1][1], words[2][1])])
    except UnitError as error:
        offset = words[1][0] if error.found == _text(words[1][1]) and error.found != _text(words[2][1]) else words[2][0]
        return Fault(offset, error.found, error.accepted)
    return None


def _count_fault(words: list[tuple[int, bytes]], accepted: str) -> Fault:
    return Fault(words[0][0] - 1, "{" + " ".join(_text(word) for _, word in words) + "}", accepted)


def named_resource(name: str) -> str:
    """The name itself, where a resource of one's own may be called so.

    Raises:
        UnitError: it is no name, or is one of, or is mistaken for one of, cpus, memory, gpus, time and nodes.
    """
    if name in _MISTAKEN or name in _MISTAKEN.values() or not NAME.fullmatch(name):
        raise UnitError(name, ACCEPTED_RESOURCE)
    return name


def _accepted_name(name: str) -> str:
    any_other = "cpu, ram, gpu, time, nodes or the name of a resource (a letter, then letters, digits, _ . -)"
    return _MISTAKEN.get(name) or any_other


def parse_nodes(text: str) -> int:
    """A number of nodes, 0 included. Raises UnitError."""
    nodes = parse_count(text)
    if nodes > NODES_MAX:
        raise UnitError(text, f"at most {NODES_MAX} nodes")
    return nodes


def _time_limit_s(text: str) -> float:
    limit_s = parse_duration(text)
    if limit_s < 0.001:
        raise UnitError(text, "a time limit of at least 1ms")
    return limit_s


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
