"""What stands before the list in a submission: settings and environment, checked before anything is sent to the hub.

No I/O. What is wrong is said all together, by field, with what is accepted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from lanai.model.batch import (
    COUNT_MAX,
    ENV_LIMIT_BYTES,
    PRIORITY_MAX,
    PRIORITY_MIN,
    RESOURCES_EACH,
    SETTINGS_BYTES,
    SHELL_SETTINGS,
    BatchSettings,
)
from lanai.model.clauses import NAME
from lanai.model.errors import UserError
from lanai.model.features import ACCEPTED_FEATURE, is_feature
from lanai.model.node_names import NamesError, names_of
from lanai.model.resources import NODES_MAX, TASKS_MAX

HEAD_BYTES: Final = 2 << 20
"""The longest first line: an environment at its limit, written as JSON escapes, and settings."""

FIRST_LINE_CHARACTERS: Final = 200
KEY_CHARACTERS: Final = 200

_PATTERN: Final = re.compile(r"(?:[^%\0]|%[bia%])*")
_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,63}")
_counts: Final = ("max_running", "stop_after", "grace_us")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a submission, understood.

    Attributes:
        settings: as given, but for `first_line`, which the list decides.
        env: in bytes, as the commands will see it.
        file: what to call the list in errors.
        single: the rest of the body is one command, newlines and all.
    """

    settings: BatchSettings
    env: dict[bytes, bytes]
    file: str = "-"
    single: bool = False

    def digest(self) -> hashlib._Hash:
        """A hash that has taken everything about the batch but its list.

        The environment is left out: a script that repeats its submission from another shell means the same batch,
        although half of what a shell exports (terminals, connections, window ids) differs. So is the start date.
        """
        # `--start-after +2h` names another moment each time.
        lasting = msgspec.structs.replace(self.settings, start_after_us=0)
        begun = hashlib.sha256(msgspec.json.encode(lasting, order="sorted"))
        begun.update(b"\0single\0" if self.single else b"\0list\0")
        return begun

    def with_first_line(self, command: bytes) -> BatchSettings:
        """The settings, with the first command as the batch shows it."""
        shown = command[: 4 * FIRST_LINE_CHARACTERS].decode("utf-8", "replace")[:FIRST_LINE_CHARACTERS]
        return msgspec.structs.replace(self.settings, first_line=shown)


def head_from(line: bytes) -> Head:
    """The head that a submission's first line holds. Raises UserError with all that is wrong with it."""
    try:
        parsed = json.loads(line)
        if not isinstance(parsed, dict):
            raise ValueError("the first line is no JSON object")
        settings = msgspec.convert(parsed.get("settings", {}), _Settings)
        file, single = msgspec.convert((parsed.get("file", "-"), parsed.get("single", False)), tuple[str, bool])
        env = msgspec.convert(parsed.get("env", {}), dict[str, str])
        encoded = {_raw(name): _raw(value) for name, value in env.items()}
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        raise UserError(f"the submission's first line is not understood: {error}", code="bad_submission") from None
    known = msgspec.convert(msgspec.structs.asdict(settings), BatchSettings)
    problems = [*setting_problems(known, single=single), *_env_problems(encoded)]
    if problems:
        raise UserError("; ".join(problems), code="bad_settings", facts={"problems": problems})
    return Head(settings=known, env=encoded, file=file, single=single)


class _Settings(BatchSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings from outside: a misspelt one is an error, not silence."""


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def setting_problems(settings: BatchSettings, *, single: bool) -> Iterator[str]:
    """What is wrong with settings, by field, with what is accepted. `single`: the batch is one command."""
    if not PRIORITY_MIN <= settings.priority <= PRIORITY_MAX:
        yield f"priority: found {settings.priority}, accepted is {PRIORITY_MIN} to {PRIORITY_MAX}"
    if settings.shell not in SHELL_SETTINGS:
        yield f"shell: found {settings.shell!r}, accepted is {', '.join(SHELL_SETTINGS)}"
    if not 0 <= settings.umask <= 0o777:
        yield f"umask: found {settings.umask:o}, accepted is 0 to 777"
    if settings.stdin != "null" and not (settings.stdin == "pipe" and single):
        yield f"stdin: found {settings.stdin!r}, accepted is null, and pipe where there is a single command"
    for name in ("output", "error"):
        pattern = getattr(settings, name)
        if pattern is not None and not _PATTERN.fullmatch(pattern):
            yield f"{name}: found {pattern!r}, accepted after a % are b, i, a and %"
    numbers = {name: getattr(settings, name) for name in _counts}
    numbers |= {f"retries.{name}": count for name, count in msgspec.structs.asdict(settings.retries).items()}
    for name, number in numbers.items():
        if not 0 <= number <= COUNT_MAX:
            yield f"{name}: found {number}, accepted is 0 to {COUNT_MAX}"
    shape = settings.shape
    amounts = (shape.cpu_milli, shape.memory_bytes, shape.gpu_milli, shape.time_limit_us, *_named(settings))
    if wrong := [amount for amount in amounts if not 0 <= amount <= COUNT_MAX]:
        yield f"shape: found an amount of {wrong[0]}, accepted is 0 to {COUNT_MAX}"
    elif not shape.cpu_milli:
        yield "cpus: found 0, accepted is 0.001 or more (what asks for nothing fits without end)"
    if not 1 <= shape.nodes <= NODES_MAX:
        yield f"nodes: found {shape.nodes}, accepted is 1 to {NODES_MAX}"
    if shape.nodes_most and not 2 <= shape.nodes <= shape.nodes_most <= NODES_MAX:
        yield f"nodes_most: found {shape.nodes_most}, accepted is 0, or no less than nodes, which is 2 or more then"
    if not 1 <= shape.tasks_per_node <= TASKS_MAX:
        yield f"tasks per node: found {shape.tasks_per_node}, accepted is 1 to {TASKS_MAX}"
    if shape.gpu_milli % 1000:
        yield f"shape: found {shape.gpu_milli} thousandths of a gpu, accepted are whole ones"
    yield from _text_problems(settings)
    yield from _credential_problems(settings)


def _credential_problems(settings: BatchSettings) -> Iterator[str]:
    """Names that nothing can have. Whether there is such a thing, and for whom, the hub knows."""
    for name in ("account", "service", "reservation"):
        value = getattr(settings, name)
        if value and not _CREDENTIAL.fullmatch(value):
            yield f"{name}: found {value[:80]!r}, accepted are up to 64 letters, digits and _ . : + -"
    if not 0 <= settings.start_after_us <= COUNT_MAX:
        yield f"start_after_us: found {settings.start_after_us}, accepted is 0 to {COUNT_MAX}"
    features = settings.shape.features
    if len(features) > RESOURCES_EACH or list(features) != sorted(set(features)):
        yield f"features: accepted are at most {RESOURCES_EACH}, in order and each once"
    if settings.shape.on:
        try:
            names_of(settings.shape.on)
        except NamesError as error:
            yield f"on: {error}"
    for feature in features[:RESOURCES_EACH]:
        if not is_feature(feature):
            yield f"features: found {feature[:80]!r}, accepted is {ACCEPTED_FEATURE}"


def _text_problems(settings: BatchSettings) -> Iterator[str]:
    if not settings.cwd.startswith("/") or "\0" in settings.cwd:
        yield f"cwd: found {settings.cwd!r}, accepted is an absolute path"
    named = [name for name, _ in settings.shape.named]
    if len(named) > RESOURCES_EACH or len(set(named)) < len(named) or not all(map(NAME.fullmatch, named)):
        yield f"shape: found {', '.join(named)[:80]!r}, accepted are at most {RESOURCES_EACH} resources, each once"
    try:
        size_bytes = len(msgspec.json.encode(settings))
        if size_bytes > SETTINGS_BYTES:
            yield f"settings: found {size_bytes} bytes of name, labels and paths, accepted are at most {SETTINGS_BYTES}"
    except UnicodeEncodeError:
        yield "settings: found bytes that are no UTF-8 (in a name, a label or a path), accepted is UTF-8"


def _named(settings: BatchSettings) -> list[int]:
    return [count for _, count in settings.shape.named] or [0]


def _env_problems(env: dict[bytes, bytes]) -> Iterator[str]:
    size_bytes = sum(len(name) + len(value) + 2 for name, value in env.items())
    if size_bytes > ENV_LIMIT_BYTES:
        yield f"env: found {size_bytes} bytes, accepted are at most {ENV_LIMIT_BYTES} (--env-none leaves it out)"
    for name, value in env.items():
        if not name or b"=" in name or b"\0" in name or b"\0" in value:
            yield f"env: found {name!r}, accepted are names without = and texts without NUL"
