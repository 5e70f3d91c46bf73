"""What the verbs that ask the scheduler share: a request given by options, and how its answers are listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from lanai.cli.tables import Listing
from lanai.model.policy import DEFAULT_SERVICE, NO_ACCOUNT

if TYPE_CHECKING:
    from lanai.cli.context import Asked

F = TypeVar("F", bound=Callable[..., Any])
_USUAL: Final = {"account": NO_ACCOUNT, "service": DEFAULT_SERVICE}
"""What is not said of a request."""

_REQUEST: Final = ("cpus", "memory_bytes", "gpus", "nodes", "time_limit_s", "features", "resources")

QUEUE: Final = Listing(
    kind="rows",
    key="job",
    columns=(
        *("job", "block", "batch", "ranges", "is_cut", "jobs", "user", "account", "service", "name"),
        *(*_REQUEST, "nodes_most", "on"),
        *("queued_at", "node", "started_at", "left_s", "place", "code", "reason", "since"),
    ),
    shown=("block", "job", "user", "cpus", "nodes", "time_limit_s", "queued_at", "node", "left_s", "reason"),
    numbers=frozenset(("batch", "jobs", "cpus", "gpus", "nodes", "nodes_most", "place")),
    words={"block": ("running", "eligible", "blocked")},
)

PRIORITIES: Final = Listing(
    kind="rows",
    key="job",
    columns=(
        *("place", "job", "batch", "ranges", "is_cut", "jobs", "user", "account", "service", "name", "tier", "turn"),
        *("turns", "score", "parts", "code", "reason"),
    ),
    shown=("place", "job", "user", "account", "service", "tier", "turn", "score", "parts"),
    numbers=frozenset(("place", "batch", "jobs", "tier", "turn", "turns", "score")),
)

FACTORS: Final = Listing(
    kind="factors",
    key="name",
    columns=("name", "value", "cap", "weight", "points", "part"),
    shown=("name", "value", "cap", "weight", "points", "part"),
    numbers=frozenset(("value", "cap", "weight", "points", "part")),
)

STARTS: Final = Listing(
    kind="starts",
    key="job",
    columns=("job", "user", "account", "service", "name", *_REQUEST, "on", "until"),
    shown=("job", "user", "service", "cpus", "nodes", "time_limit_s", "on"),
    numbers=frozenset(("cpus", "gpus", "nodes")),
)

PROMISES: Final = Listing(
    kind="promises",
    key="job",
    columns=("job", "user", "account", "service", "name", *_REQUEST, "starts_at", "on"),
    shown=("job", "user", "service", "cpus", "nodes", "time_limit_s", "starts_at", "on"),
    numbers=frozenset(("cpus", "gpus", "nodes")),
)

ROOMS: Final = Listing(
    kind="rooms",
    key="names",
    columns=(
        *("jobs", "for_s", "until", "free_cpus", "free_nodes", "nodes", "cpus", "memory_bytes", "gpus", "features"),
        *("resources", "names"),
    ),
    shown=("jobs", "for_s", "free_cpus", "free_nodes", "nodes", "cpus", "memory_bytes", "gpus", "features", "names"),
    numbers=frozenset(("jobs", "free_cpus", "free_nodes", "nodes", "cpus", "gpus")),
)

STATS: Final = Listing(
    kind="groups",
    key="group",
    columns=(
        *("group", "jobs", "done", "failed", "cancelled", "attempts", "cpu_hours", "used_cpu_hours", "wall_hours"),
        *("wait_avg_s", "wait_p95_s", "wait_max_s", "slowdown_avg", "efficiency", "time_accuracy", "memory_accuracy"),
    ),
    shown=(
        *("group", "jobs", "failed", "cpu_hours", "wait_avg_s", "wait_p95_s", "wait_max_s", "slowdown_avg"),
        *("efficiency", "time_accuracy", "memory_accuracy"),
    ),
    numbers=frozenset(("jobs", "done", "failed", "cancelled", "attempts", "cpu_hours", "used_cpu_hours")),
)


def shape_options(function: F) -> F:
    """Add the options of a request that nobody has submitted; they arrive as keyword arguments for the client."""
    for option in reversed(
        (
            click.option("--cpus", metavar="N", help="Cpus per job (on each of its nodes), also fractions."),
            click.option("--memory", metavar="SIZE", help="Memory per job, e.g. 8G."),
            click.option("--gpus", metavar="N", help="Gpus per job."),
            click.option("--nodes", metavar="N", help="Nodes that each job has at once; of 4-8 or 4+ the 4 count."),
            click.option("--time", metavar="T", help="Time limit, e.g. 20m (default: without end)."),
            click.option("--features", metavar="NAME,...", help="What each of its nodes must have."),
            click.option("--on", metavar="NAMES", help="Which nodes it may have: n1,n2 or n[1-8,12] or gpu-*."),
            click.option("--resources", metavar="NAME=N,...", help="Named resources per job."),
            click.option("--account", metavar="NAME", help="The account that it is charged to (default: your own)."),
            click.option("--service", metavar="NAME", help="Its class of service (default: normal)."),
        )
    ):
        function = option(function)
    return function


def with_defaults(asked: Asked, given: Mapping[str, object]) -> dict[str, object]:
    """What was given of a request, and of the rest what `submit` would take from the configuration."""
    from lanai.cli.submission import nodes_of
    from lanai.client.discover import configuration

    defaults = configuration(asked.environ()).submit
    usual = {name: getattr(defaults, name) for name in ("cpus", "memory", "gpus", "time", "account", "service")}
    named = {name: value for name, value in given.items() if value is not None}
    if "nodes" in named:
        named["nodes"], _ = nodes_of(str(named["nodes"]))
    return {name: value for name, value in usual.items() if value is not None} | named


def request_text(asked: Mapping[str, Any]) -> str:
    """A request of the API in words."""
    from lanai.model.units import format_bytes, format_duration

    parts = [f"{asked['cpus']:g} cpu{'' if asked['cpus'] == 1 else 's'}"]
    if asked["memory_bytes"]:
        parts.append(f"{format_bytes(asked['memory_bytes'])} memory")
    if asked["gpus"]:
        parts.append(f"{asked['gpus']:g} gpu{'' if asked['gpus'] == 1 else 's'}")
    if asked["nodes"] > 1:
        parts.append(f"{asked['nodes']} nodes")
    parts += [*asked["features"], *(f"{count} {name}" for name, count in asked["resources"].items())]
    if asked["on"]:
        parts.append(f"on {asked['on']}")
    if asked["time_limit_s"]:
        parts.append(f"for {format_duration(asked['time_limit_s'])}")
    parts += [f"{name} {asked[name]}" for name, usual in _USUAL.items() if asked[name] != usual]
    return ", ".join(parts)


def when_text(forecast: Mapping[str, Any]) -> str:
    """A forecast in one line."""
    from lanai.cli.tables import for_people
    from lanai.model.units import format_duration

    if forecast["certainty"] == "now":
        return f"now: {forecast['why']}{_before(forecast)}"
    if forecast["starts_at"] is None:
        return f"not known: {forecast['why']}"
    how = "promised" if forecast["certainty"] == "promised" else "at the earliest, if nothing comes before it"
    at = for_people("starts_at", forecast["starts_at"])
    return f"in {format_duration(forecast['in_s'])}, at {at} ({how}): {forecast['why']}{_before(forecast)}"


def _before(forecast: Mapping[str, Any]) -> str:
    """How many lines would be looked at before it, where it is not submitted yet."""
    count = forecast.get("before", 0)
    return f"; before it would come {count} line{'s' * (count > 1)} that wait{'s' * (count == 1)}" if count else ""
