"""What the API process asks about reservations: to make, change, try and drop one, and to show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from lanai.core.events import Event, ReservationDropped, ReservationWished
from lanai.core.hub import HubCore
from lanai.core.reservations import nothing_of_name
from lanai.core.reserved_shown import standings
from lanai.core.reserving_tried import rehearse
from lanai.hub.clock import boottime_us, wall_us
from lanai.hub.standing import periods_of
from lanai.model.access import Caller
from lanai.model.reservation import Reservation

SHOWN: Final = 1_000
NODES_SHOWN: Final = 20
"""So many nodes of each are named in a list of all."""


class OfReservation(msgspec.Struct, frozen=True):
    """A reservation that is to be; of a standing one the periods are worked out here."""

    reservation: Reservation
    is_change: bool = False


class OfName(msgspec.Struct, frozen=True):
    """A reservation by its name; empty: all."""

    name: str = ""


def shown(core: HubCore, arguments: msgspec.Raw) -> dict[str, Any]:
    """Reservations as they stand."""
    name = msgspec.msgpack.decode(arguments, type=OfName).name
    found = standings(core.world, name)[:SHOWN]
    if name and not found:
        raise nothing_of_name(name)
    if not name:
        found = [msgspec.structs.replace(each, nodes=each.nodes[:NODES_SHOWN]) for each in found]
    return {"reservations": found}


def tried(core: HubCore, arguments: msgspec.Raw) -> dict[str, Any]:
    """What a reservation would do."""
    asked = msgspec.msgpack.decode(arguments, type=OfReservation)
    world = core.world
    world.pass_time(boottime_us())
    return {"rehearsal": rehearse(world, _planned(asked.reservation), wall_us(), is_change=asked.is_change)}


def wished(arguments: msgspec.Raw, caller: Caller, number: Callable[[], int]) -> Event:
    """The event that makes or changes one. `number` is called for a request's number when all else is well."""
    asked = msgspec.msgpack.decode(arguments, type=OfReservation)
    planned = _planned(asked.reservation)
    return ReservationWished(number(), planned, asked.is_change, wall_us(), caller)


def dropped(arguments: msgspec.Raw, caller: Caller, number: Callable[[], int]) -> Event:
    """The event that drops one."""
    name = msgspec.msgpack.decode(arguments, type=OfName).name
    return ReservationDropped(number(), name, wall_us(), caller)


def _planned(wish: Reservation) -> Reservation:
    if wish.rule is None:
        return wish
    return msgspec.structs.replace(wish, periods=periods_of(wish.rule, wall_us()))
