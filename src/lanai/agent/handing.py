"""Jobs as a starter takes them: so many at a time as fit a frame, their lines as words. Pure, a part of its port.

It chooses nothing and sends nothing. What a line means is `model.command`'s, what the starter makes of a row its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from lanai.agent.events import Item
from lanai.model.command import CommandError, argv
from lanai.model.ids import GrantId
from lanai.model.job import AttemptResult, Outcome
from lanai.wire.messages import Spec

PORTION_BYTES: Final = 1 << 20
ROW_BYTES: Final = 32
"""A byte of a command may be six on the way to the starter, and a job has at most 1 MiB, its files twice: that fits."""

Row = tuple[Any, ...]
"""Index, attempt, words, and what else there is to say of the job where there is anything."""


def portions(items: list[Item]) -> Iterator[list[Item]]:
    """The items so few at a time that their words fit a frame; of most there is no need for more than one portion."""
    some: list[Item] = []
    room = PORTION_BYTES
    for item in items:
        size = ROW_BYTES + len(item.line)
        if item.checks:
            size += sum(ROW_BYTES + len(check.file) for check in item.checks)
        if item.nodes:
            size += sum(map(len, item.nodes)) + 4 * len(item.nodes)
        if size > room and some:
            yield some
            some, room = [], PORTION_BYTES
        some.append(item)
        room -= size
    if some:
        yield some


def needs_hosts(spec: Spec) -> bool:
    """Whether its jobs get a host file, which starters of earlier versions know nothing of."""
    return spec.shape.nodes > 1 or spec.shape.tasks_per_node > 1


def rows_of(
    items: list[Item], grant: GrantId, attempt: int, spec: Spec, node: str
) -> tuple[list[Row], list[AttemptResult]]:
    """The items as a starter takes them, and the ends of those whose line has no words. `node`: what this is called."""
    rows: list[Row] = []
    without: list[AttemptResult] = []
    has_hosts = needs_hosts(spec)
    for item in items:
        try:
            words = [text(word) for word in argv(item.line, spec.shell)]
        except CommandError as error:
            without.append(AttemptResult(grant, item.index, Outcome.NOTFOUND, exit_code=127, reason=str(error)))
            continue
        if has_hosts:
            hosts = {"names": item.nodes or (node,), "tasks": spec.shape.tasks_per_node}
            rows.append((item.index, attempt, words, {**_extra(item), "hosts": hosts}))
        elif item.checks or item.gpus:
            rows.append((item.index, attempt, words, _extra(item)))
        else:
            rows.append((item.index, attempt, words))
    return rows, without


def _extra(item: Item) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if item.checks:
        extra["checks"] = [(check.when, check.rule, text(check.file)) for check in item.checks]
    if item.gpus:
        ids = ",".join(item.gpus)
        extra["env"] = {"CUDA_VISIBLE_DEVICES": ids, "LANAI_GPUS": ids}
    return extra


def text(raw: bytes) -> str:
    """The bytes in the form in which a starter takes any bytes and the standard library gives them back."""
    return raw.decode("utf-8", "surrogateescape")
