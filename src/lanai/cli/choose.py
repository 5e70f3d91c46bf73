"""Selectors as verbs take them: `417`, `417/12-40:2`, `last`, `@failed`, `-` for more of them from standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from lanai.model.ranges import RangeError, Ranges, canonical, format_ranges, iterate, parse_selector

if TYPE_CHECKING:
    from lanai.client.client import Client

LAST = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Jobs of one batch.

    Attributes:
        batch: its number, or `last`.
        ranges: None is all of them.
        states: only jobs in these; empty: in any.
    """

    batch: int | str
    ranges: Ranges | None = None
    states: tuple[str, ...] = ()

    @property
    def ranges_text(self) -> str | None:
        """The ranges as the API takes them."""
        return None if self.ranges is None else format_ranges(self.ranges)

    def single(self) -> int | None:
        """The index where one job is named, else None."""
        if self.ranges is None or self.states or len(self.ranges) != 1 or self.ranges[0][0] != self.ranges[0][1]:
            return None
        return next(iterate(self.ranges))


def choose(texts: Sequence[str]) -> list[Chosen]:
    """What `texts` name, one entry a batch and set of states; nothing named is the newest batch.

    Raises:
        click.UsageError: one is not understood.
    """
    if not texts:
        return [Chosen(batch=LAST)]
    # Joined once at the end: a union with each of a long list of jobs would cost the square of their number.
    gathered: dict[tuple[int | str, tuple[str, ...]], list[tuple[int, int]] | None] = {}
    for text in _expanded(texts):
        try:
            selector = parse_selector(text)
        except RangeError as error:
            raise click.UsageError(f"selector {text!r}: {error}") from None
        key = (selector.batch or LAST, selector.states)
        pairs = gathered.setdefault(key, [])
        if selector.ranges is None:
            gathered[key] = None
        elif pairs is not None:
            pairs += selector.ranges
    return [
        Chosen(batch=batch, ranges=None if pairs is None else canonical(pairs), states=states)
        for (batch, states), pairs in gathered.items()
    ]


def jobs_of(client: Client, chosen: Chosen, limit: int) -> Iterator[tuple[int | str, int]]:
    """The jobs chosen, at most `limit`. One that is named alone is not looked up."""
    index = chosen.single()
    if index is not None:
        yield chosen.batch, index
        return
    for job in client.jobs(chosen.batch, states=chosen.states, ranges=chosen.ranges_text or "", limit=limit):
        yield job["batch"], job["index"]


def choose_batches(texts: Sequence[str]) -> list[int | str]:
    """The batches that `texts` name; nothing named is the newest.

    Raises:
        click.UsageError: they name jobs.
    """
    chosen = choose(texts)
    if any(each.ranges is not None or each.states for each in chosen):
        raise click.UsageError("name batches, such as 417 or last, not jobs of them")
    return [each.batch for each in chosen]


def choose_batch(texts: Sequence[str]) -> int | str:
    """The one batch that `texts` name; nothing named is the newest.

    Raises:
        click.UsageError: they name more, or jobs.
    """
    chosen = choose_batches(texts)
    if len(chosen) != 1:
        raise click.UsageError("name one batch, such as 417 or last")
    return chosen[0]


def _expanded(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if text == "-":
            for line in sys.stdin:
                yield from line.split()
        else:
            yield text
