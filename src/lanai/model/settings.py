"""What a person may set in `config.toml`, checked: an unknown key is refused and the nearest known one suggested.

    hub = "https://host:8443"        # which hub; else the one of this machine
    token_file = "/path/to/token"    # for a hub given by URL
    [submit]                         # defaults of `lanai submit` and `lanai run`
    memory = "2G"
    [agent]                          # what `lanai agent start` offers
    cpus = 8
    cpu_limit = "quota"
    features = ["ssd"]
    [agent.resources]
    licence = 3
    [keep]                           # of `lanai hub start`: how long what is over is kept
    batches_days = 90
    [access]                         # of `lanai hub start`: who may come in by the Unix socket, and who is more
    local = "everyone"
    operators = ["olga"]

Values of sizes and times are texts as the command line takes them; who uses them reads them, but whether they can be
read is looked at here, where file and key are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from lanai.model.access import user_name
from lanai.model.errors import UserError
from lanai.model.features import parse_feature
from lanai.model.units import (
    UnitError,
    parse_bytes,
    parse_count,
    parse_duration,
    parse_gpu_ids,
    parse_milli,
    parse_offered_milli,
)

Quantity = int | float | str
Count = Annotated[int, msgspec.Meta(ge=0)]
CgroupUse = Literal["auto", "none"]
CpuLimit = Literal["none", "weight", "quota"]
Priority = Annotated[int, msgspec.Meta(ge=1, le=10000)]


class SubmitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Defaults of what a submission asks for; None where the configuration says nothing."""

    cpus: Quantity | None = None
    memory: Quantity | None = None
    gpus: Quantity | None = None
    time: Quantity | None = None
    retries: Count | None = None
    priority: Priority | None = None
    max_running: Count | None = None
    shell: bool | None = None
    account: str | None = None
    service: str | None = None


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an agent offers; None is what it detects. And whom it serves, and how it limits what it runs.

    Attributes:
        features: names of what jobs may ask for, besides its operating system and kind of processor.
        output_limit: how much is kept of each output of an attempt, 1G unless given; 0 is for all.
        as_users: run each job as the user who has submitted it; for an agent that root starts.
        min_uid: the lowest uid that such an agent serves, but for root's.
        allow_root: whether it runs root's jobs.
        cgroups: whether it makes control groups where it can.
        cgroup_base: the control group to make others in, below where such groups are mounted; None: the agent's own.
        cpu_limit: what becomes of the cpus that a job asks for: nothing, a share by it, or that and no more.
        user_processes: how many processes the jobs of one user may be at once; 0 for any number.
    """

    name: str | None = None
    cpus: Quantity | None = None
    memory: Quantity | None = None
    gpus: int | str | None = None
    resources: dict[str, Count] = {}
    features: list[str] = []
    output_limit: Quantity | None = None
    as_users: bool = False
    min_uid: Count = 0
    allow_root: bool = True
    cgroups: CgroupUse = "auto"
    cgroup_base: str | None = None
    cpu_limit: CpuLimit = "none"
    user_processes: Count = 0


Days = Annotated[float, msgspec.Meta(ge=0, le=36500)]


class KeepSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many days a hub keeps what is over; 0 is for ever.

    Attributes:
        batches_days: ended batches, with their jobs, attempts and ends of outputs, from when they ended.
        events_days: what happened to nodes and batches.
    """

    batches_days: Days = 90
    events_days: Days = 30


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may use a hub, besides its own user and root; and who may do more than what users may.

    Attributes:
        local: who may use its Unix socket: `owner`, or `everyone` on its machine, as the user he is there.
        socket: one more place for that socket, which others can reach: the hub's directory is closed to them.
        listen: HOST:PORT where agents of other machines connect; empty: any free port, and later the same again.
        operators, admins: names of users, by whatever door they come.
    """

    local: Literal["owner", "everyone"] = "owner"
    socket: str = ""
    listen: str = ""
    operators: list[str] = []
    admins: list[str] = []


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of the configuration. `hub` is a URL or the path of a hub's directory; empty: this machine's."""

    hub: str = ""
    token_file: str = ""
    submit: SubmitSettings = SubmitSettings()
    agent: AgentSettings = AgentSettings()
    keep: KeepSettings = KeepSettings()
    access: AccessSettings = AccessSettings()


def listen_address(text: str) -> str:
    """HOST:PORT as it is, its host in brackets where that is an address of version 6, or left out; or nothing at all.

    Raises:
        UserError: it is something else.
    """
    import re

    if text and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]*):\d{1,5}", text):
        raise UserError(f"found {text!r}, accepted is HOST:PORT", code="bad_address", facts={"found": text})
    return text


_TABLES: dict[str, type[msgspec.Struct]] = {
    "submit": SubmitSettings,
    "agent": AgentSettings,
    "keep": KeepSettings,
    "access": AccessSettings,
}
_READ_BY: dict[str, dict[str, Callable[[str], object]]] = {
    "submit": {"cpus": parse_milli, "memory": parse_bytes, "gpus": parse_count, "time": parse_duration},
    "agent": {
        "cpus": parse_offered_milli,
        "memory": parse_bytes,
        "gpus": parse_gpu_ids,
        "output_limit": parse_bytes,
    },
    "access": {"listen": listen_address},
}


def settings_from(files: Sequence[tuple[str, Mapping[str, object]]]) -> Settings:
    """The settings that parsed TOML files give together, later ones over earlier ones, key by key.

    Args:
        files: (name for errors, what was parsed), the weakest first.

    Raises:
        UserError: a key that is not known (with the nearest that is), a value of a wrong type, or one that cannot be
            read; names file and key.
    """
    merged: dict[str, object] = {}
    for name, parsed in files:
        problems = [*_unknown(name, "", parsed, Settings)] or [*_wrong(name, parsed)] or [*_unread(name, parsed)]
        if problems:
            raise UserError("; ".join(problems), code="bad_config", facts={"file": name, "problems": problems})
        for key, value in parsed.items():
            before = merged.get(key)
            merged[key] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return msgspec.convert(merged, Settings)


def _unknown(name: str, prefix: str, table: Mapping[str, object], kind: type[msgspec.Struct]) -> Iterator[str]:
    from difflib import get_close_matches

    known = kind.__struct_fields__
    for key, value in table.items():
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.5)
            advice = f"did you mean {prefix}{near[0]}?" if near else "known are " + ", ".join(known)
            yield f"{name}: unknown key {prefix}{key}; {advice}"
        elif not prefix and key in _TABLES and isinstance(value, Mapping):
            yield from _unknown(name, f"{key}.", value, _TABLES[key])


def _wrong(name: str, parsed: Mapping[str, object]) -> Iterator[str]:
    try:
        msgspec.convert(parsed, Settings)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$.")
        key = path.rstrip("`") or "the file"
        yield f"{name}: {key}: {text[:1].lower()}{text[1:]}"


def _unread(name: str, parsed: Mapping[str, object]) -> Iterator[str]:
    """Values of the right type that nobody could make sense of."""
    settings = msgspec.convert(parsed, Settings)
    for table, readers in _READ_BY.items():
        for key, read in readers.items():
            value = getattr(getattr(settings, table), key)
            if value is not None:
                yield from _problem(f"{name}: {table}.{key}", read, str(value))
    for key in ("operators", "admins"):
        for user in getattr(settings.access, key):
            yield from _problem(f"{name}: access.{key}", user_name, user)
    for feature in settings.agent.features:
        yield from _problem(f"{name}: agent.features", parse_feature, feature)
    if settings.agent.resources:
        from lanai.model.clauses import named_resource

        for resource in settings.agent.resources:
            yield from _problem(f"{name}: agent.resources", named_resource, resource)


def _problem(place: str, read: Callable[[str], object], text: str) -> Iterator[str]:
    try:
        read(text)
    except (UnitError, UserError) as error:
        yield f"{place}: {error}"
