"""The lists there are: which values each has, and which a table shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lanai.cli.tables import Listing

# Words of the model, here once more: to import it for them would double the time that a list takes to start.
JOB_STATES: Final = ("held", "blocked", "queued", "locked", "running", "suspended", "done", "failed", "cancelled")
OUTCOMES: Final = (
    *("ok", "exit", "signal", "time", "memory", "check", "notfound", "node", "lost", "cancelled", "preempted"),
)
NODE_STATES: Final = ("up", "silent", "away")
BATCH_STATES: Final = ("open", "held", "paused", "ended", "arriving")
TOKEN_KINDS: Final = ("user", "agent", "admin")
TOKEN_STATES: Final = ("good", "expired", "revoked")
MAY: Final = ("yes", "own", "no")
COUNTS: Final = ("done", "failed", "cancelled", "running", "locked", "queued", "held")

BATCHES: Final = Listing(
    kind="batches",
    key="batch",
    columns=(
        *("batch", "state", "jobs", *COUNTS, "name", "user", "priority", "max_running", "labels", "cwd", "reason"),
        *("account", "service", "reservation", "start_after_at"),
        *("submitted_at", "ended_at", "mean_run_s", "first_line", "title"),
    ),
    shown=("batch", "state", "jobs", *COUNTS, "title"),
    numbers=frozenset(("batch", "jobs", *COUNTS, "priority", "max_running")),
    words={"state": BATCH_STATES},
)

JOBS: Final = Listing(
    kind="jobs",
    key="id",
    columns=(
        *("id", "batch", "index", "state", "command", "attempts", "exit_code", "signal", "outcome", "node"),
        *("submitted_at", "started_at", "ended_at", "wall_s", "cpu_user_s", "cpu_system_s", "memory_peak_bytes"),
        "reason",
    ),
    shown=("id", "state", "attempts", "exit_code", "outcome", "node", "wall_s", "memory_peak_bytes", "command"),
    numbers=frozenset(("batch", "index", "attempts", "exit_code", "signal")),
    words={"state": JOB_STATES, "outcome": OUTCOMES},
)

NODES: Final = Listing(
    kind="nodes",
    key="name",
    columns=(
        *("name", "state", "is_drained", "cpus", "memory_bytes", "gpus", "resources", "running", "waiting", "seen_s"),
        "features",
        *("trouble", "started_by", "facts", "avoided_by", "stalled", "free", "version", "escaped", "claims"),
        "reserved",
    ),
    shown=(
        *("name", "state", "is_drained", "cpus", "memory_bytes", "gpus", "features", "running", "waiting", "seen_s"),
        "trouble",
    ),
    numbers=frozenset(("cpus", "gpus", "running", "waiting", "escaped")),
    words={"state": NODE_STATES},
)

RESERVATIONS: Final = Listing(
    kind="reservations",
    key="name",
    columns=(
        *("name", "kind", "state", "owner", "begin_at", "end_at"),
        *("node_count", "running", "others", "waiting", "nodes"),
        *("asked_nodes", "asked_count", "features", "is_whole", "cpus", "memory_bytes", "gpus", "access", "rule"),
        *("periods", "short"),
    ),
    shown=(
        *("name", "kind", "state", "owner", "begin_at", "end_at"),
        *("node_count", "running", "others", "waiting", "nodes"),
        "short",
    ),
    numbers=frozenset(("node_count", "running", "others", "waiting", "asked_count", "cpus", "gpus")),
    words={
        "kind": ("exclusive", "preferring", "maintenance"),
        "state": ("active", "coming", "idle"),
    },
)

TOKENS: Final = Listing(
    kind="tokens",
    key="token",
    columns=("token", "kind", "user", "state", "created_at", "expires_at", "revoked_at", "label"),
    shown=("token", "kind", "user", "state", "created_at", "expires_at", "label"),
    numbers=frozenset(("token",)),
    words={"kind": TOKEN_KINDS, "state": TOKEN_STATES},
)

ROLES: Final = Listing(
    kind="roles",
    key="action",
    columns=("action", "user", "operator", "admin", "meaning"),
    shown=("action", "user", "operator", "admin", "meaning"),
    words={"user": MAY, "operator": MAY, "admin": MAY},
)

EVENTS: Final = Listing(
    kind="events",
    key="subject",
    columns=("happened_at", "kind", "subject", "text"),
    shown=("happened_at", "kind", "subject", "text"),
)

AUDIT: Final = Listing(
    kind="audit",
    key="row",
    columns=(
        *("row", "happened_at", "user", "role", "origin", "door", "uid", "pid", "address", "token", "action"),
        *("subject", "before", "after", "is_refused", "why", "left_out"),
    ),
    shown=("happened_at", "user", "role", "origin", "action", "subject", "before", "after", "why"),
    numbers=frozenset(("row", "uid", "pid", "token", "left_out")),
)

SHARES: Final = Listing(
    kind="shares",
    key="name",
    columns=(
        *("place", "name", "account", "user", "depth", "weight", "part", "used", "has", "waiting", "rank"),
        "turn",
    ),
    shown=("name", "place", "weight", "part", "used", "has", "waiting", "rank", "turn"),
    numbers=frozenset(("depth", "weight", "part", "used", "has", "waiting", "rank", "turn")),
    words={"place": ("account", "user", "batch")},
)

REPLAYS: Final = Listing(
    kind="policies",
    key="policy",
    columns=(
        *("policy", "what_if", "jobs", "wait_avg_s", "wait_median_s", "wait_p95_s", "wait_max_s"),
        *("slowdown_avg", "slowdown_p95", "slowdown_max", "utilisation", "makespan_s", "fairness_jain", "users"),
        *("starts_sum_s", "starts_sha256", "copies", "slowdown_sd", "wait_avg_sd_s", "wait_max_sd_s"),
    ),
    shown=(
        *("policy", "jobs", "wait_avg_s", "wait_p95_s", "wait_max_s", "slowdown_avg", "utilisation", "makespan_s"),
        "fairness_jain",
    ),
)


def batch_row(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch of the API as a row: its counts stand among its other values."""
    return {**batch, **batch["counts"], "title": batch["name"] or batch.get("first_line") or ""}


def node_row(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node of the API as a row: what it has in units people know."""
    capacity, free = node["capacity"], node["free"]
    return {
        **node,
        "cpus": _whole(capacity["cpu_milli"]),
        "memory_bytes": capacity["memory_bytes"],
        "gpus": len(capacity["gpus"]),
        "resources": dict(capacity["named"]),
        "free": {
            "cpus": _whole(free["cpu_milli"]),
            "memory_bytes": free["memory_bytes"],
            "gpus": _whole(free["gpu_milli"]),
            **dict(free["named"]),
        },
    }


def _whole(milli: int) -> int | float:
    return milli / 1000 if milli % 1000 else milli // 1000
