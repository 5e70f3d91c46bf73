"""A policy written as TOML, such as `policy_file` reads: what it gives back is the same policy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from lanai.model.policy import (
    CAPS,
    NO_LIMITS,
    UNLIMITED,
    AccountPolicy,
    Bound,
    GroupPolicy,
    Limits,
    Policy,
    ServicePolicy,
    UserPolicy,
    Weights,
)
from lanai.model.policy_file import NO_LIMIT
from lanai.model.units import format_milli

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_UNITS: Final = ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms"))
_FLAGS: Final = {
    "is_preemptor": "preemptor",
    "is_preemptee": "preemptee",
    "is_dedicated": "dedicated",
    "may_backfill": "backfill",
    "reserves_always": "reserve_always",
}
_NAMES: Final = {"estimate_us": "estimate", "target_wait_us": "target_wait", "half_life_us": "half_life", **_FLAGS}
_SCHEDULE: Final = ("preset", "backfill", "depth", "backfill_order", "half_life_us", "node_choice", "sharing")

Named = AccountPolicy | UserPolicy | GroupPolicy | ServicePolicy


def policy_to_toml(policy: Policy) -> str:
    """All that is settled by it; of accounts, users, groups and services only what differs from the default."""
    return "\n".join(_lines(policy)) + "\n"


def _lines(policy: Policy) -> Iterator[str]:
    yield "[schedule]"
    for name in _SCHEDULE:
        yield f"{_NAMES.get(name, name)} = {_value(name, getattr(policy, name))}"
    yield "\n[weights]"
    yield from _factors(policy.weights, None)
    if policy.caps != CAPS:
        yield "\n[caps]"
        yield from _factors(policy.caps, CAPS)
    named: dict[str, Mapping[str, Named]] = {
        "accounts": policy.accounts,
        "users": policy.users,
        "groups": policy.groups,
        "services": policy.services,
    }
    for kind, each in named.items():
        for name, settled in each.items():
            yield f"\n[{kind}.{_key(name)}]"
            yield from _fields(settled)
    for kind, limits in (("limits", policy.limits), ("batch_limits", policy.batch_limits)):
        if limits != NO_LIMITS:
            yield f"\n[{kind}]"
            yield from _limits(limits, "")


def _factors(weights: Weights, usual: Weights | None) -> Iterator[str]:
    for name in weights.__struct_fields__:
        value: float = getattr(weights, name)
        if usual is None or value != getattr(usual, name):
            yield f"{name} = {_quoted(NO_LIMIT) if value == CAPS.age else _number(value)}"


def _fields(settled: Named) -> Iterator[str]:
    usual = type(settled)()
    for name in settled.__struct_fields__:
        value = getattr(settled, name)
        if name == "limits":
            yield from _limits(settled.limits, "limits.")
        elif value != getattr(usual, name):
            yield f"{_NAMES.get(name, name)} = {_value(name, value)}"


def _limits(limits: Limits, prefix: str) -> Iterator[str]:
    for name in limits.__struct_fields__:
        bound: Bound = getattr(limits, name)
        if bound != Bound():
            both = [_limit(name, bound.soft), _limit(name, bound.hard)]
            yield f"{prefix}{name} = {both[0] if both[0] == both[1] else f'[{both[0]}, {both[1]}]'}"


def _limit(name: str, value: int) -> str:
    if value == UNLIMITED:
        return _quoted(NO_LIMIT)
    if name in ("cpus", "gpus"):
        return format_milli(value)
    if name == "memory":
        return _quoted(f"{value >> 10}G" if value and not value % 1024 else f"{value}M")
    return str(value)


def _value(name: str, value: object) -> str:
    if name.endswith("_us") and isinstance(value, int):
        return _quoted(_duration(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    return _list(value) if isinstance(value, tuple) else _quoted(value) if isinstance(value, str) else str(value)


def _duration(value_us: int) -> str:
    """As it is read back, exactly."""
    for unit_us, unit in _UNITS:
        if value_us and not value_us % unit_us:
            return f"{value_us // unit_us}{unit}"
    return f"{value_us // 1_000_000}.{value_us % 1_000_000:06}"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _list(values: Iterable[object]) -> str:
    return "[" + ", ".join(_quoted(str(value)) for value in values) + "]"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def differs(one: Policy, other: Policy) -> tuple[str, ...]:
    """Which parts of two policies are not the same, by the names of their tables and keys, in order."""
    found = (name for name in Policy.__struct_fields__ if getattr(one, name) != getattr(other, name))
    return tuple(_NAMES.get(name, name) for name in found)


def policy_shown(policy: Policy) -> dict[str, object]:
    """All of it as JSON has it, for programs: null is without limit."""
    return {name: _plain(msgspec.to_builtins(getattr(policy, name))) for name in policy.__struct_fields__}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if value in (UNLIMITED, CAPS.age) else value


def policy_from_json(text: str) -> Policy:
    """A policy as `policy_to_json` wrote it, in this version or an earlier one."""
    return msgspec.json.decode(text, type=Policy)


def policy_to_json(policy: Policy) -> str:
    """All of it, for machines and for the store."""
    return msgspec.json.encode(policy).decode()
