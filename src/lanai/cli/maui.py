"""Maui's layouts: the answers of the hub as `showq`, `checkjob`, `checknode`, `showstart`, `showbf`, `diagnose` and
`showstats` print them. Values in, lines of text out; nothing here asks the hub.

A processor is a cpu, a class is a service, a job's name is BATCH/INDEX, and jobs that wait alike share a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from lanai.cli.terminal import printable
from lanai.model.units import format_bytes

Answer = Mapping[str, Any]

HOLDS: Final = {
    "held": "UserHold",
    "paused": "SystemHold",
    "delayed": "Deferred",
    "too_large": "BatchHold",
}
"""Maui's word for a reason; for all others, limits among them, it says `Idle`."""
WAITS: Final = ("queued", "held", "blocked")
"""States of a job that has yet to start, or to start again."""
XFACTOR_S: Final = 600.0
"""Of the expansion factor, where a job has no time limit."""


def clock(length_s: float | None) -> str:
    """A length of time as [[DD:]HH:]MM:SS; without end `INFINITY`."""
    if length_s is None:
        return "INFINITY"
    minutes, seconds = divmod(round(length_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}:" if days else "") + f"{hours:02}:{minutes:02}:{seconds:02}"


def date(text: str | None) -> str:
    """A time as Maui prints it, by the clock here."""
    if text is None:
        return "-"
    return datetime.fromisoformat(text).astimezone().strftime("%a %b %d %H:%M:%S")


def since_s(text: str | None) -> float:
    """How long ago a time was."""
    return 0.0 if text is None else max(0.0, (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())


def queued_s(queued_at: str | None, started_at: str | None) -> float:
    """Seconds in which it has waited: until it started, or until now."""
    return since_s(queued_at) - since_s(started_at)


def xfactor(row: Answer) -> float:
    """(time queued + time limit) / time limit."""
    run_s: float = row["time_limit_s"] or XFACTOR_S
    return (queued_s(row["queued_at"], row["started_at"]) + run_s) / run_s


def procs(row: Answer) -> float:
    """Processors of all the jobs of a row."""
    return float(row["jobs"] * row["cpus"] * row["nodes"])


# -- showq


def showq(found: Answer, blocks: Sequence[str]) -> Iterator[str]:
    """The three blocks and the totals."""
    if "running" in blocks:
        yield from _active(found)
    if "eligible" in blocks:
        yield from _waiting("IDLE JOBS----------------------", found["eligible"], "Idle Jobs")
    if "blocked" in blocks:
        yield from _waiting("BLOCKED JOBS----------------", found["blocked"], "Blocked Jobs")
    active, idle, blocked = (found[name]["jobs"] for name in ("running", "eligible", "blocked"))
    total = active + idle + blocked
    yield f"Total Jobs: {total}   Active Jobs: {active}   Idle Jobs: {idle}   Blocked Jobs: {blocked}"
    others = sum(found[name]["others"] for name in ("running", "eligible", "blocked"))
    if others:
        yield f"Jobs of others: {others}"


def showq_running(found: Answer) -> Iterator[str]:
    """`showq -r`."""
    yield "{:<22} {:>1} {:<3} {:>7} {:<8} {:<10} {:<8} {:<10} {:>6} {:>12} {:>20}".format(
        *("JobName", "S", "Par", "XFactor", "Q", "User", "Group", "MHost", "Procs", "Remaining", "StartTime")
    )
    yield ""
    for row in found["running"]["rows"]:
        cells = ("R", "ALL", f"{xfactor(row):.1f}", row["service"], row["user"])
        tail = (row["account"], row["node"], f"{procs(row):g}", clock(row["left_s"]), date(row["started_at"]))
        yield "{:<22} {:>1} {:<3} {:>7} {:<8} {:<10} {:<8} {:<10} {:>6} {:>12} {:>20}".format(row["job"], *cells, *tail)
    yield from ("", *_busy(found), "")


def showq_idle(found: Answer) -> Iterator[str]:
    """`showq -i`: what is eligible, with its place in the order of turns."""
    form = "{:<22} {:>8} {:>7} {:<8} {:<10} {:<8} {:>8} {:>12} {:<8} {:>20}"
    yield form.format(
        *("JobName", "Place", "XFactor", "Q", "User", "Group", "Procs", "WCLimit", "Class", "SystemQueueTime")
    )
    yield ""
    for row in found["eligible"]["rows"]:
        factor = f"{xfactor(row):.1f}"
        who = (row["service"], row["user"], row["account"], f"{procs(row):g}", clock(row["time_limit_s"]))
        yield form.format(row["job"], row["place"], factor, *who, row["service"], date(row["queued_at"]))
    yield from ("", *_more(found["eligible"]), f"Jobs: {found['eligible']['jobs']}", "")


def showq_blocked(found: Answer) -> Iterator[str]:
    """`showq -b`."""
    form = "{:<22} {:<10} {:<10} {:>6} {:>12}  {}"
    yield form.format("JobName", "User", "State", "Procs", "WCLimit", "Reason")
    yield ""
    for row in found["blocked"]["rows"]:
        state = HOLDS.get(row["code"], "Idle")
        values = (row["user"], state, f"{procs(row):g}", clock(row["time_limit_s"]), printable(row["reason"] or "-"))
        yield form.format(row["job"], *values)
    yield from ("", *_more(found["blocked"]), f"Jobs: {found['blocked']['jobs']}", "")


def showq_completed(jobs: Sequence[Answer]) -> Iterator[str]:
    """`showq -c`."""
    form = "{:<22} {:<3} {:>5} {:<10} {:<12} {:>11} {:>11} {:>21}"
    yield form.format("JobName", "S", "CCode", "User", "MHost", "WallTime", "CPUTime", "CompletionTime")
    yield ""
    for job in jobs:
        cpu_s = (job["cpu_user_s"] or 0) + (job["cpu_system_s"] or 0)
        state = "R" if job["state"] == "cancelled" else "C"
        code = "-" if job["exit_code"] is None else job["exit_code"]
        times = clock(job["wall_s"] or 0), clock(cpu_s), date(job["ended_at"])
        yield form.format(job["id"], state, code, job["user"], job["node"] or "-", *times)
    yield from ("", f"Jobs: {len(jobs)}")


_ROW: Final = "{:<22} {:<10} {:>9} {:>6} {:>11} {:>21}"


def _active(found: Answer) -> Iterator[str]:
    yield "ACTIVE JOBS--------------------"
    yield _ROW.format("JOBNAME", "USERNAME", "STATE", "PROC", "REMAINING", "STARTTIME")
    yield ""
    for row in found["running"]["rows"]:
        state = "Running" if row["started_at"] else "Starting"
        times = clock(row["left_s"]), date(row["started_at"])
        yield _ROW.format(row["job"], row["user"], state, f"{procs(row):g}", *times)
    yield from ("", *_more(found["running"]))
    yield f"{found['running']['jobs']:>6} Active Jobs   {_busy(found)[0]}"
    yield from (*_busy(found)[1:], "")


def _busy(found: Answer) -> list[str]:
    cpus, busy, nodes, busy_nodes = found["cpus"], found["busy_cpus"], found["nodes"], found["busy_nodes"]
    return [
        f"{busy:>6g} of {cpus:>4g} Processors Active ({_percent(busy, cpus)})",
        f"{'':21}{busy_nodes:>6} of {nodes:>4} Nodes Active      ({_percent(busy_nodes, nodes)})",
    ]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole if whole else 0:.2f}%"


def _waiting(title: str, block: Answer, what: str) -> Iterator[str]:
    yield title
    yield _ROW.format("JOBNAME", "USERNAME", "STATE", "PROC", "WCLIMIT", "QUEUETIME")
    yield ""
    for row in block["rows"]:
        state = HOLDS.get(row["code"] or "", "Idle")
        times = clock(row["time_limit_s"]), date(row["queued_at"])
        yield _ROW.format(row["job"], row["user"], state, f"{procs(row):g}", *times)
    yield from ("", *_more(block), f"{block['jobs']} {what}", "")


def _more(block: Answer) -> Iterator[str]:
    if block["more"]:
        yield f"... and {block['more']} more (--most)"


# -- one job, one node


def checkjob(
    job: Answer, batch: Answer, why: Answer, ranked: Sequence[Answer], *, is_verbose: bool
) -> Iterator[str]:
    """What is known of a job, and why it cannot run. `ranked` has its priority, if it waits in a line."""
    asked = job["asked"]
    yield f"checking job {job['id']}"
    yield ""
    yield f"State: {_state(job['state'], why)}"
    yield f"Creds:  user:{batch['user']}  account:{batch['account']}  class:{_service(batch)}"
    limit_s = asked["time_limit_s"]
    used_s = since_s(job["started_at"]) if job["state"] == "running" else job["wall_s"] or 0
    yield f"WallTime: {clock(used_s)} of {clock(limit_s)}"
    yield f"SubmitTime: {date(job['submitted_at'])}"
    started_at = None if job["state"] in WAITS else job["started_at"]
    yield f"  (Time Queued  Total: {clock(queued_s(job['submitted_at'], started_at))})"
    if job["started_at"]:
        yield f"StartTime: {date(job['started_at'])}"
    cpus, tasks = asked["cpus"], len(job["nodes"] or ()) or asked["nodes"]
    yield f"Total Tasks: {tasks}"
    yield ""
    yield f"Req[0]  TaskCount: {tasks}  Partition: ALL"
    yield f"Features: {' '.join(f'[{name}]' for name in asked['features']) or '[NONE]'}"
    yield f"Dedicated Resources Per Task: {_dedicated(asked)}"
    if job["state"] in ("running", "locked") and job["node"]:
        yield f"Allocated Nodes:  {''.join(f'[{node}:{cpus:g}]' for node in job['nodes'] or [job['node']])}"
    yield f"StartCount: {job['attempts']}"
    if is_verbose:
        yield f"Executable:  {printable(job['command'])}"
        yield f"IWD: {printable(batch['cwd'])}"
    yield f"PE:  {cpus * tasks:.2f}  Batch priority:  {batch['priority']}"
    if job["state"] in WAITS:
        yield from (f"StartPriority:  {row['score']:g} (place {row['place'] or '-'})" for row in ranked)
        when = why.get("when") or {}
        if when.get("certainty") == "promised":
            yield f"Reservation:  from {date(when['starts_at'])} ({printable(when['why'])})"
    yield from _messages(job, why, is_verbose=is_verbose)


def _state(state: str, why: Answer) -> str:
    words = {"running": "Running", "locked": "Starting", "done": "Completed", "failed": "Failed", "held": "Hold"}
    return words.get(state, HOLDS.get(why["code"], "Idle" if state == "queued" else state.capitalize()))


def _service(batch: Answer) -> str:
    return str(batch.get("service") or "normal")


def _dedicated(asked: Answer) -> str:
    parts = [f"PROCS: {asked['cpus']:g}"]
    if asked["memory_bytes"]:
        parts.append(f"MEM: {format_bytes(asked['memory_bytes'])}")
    if asked["gpus"]:
        parts.append(f"GPUS: {asked['gpus']:g}")
    return "  ".join([*parts, *(f"{name}: {count}" for name, count in asked["resources"].items())])


def _messages(job: Answer, why: Answer, *, is_verbose: bool) -> Iterator[str]:
    if job["state"] == "held":
        yield f"Holds:    {printable(why['verdict'])}"
    elif job["state"] in WAITS:
        yield f"job cannot run in partition ALL ({printable(why['verdict'])})"
    elif why["verdict"]:
        yield f"Message:  {printable(why['verdict'])}"
    if why.get("nodes"):
        counts = ", ".join(f"{reason}: {count}" for reason, count in why["nodes"].items())
        yield f"Nodes:  {counts}"
    for change in why.get("changes") or ():
        yield f"Note:  {printable(change)}"
    if is_verbose:
        yield from (f"Fact:  {printable(fact)}" for fact in why.get("facts") or ())


def checknode(node: Answer, found: Answer) -> Iterator[str]:
    """What is known of a node, and the jobs that it has."""
    capacity, free = node["capacity"], node["free"]
    cpus, free_cpus = capacity["cpu_milli"] / 1000, free["cpu_milli"] / 1000
    yield f"checking node {node['name']}"
    yield ""
    yield f"State:  {_node_state(node, cpus - free_cpus, free_cpus)}  (last heard {clock(node['seen_s'])} ago)"
    memory = format_bytes(capacity["memory_bytes"])
    yield f"Configured Resources: PROCS: {cpus:g}  MEM: {memory}  GPUS: {len(capacity['gpus'])}"
    used_memory = capacity["memory_bytes"] - free["memory_bytes"]
    used_gpus = len(capacity["gpus"]) - free["gpu_milli"] / 1000
    used = f"PROCS: {cpus - free_cpus:g}  MEM: {format_bytes(max(0, used_memory))}  GPUS: {used_gpus:g}"
    yield f"Dedicated Resources:  {used}"
    yield f"Features:   {' '.join(f'[{name}]' for name in node['features']) or '[NONE]'}"
    yield f"Jobs:  {node['running']} running, {node['waiting']} waiting there"
    yield ""
    yield "JobList:  " + (",".join(row["job"] for row in found["running"]["rows"]) or "[NONE]")
    if found["running"]["more"]:
        yield f"... and {found['running']['more']} more"
    if node["trouble"]:
        yield f"ALERT:  {printable(node['trouble'])}"
    if node["state"] != "up":
        yield f"ALERT:  node is {node['state']}"


def _node_state(node: Answer, busy: float, free: float) -> str:
    if node["state"] != "up":
        return "Down"
    if node["is_drained"]:
        return "Drained" if busy <= 0 else "Draining"
    return "Idle" if busy <= 0 else "Busy" if free <= 0 else "Running"


# -- when, what is free, how it went


def showstart(what: str, found: Answer, asked: Answer, count: float | None = None) -> Iterator[str]:
    """The earliest start and, where there is a time limit, the earliest completion.

    `count` is how many processors were asked about, where `asked` may be more: as many on each of its nodes.
    """
    most = asked["cpus"] * asked["nodes"]
    count = most if count is None else count
    limit_s = asked["time_limit_s"]
    yield f"job {what} requires {count:g} proc{'' if count == 1 else 's'} for {clock(limit_s)}"
    if most != count:
        yield f"NOTE: answered for {asked['nodes']} nodes with {asked['cpus']:g} procs each, which is {most:g}"
    yield ""
    if found["starts_at"] is None:
        yield f"Earliest start is not known: {printable(found['why'])}"
        return
    yield f"Earliest start in      {clock(found['in_s']):>15} on {date(found['starts_at'])}"
    if limit_s is not None:
        end = datetime.fromtimestamp(datetime.fromisoformat(found["starts_at"]).timestamp() + limit_s, UTC)
        yield f"Earliest completion in {clock(found['in_s'] + limit_s):>15} on {date(end.isoformat())}"
    yield "Best Partition: ALL"
    yield f"Certainty: {found['certainty']} ({printable(found['why'])})"


def showbf(found: Answer, user: str) -> Iterator[str]:
    """Windows for backfill: processors by how long they are free."""
    now = datetime.now(UTC).isoformat()
    yield f"backfill window (user: '{user}' partition: ALL) {date(now)}"
    yield ""
    windows: dict[float | None, tuple[float, int]] = {}
    for room in found["rooms"]:
        if room["free_nodes"]:
            cpus, nodes = windows.get(room["for_s"], (0.0, 0))
            windows[room["for_s"]] = cpus + room["free_cpus"], nodes + room["free_nodes"]
    for for_s, (cpus, nodes) in sorted(windows.items(), key=lambda each: (each[0] is None, each[0] or 0.0)):
        lasting = "with no timelimit" if for_s is None else f"for {clock(for_s):>14}"
        yield f"{cpus:>4g} procs on {nodes} node{'' if nodes == 1 else 's'} available {lasting}"
    if not windows:
        yield "no procs available"
    if found["waiting"]:
        yield ""
        yield f"NOTE: {found['waiting']} jobs wait already"


def showstats(found: Answer) -> Iterator[str]:
    """What has ended, by credential."""
    form = "{:<14} {:>8} {:>6} {:>10} {:>6} {:>8} {:>8} {:>7} {:>7}"
    yield form.format(found["by"], "Jobs", "%", "PHDed", "%", "AvgXF", "AvgQH", "Effic", "WCAcc")
    total = found["total"]
    for group in (*found["groups"], {**total, "group": "TOTAL"}):
        jobs, hours = group["jobs"], group["cpu_hours"]
        shares = _share(jobs, total["jobs"]), f"{hours:.2f}", _share(hours, total["cpu_hours"])
        waited_h = None if group["wait_avg_s"] is None else group["wait_avg_s"] / 3600
        yield form.format(
            *(group["group"], jobs, *shares, _number(group["slowdown_avg"]), _number(waited_h)),
            *(_number(group["efficiency"], 100), _number(group["time_accuracy"], 100)),
        )


PARTS: Final = {
    "Cred": {"user": "User", "group": "Group", "account": "Accnt", "service": "Class", "own": "Own"},
    "FS": {"share": "Share"},
    "Serv": {"age": "QTime", "xfactor": "XFctr", "target": "Targ"},
    "Res": {"nodes": "Node", "cpus": "Proc", "memory": "Mem", "gpus": "GPU", "cpu_seconds": "PS"},
}
"""Maui's components of a priority, and its words for the factors in each."""


def diagnose_priority(found: Answer) -> Iterator[str]:
    """Eligible lines by the order in which they are looked at: each component's percentage, and its factors' points."""
    rows = [row for row in found["rows"] if row["place"] is not None]
    yield "diagnosing job priority information (partition: ALL)"
    yield ""
    counting = {each["name"] for row in found["rows"] for each in row["factors"] if each["weight"]}
    kept = {title: [name for name in names if name in counting] for title, names in PARTS.items()}
    titles = [
        f"{title:>6}({':'.join(f'{PARTS[title][name]:>6}' for name in names)})"
        for title, names in kept.items()
        if names
    ]
    yield f"{'Job':<22} {'PRIORITY':>10}  {'  '.join(titles)}"
    yield ""
    for row in rows:
        factors = {each["name"]: each for each in row["factors"]}
        cells = [_component([factors[name] for name in names]) for names in kept.values() if names]
        yield f"{row['job']:<22} {row['score']:>10.4g}  {'  '.join(cells)}"
    yield ""
    yield from _more(found)
    yield f"order: {found['preset']}; each component in percent of the whole, its factors in points"


def _component(factors: Sequence[Answer]) -> str:
    percent = 100 * sum(each["part"] for each in factors)
    points = ":".join(f"{each['points']:>6.3g}" for each in factors)
    return f"{percent:>6.1f}({points})"


def diagnose_nodes(nodes: Iterable[Answer]) -> Iterator[str]:
    """All nodes, a line each."""
    form = "{:<20} {:<9} {:>13} {:>21}  {}"
    yield "diagnosing node table"
    yield form.format("Name", "State", "Procs", "Memory", "Features")
    yield ""
    for node in nodes:
        capacity, free = node["capacity"], node["free"]
        cpus, free_cpus = capacity["cpu_milli"] / 1000, free["cpu_milli"] / 1000
        memory = f"{format_bytes(free['memory_bytes'])}:{format_bytes(capacity['memory_bytes'])}"
        state = _node_state(node, cpus - free_cpus, free_cpus)
        features = " ".join(f"[{name}]" for name in node["features"]) or "[NONE]"
        yield form.format(node["name"], state, f"{free_cpus:g}:{cpus:g}", memory, features)
        if node["trouble"]:
            yield f"  ALERT:  {printable(node['trouble'])}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _number(value: float | None, times: float = 1) -> str:
    return "-" if value is None else f"{value * times:.2f}"
