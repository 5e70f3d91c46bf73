"""Scenes of reservations made by people: they are made, refused, and time passes."""

from __future__ import annotations

from core_recorder import SECOND, Recorder
from lanai.core import events as ev
from lanai.model.access import Caller, Role
from lanai.model.ids import BatchId
from lanai.model.records import SaveEvent
from lanai.model.reservation import Period, Reservation
from lanai.model.resources import Shape

MINUTE = 60 * SECOND
BOSS = Caller("boss", Role.OPERATOR)


def job(cpus: int, minutes: float, **more: object) -> Shape:
    return Shape(cpu_milli=1000 * cpus, time_limit_us=round(minutes * MINUTE), **more)  # type: ignore[arg-type]


def wish(hub: Recorder, begin: float, end: float, *, name: str = "r", is_change: bool = False, **more: object) -> None:
    """In minutes from now; nodes `*` and owner `ann` where nothing else is said."""
    period = Period(hub.now_us + round(begin * MINUTE), hub.now_us + round(end * MINUTE))
    about: dict[str, object] = {"owner": "ann", "periods": (period,)}
    if not ("count" in more or "nodes" in more):
        about["nodes"] = "*"
    made = Reservation(name=name, **(about | more))  # type: ignore[arg-type]
    hub.feed(ev.ReservationWished(7, made, is_change, hub.now_us, BOSS))


def reserve(hub: Recorder, begin: float, end: float, **more: object) -> list[str]:
    """Make a reservation; the names of its nodes."""
    wish(hub, begin, end, **more)  # type: ignore[arg-type]
    answer = hub.answer()
    assert answer is not None
    nodes = answer["nodes"]
    assert isinstance(nodes, list)
    return nodes


def refused(hub: Recorder, begin: float, end: float, **more: object) -> str:
    before = hub.core.world.reservations.copy(), [list(node.steps) for node in hub.core.world.nodes.values()]
    wish(hub, begin, end, **more)  # type: ignore[arg-type]
    after = hub.core.world.reservations.copy(), [list(node.steps) for node in hub.core.world.nodes.values()]
    assert before == after, "nothing is half-applied"
    return hub.refusal()


def later(hub: Recorder, minutes: float) -> None:
    """So much time passes, and all nodes are still heard."""
    hub.now_us += round(minutes * MINUTE)
    nodes = [node for node in hub.core.world.nodes.values() if node.is_in_step]
    hub.feed(*(ev.NodeHeard(node.id, "", hub.now_us) for node in nodes), ev.TimePassed(hub.now_us))
    hub.take_all()


def started_after(hub: Recorder, minutes: float) -> list[BatchId]:
    later(hub, minutes)
    return started(hub)


def started(hub: Recorder) -> list[BatchId]:
    hub.core.world.needs_pass = True
    return [start.batch for start in hub.start()]


def reason(hub: Recorder, batch: BatchId) -> tuple[object, object]:
    why = hub.core.why(batch, None)
    assert why is not None
    return why["code"], why["verdict"]


def told(hub: Recorder) -> list[str]:
    return [each.kind for each in hub.take_kept(SaveEvent) if each.kind.startswith("reservation")]
