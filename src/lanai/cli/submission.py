"""What `run` and `submit` send before the list: settings from options, and the caller's environment.

The options are the same for both verbs. Values that cannot be understood are refused here, with what is accepted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from lanai.cli.terminal import say
from lanai.model.batch import (
    ENV_LIMIT_BYTES,
    PRIORITY_DEFAULT,
    PRIORITY_MAX,
    PRIORITY_MIN,
    BatchSettings,
    Retries,
)
from lanai.model.errors import UserError
from lanai.model.resources import NODES_MAX, TASKS_MAX, Shape
from lanai.model.settings import SubmitSettings
from lanai.model.units import UnitError, parse_bytes, parse_count, parse_duration, parse_milli

PRIORITIES: Final = {"high": 1, "medium": 10, "low": 100}
CAUSES: Final = ("exit", "signal", "check", "time", "memory", "node")
_BY_NUMBER: Final = ("exit", "signal", "check", "time")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def submit_options(function: F) -> F:
    """Add the options that `run` and `submit` share; they arrive as keyword arguments, read by `settings_of`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS: Final = (
    click.option("--cpus", metavar="N", help="Cpus per job, also fractions such as 0.5 (default 1)."),
    click.option("--memory", metavar="SIZE", help="Memory per job, e.g. 512M or 8G: request and limit at once."),
    click.option("--gpus", metavar="N", help="Gpus per job."),
    click.option("--resource", "resources", multiple=True, metavar="NAME=N", help="A named resource per job."),
    click.option(
        "--nodes",
        default="1",
        metavar="N",
        help="Nodes per job, each with all of the above; the command runs on the first. 4-8 and 4+: as many as have "
        "room, four at least. (default 1)",
    ),
    click.option(
        "--tasks-per-node",
        type=click.IntRange(1, TASKS_MAX),
        default=1,
        metavar="T",
        help="How often a node stands in $LANAI_HOSTFILE, and its slots in $LANAI_MPI_HOSTFILE. (default 1)",
    ),
    click.option("--time", "time_limit", metavar="T", help="Time limit per attempt, e.g. 90, 20m, 1h30m."),
    click.option(
        "--retries",
        metavar="N|CAUSE=N,...",
        help="Further attempts of a job that fails. N counts for exit, signal, check and time; or by cause, also"
        " memory (default 1, with twice the memory) and node (default 5).",
    ),
    click.option("--priority", metavar="P", help="1 (most) to 10000, or high, medium (default), low."),
    click.option("--name", metavar="TEXT", help="What to call the batch."),
    click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; may be repeated."),
    click.option("--max-running", type=click.IntRange(min=0), metavar="N", help="At most N jobs at once."),
    click.option("--stop-after", type=click.IntRange(min=0), metavar="N", help="Give up after N failed jobs."),
    click.option("--dir", "directory", metavar="DIR", help="Where the commands start (default: here)."),
    click.option(
        "--output", metavar="FILE", help="Where each job's output goes: %b batch, %i job, %a attempt. (default: kept)"
    ),
    click.option("--error", metavar="FILE", help="The same for standard error."),
    click.option(
        "--env", "variables", multiple=True, metavar="NAME=VALUE", help="Set a variable; NAME alone: as here."
    ),
    click.option("--env-none", is_flag=True, help="Give the jobs none of this environment but what --env names."),
    click.option(
        "--shell/--no-shell",
        "shell",
        default=None,
        help="All lines through /bin/sh, or none (default: as GNU make does, those that need it).",
    ),
    click.option("--account", metavar="NAME", help="The account that its use is charged to (default: your own)."),
    click.option("--service", metavar="NAME", help="Its class of service (default: normal)."),
    click.option("--reservation", metavar="NAME", help="Run its jobs in this reservation."),
    click.option(
        "--start-after", metavar="WHEN", help="Start none before: 2026-12-01T08:00, 08:00 (the next), or +2h from now."
    ),
    click.option("--features", metavar="A,B", help="What each node of a job must have."),
    click.option("--on", metavar="NAMES", help="Which nodes it may have: n1,n2 or n[1-8,12] or gpu-*."),
    click.option("--key", metavar="KEY", help="Submitting again with the same key gives the same batch."),
)


def settings_of(options: Mapping[str, Any], defaults: SubmitSettings, *, is_single: bool = False) -> BatchSettings:
    """A batch's settings from the options of `submit_options` and what the configuration says.

    Raises:
        UserError: an option that cannot be understood; says what was found and what is accepted.
    """
    return BatchSettings(
        name=options["name"] or "",
        labels=dict(_pair("--label", text) for text in options["labels"]),
        priority=priority_of(_or(options["priority"], defaults.priority)),
        max_running=_or(options["max_running"], defaults.max_running) or 0,
        stop_after=options["stop_after"] or 0,
        retries=_retries(_or(options["retries"], defaults.retries)),
        cwd=_directory(options["directory"]),
        umask=_umask(),
        output=_pattern(options["output"]),
        error=_pattern(options["error"]),
        shell=_shell(_or(options["shell"], defaults.shell), is_single=is_single),
        shape=_shape(options, defaults),
        account=_or(options["account"], defaults.account) or "",
        service=_or(options["service"], defaults.service) or "",
        start_after_us=start_of(options["start_after"]) if options["start_after"] else 0,
        reservation=options["reservation"] or "",
        is_held=bool(options.get("hold")),
    )


def start_of(text: str) -> int:
    """The moment that --start-after names. One that is past holds nothing back, and that is said. Raises UserError."""
    now_us = time.time_ns() // 1000
    at_us = moment_of("--start-after", text)
    if at_us < now_us:
        from lanai.model.moments import format_moment

        say(f"lanai: --start-after {text}: {format_moment(at_us)} is past, so its jobs may start at once")
    return at_us


def moment_of(option: str, text: str) -> int:
    """The moment that an option names, in microseconds since 1970. Raises UserError."""
    from lanai.model.moments import parse_moment

    return understood(option, text, lambda text: parse_moment(text, time.time_ns() // 1000))


def environment(options: Mapping[str, Any]) -> dict[bytes, bytes]:
    """The variables that the jobs will have: the caller's, unless --env-none, and those of --env.

    Raises:
        UserError: they are more than `ENV_LIMIT_BYTES` together, or --env names one that is not set here.
    """
    env = {} if options["env_none"] else dict(os.environ)
    for text in options["variables"]:
        name, equals, value = text.partition("=")
        if not name or (not equals and name not in os.environ):
            raise UserError(f"--env {text}: accepted is NAME=VALUE, or the NAME of a variable that is set here")
        env[name] = value if equals else os.environ[name]
    sizes = {name: len(os.fsencode(name)) + len(os.fsencode(value)) + 2 for name, value in env.items()}
    if sum(sizes.values()) > ENV_LIMIT_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise UserError(
            f"the environment has {sum(sizes.values()):,} bytes, at most {ENV_LIMIT_BYTES:,} can be kept with a batch;"
            f" the largest variable is {largest} with {sizes[largest]:,}",
            code="env_too_large",
            hint=f"unset {largest}, or --env-none and --env NAME for what the jobs need",
        )
    return {os.fsencode(name): os.fsencode(value) for name, value in env.items()}


# -- values of options


def _or(given: T | None, default: T | None) -> T | None:
    return default if given is None else given


def understood(option: str, text: object, parse: Callable[[str], T]) -> T:
    """The value of an option. Raises UserError where `parse` raises UnitError."""
    try:
        return parse(str(text))
    except UnitError as error:
        raise UserError(f"{option}: {error}", code="bad_option") from None


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UserError(f"{option}: found {text!r}, accepted is NAME=VALUE", code="bad_option")
    return name, value


def resources_of(texts: Sequence[str]) -> dict[str, int]:
    """The counts that `--resource NAME=N` options give, by name. Raises UserError."""
    from lanai.model.clauses import named_resource

    pairs = [_pair("--resource", text) for text in texts]
    for name, _ in pairs:
        understood("--resource", name, named_resource)
    return {name: understood(f"--resource {name}", value, parse_count) for name, value in pairs}


def _shape(options: Mapping[str, Any], defaults: SubmitSettings) -> Shape:
    named = resources_of(options["resources"])
    least, most = nodes_of(str(options["nodes"]))
    time_limit_s = understood("--time", _or(options["time_limit"], defaults.time) or 0, parse_duration)
    return Shape(
        cpu_milli=understood("--cpus", _given(_or(options["cpus"], defaults.cpus), 1), parse_milli),
        memory_bytes=understood("--memory", _or(options["memory"], defaults.memory) or 0, parse_bytes),
        gpu_milli=1000 * understood("--gpus", _or(options["gpus"], defaults.gpus) or 0, parse_count),
        named=tuple(sorted((name, count) for name, count in named.items() if count)),
        time_limit_us=round(time_limit_s * 1_000_000),
        features=_features(options["features"]),
        on=_names(options["on"]),
        nodes=least,
        nodes_most=most,
        tasks_per_node=options["tasks_per_node"],
    )


def nodes_of(text: str) -> tuple[int, int]:
    """`4` is (4, 0), exactly so many; `4-8` is (4, 8), and `4+` up to as many as a job may have. Raises UserError."""
    import re

    match = re.fullmatch(r"(\d{1,9})(?:(\+)|-(\d{1,9}))?", text.strip(), re.ASCII)
    least, most = (int(match[1]), NODES_MAX if match[2] else int(match[3] or 0)) if match else (0, 0)
    if not 1 <= least <= NODES_MAX or (most and not 2 <= least <= most <= NODES_MAX):
        accepted = f"accepted is 1 to {NODES_MAX}, or from 2 on with an end, such as 4-8 or 4+"
        raise UserError(f"--nodes: found {text!r}, {accepted}", code="bad_option")
    return least, most


def _names(text: str | None) -> str:
    """An expression of names of nodes, as it is. Raises UserError."""
    from lanai.model.node_names import NamesError, names_of

    if text:
        try:
            names_of(text)
        except NamesError as error:
            raise UserError(f"--on: {error}", code="bad_option") from None
    return text or ""


def _features(text: str | None) -> tuple[str, ...]:
    """`a,b`, in order and each once."""
    return tuple(sorted({name.strip() for name in (text or "").split(",")} - {""}))


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def priority_of(value: object) -> int:
    """A priority from 1 to 10000, `high`, `medium` or `low`; None is the default. Raises UserError."""
    if value is None:
        return PRIORITY_DEFAULT
    priority = PRIORITIES.get(str(value)) or (int(str(value)) if str(value).isdecimal() else 0)
    if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        accepted = f"{PRIORITY_MIN} to {PRIORITY_MAX}, high, medium or low"
        raise UserError(f"--priority: found {value!r}, accepted is {accepted}", code="bad_option")
    return priority


def _retries(value: object) -> Retries:
    """`3`, or `exit=2,memory=0`."""
    if value is None:
        return Retries()
    text = str(value)
    if "=" not in text:
        count = understood("--retries", text, parse_count)
        return Retries(**dict.fromkeys(_BY_NUMBER, count))
    counts = {}
    for part in text.split(","):
        cause, number = _pair("--retries", part.strip())
        if cause not in CAUSES:
            raise UserError(f"--retries: found {cause!r}, accepted is {', '.join(CAUSES)}", code="bad_option")
        counts[cause] = understood(f"--retries {cause}", number, parse_count)
    return Retries(**counts)


def _directory(given: str | None) -> str:
    path = _absolute(given or ".")
    if not os.path.isdir(path):
        raise UserError(f"--dir: {path} is no directory here", code="bad_option")
    return path


def _pattern(given: str | None) -> str | None:
    """A file per job, absolute, so that it means the same on every node."""
    if given is None:
        return None
    if not given:
        raise UserError("--output, --error: found an empty name, accepted is a file", code="bad_option")
    return given if given == "/dev/null" else _absolute(given)


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise UserError("the directory that you are in is gone", code="no_directory", hint="cd to another") from None


def _shell(given: bool | None, *, is_single: bool) -> str:
    if given is None:
        return "words" if is_single else "auto"
    return "always" if given else "words" if is_single else "never"


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
