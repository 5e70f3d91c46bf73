"""Who has connected and has not shown yet who he is: for how long, how many of one address, and how many in all.

A connection is a *stranger* until its protocol admits it. Strangers are bounded in time and number, and an address may
hold half of all the room at most, so that whoever opens connections without end from one address takes nothing from
the others. Where an address has its share, its oldest stranger makes way if it has had a moment to speak: so even from
that address an honest peer gets in. Where strangers in all have theirs, the oldest of the address with the most goes.

Visitors without an address (the hub's own user and root, on the Unix socket) are bounded in time only.

Nothing is waited for in here: it keeps count, and drops who has to go.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lanai.model.allowance import Allowance

STRANGER_S: Final = 10.0
"""How long a stranger has, from the first packet to what lets it in."""
YOUNG_S: Final = 1.0
"""A stranger younger than this does not make way for others of its address."""
NOTICES_EACH: Final = 5
NOTICES_EACH_EVERY_S: Final = 30.0
"""So many lines in the log about an address at once, and one more every so often."""
NOTICES: Final = 100
NOTICES_EVERY_S: Final = 1.0
"""The same about all addresses together."""

About = Mapping[str, str | int]
"""What a line in the log is about, as `wire.logs.about` has it."""
NOTHING: Final[About] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many connections there may be.

    Attributes:
        all, each: with an address; in all, and of one.
        strangers, strangers_each: of these, how many may not have shown who they are.
    """

    all: int
    each: int
    strangers: int
    strangers_each: int

    @classmethod
    def within(cls, descriptors: int) -> Bounds:
        """What fits so many descriptors, with some kept for the Unix socket, the store and files."""
        most = max(16, descriptors - min(512, descriptors // 4))
        strangers = min(1024, most // 4)
        return cls(all=most, each=most // 2, strangers=strangers, strangers_each=min(256, max(2, strangers // 4)))


class NoRoom(Exception):
    """A newcomer is not let in; its text says which bound was met."""


class Visitor:
    """One connection, as the lobby counts it.

    Attributes:
        address: what it is counted under; empty where it is bounded in time only.
        where: the same for people, with the port.
        is_stranger: it was not admitted yet.
    """

    def __init__(self, address: str = "", where: str = "", lobby: Lobby | None = None) -> None:
        self.address = address
        self.where = where
        self.is_stranger = True
        self.since_s = time.monotonic()
        self._lobby = lobby
        self._end: Callable[[], object] = _nothing
        self._is_dropped = False

    def ends_with(self, end: Callable[[], object]) -> None:
        """`end()` is what drops it from now on."""
        self._end = end

    def admit(self) -> None:
        """It has shown who it is. A repeat is harmless."""
        if self.is_stranger:
            self.is_stranger = False
            if self._lobby is not None:
                self._lobby.admitted(self)

    def leave(self) -> None:
        """Its connection has ended. A repeat is harmless."""
        lobby, self._lobby = self._lobby, None
        self._end = _nothing
        if lobby is not None:
            lobby.left(self)

    def drop(self, why: str) -> None:
        """End its connection, and say so in the log."""
        self.notice(f"dropped a stranger at {self.where}: {why}")
        self._is_dropped = True
        self._end()

    def notice(self, text: str, about: About = NOTHING) -> None:
        """A line in the log about it, within bounds. Nothing more is said of a stranger that was dropped."""
        if self._lobby is None or self._is_dropped:
            return
        if self.is_stranger:
            self._lobby.notices.of_stranger(self.address, text, about)
        else:
            self._lobby.notices.of_known(self.address, text, about)


class Notices:
    """Warnings in the log, so many about an address and no more; what is left out is counted with the next.

    About strangers there are so many in all, too. They cannot hush what is said of those who are known.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._known = Allowance(burst=NOTICES_EACH, every_s=NOTICES_EACH_EVERY_S)
        self._strangers = Allowance(burst=NOTICES_EACH, every_s=NOTICES_EACH_EVERY_S)
        self._all_strangers = Allowance(burst=NOTICES, every_s=NOTICES_EVERY_S)

    def of_known(self, address: str, text: str, about: About = NOTHING) -> None:
        """Log `text`, which is about a peer at `address` that has shown who it is. `about` is as in `wire.logs`."""
        left_out = self._known.take(address, time.monotonic()) if address else 0
        if left_out is not None:
            self._write(text, left_out, about)

    def of_stranger(self, address: str, text: str, about: About = NOTHING) -> None:
        """Log `text`, which is about a stranger at `address`."""
        now_s = time.monotonic()
        left_out = self._strangers.take(address, now_s)
        if left_out is None:
            return
        more = self._all_strangers.take("", now_s)
        if more is not None:
            self._write(text, left_out + more, about)

    def _write(self, text: str, left_out: int, about: About) -> None:
        more = f" ({left_out} more such lines were left out before)" if left_out else ""
        self._log.warning("%s%s", text, more, extra=about)


class Lobby:
    """Keeps count of the visitors of one process. All its methods belong to one event loop."""

    def __init__(self, bounds: Bounds, log: logging.Logger) -> None:
        self.notices = Notices(log)
        self._bounds = bounds
        self._held: Counter[str] = Counter()
        self._strangers: dict[str, dict[Visitor, None]] = {}
        """By address, each in the order of arrival."""
        self._waiting: dict[Visitor, None] = {}
        """All strangers in the order of arrival; all have the same time, so the first is the next one due."""
        self._counted = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many visitors with an address there are."""
        return self._counted

    def enter(self, address: str, where: str) -> Visitor:
        """Count a newcomer as a stranger. Another may be dropped for it.

        Raises:
            NoRoom: a bound is met, and nobody can make way.
        """
        if address:
            self._make_way(address)
            self._counted += 1
            self._held[address] += 1
        visitor = Visitor(address, where, self)
        self._strangers.setdefault(address, {})[visitor] = None
        self._waiting[visitor] = None
        self._watch()
        return visitor

    def admitted(self, visitor: Visitor) -> None:
        """It is no stranger any more."""
        self._waiting.pop(visitor, None)
        of_address = self._strangers.get(visitor.address)
        if of_address is not None:
            of_address.pop(visitor, None)
            if not of_address:
                del self._strangers[visitor.address]

    def left(self, visitor: Visitor) -> None:
        """It is gone."""
        self.admitted(visitor)
        if visitor.address:
            self._counted -= 1
            self._held[visitor.address] -= 1
            if not self._held[visitor.address]:
                del self._held[visitor.address]

    def drop_oldest(self, why: str) -> None:
        """Drop the stranger that has been here longest, if there is any with an address."""
        for visitor in self._waiting:
            if visitor.address:
                self._part_with(visitor, why)
                return

    def close(self) -> None:
        """Nobody's time is watched any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- within

    def _make_way(self, address: str) -> None:
        bounds = self._bounds
        if self._held[address] >= bounds.each:
            raise NoRoom(f"{bounds.each} connections of one address, which is the most")
        if self._counted >= bounds.all:
            raise NoRoom(f"{bounds.all} connections in all, which is the most")
        of_address = self._strangers.get(address, {})
        if len(of_address) >= bounds.strangers_each:
            oldest = next(iter(of_address))
            if time.monotonic() - oldest.since_s < YOUNG_S:
                raise NoRoom(f"{bounds.strangers_each} of one address that have not said who they are")
            self._part_with(oldest, "it made way for others of its address")
        elif len(self._waiting) - len(self._strangers.get("", ())) >= bounds.strangers:
            most = max((each for each in self._strangers if each), key=lambda each: len(self._strangers[each]))
            self._part_with(next(iter(self._strangers[most])), "it made way: too many have not said who they are")

    def _part_with(self, visitor: Visitor, why: str) -> None:
        self.admitted(visitor)
        visitor.drop(why)

    def _watch(self) -> None:
        if self._timer is None and self._waiting:
            due_s = max(0.0, next(iter(self._waiting)).since_s + STRANGER_S - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(due_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        while self._waiting and (oldest := next(iter(self._waiting))).since_s + STRANGER_S <= now_s:
            self._part_with(oldest, f"it has not said who it is within {STRANGER_S:g} s")
        self._watch()


def address_of(peer: tuple[object, ...]) -> str:
    """What a peer's address on the network counts as: of IPv6 the first half, which is what one host or site has."""
    found = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((found, 64), strict=False))
    return str(found)


def allow_many_connections() -> Bounds:
    """As many descriptors as may be had: the usual 1,024 are not enough for a thousand agents. What they allow."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return Bounds.within(most)


def _nothing() -> None:
    """Nothing is to be ended yet, or any more."""
