"""Sizes, durations and fractions of cpus, as people write them and as they like to read them.

Parsing is strict: what is not understood is a `UnitError` that carries what was found and what is accepted. All
multiples of bytes are binary (1 K = 1024), as in Parasol, `ulimit` and Slurm. Nothing here knows about any setting.
"""

import re
from decimal import ROUND_CEILING, Decimal

MAX_BYTES = 2**63 - 1
MAX_MILLI = 2**53
MAX_SECONDS = 10 * 366 * 86_400
MAX_GPUS = 1024

ACCEPTED_BYTES = "a size such as 8G, 512M, 1.5g, 64k, 8GiB or a plain number of bytes"
ACCEPTED_DURATION = "a duration such as 90 (seconds), 1h30m, 2d, 500ms or 1:30:00, at most ten years"
ACCEPTED_MILLI = "a number such as 2 or 0.5"
ACCEPTED_COUNT = "a whole number such as 0, 1 or 20"
ACCEPTED_GPUS = "how many such as 4, or ids with commas between such as 0,2 or 3, (one id)"

_BYTES = re.compile(r"(\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})\s*(?:([kmgtpe])(i?b)?|b)?", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,30}(?:\.\d{0,30})?|\.\d{1,30}", re.ASCII)
_GPU_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_:-]{0,99}", re.ASCII)
_CLOCK = re.compile(r"(?:(\d{1,9}):)?(\d{1,9}):(\d{2}(?:\.\d{1,9})?)", re.ASCII)
_DURATION = re.compile(
    r"""
    (?:(?P<w>[\d.]+)\s*w\s*)?
    (?:(?P<d>[\d.]+)\s*d\s*)?
    (?:(?P<h>[\d.]+)\s*h\s*)?
    (?:(?P<m>[\d.]+)\s*(?:min|m(?!s))\s*)?
    (?:(?P<s>[\d.]+)\s*(?:sec|s)\s*)?
    (?:(?P<ms>[\d.]+)\s*ms)?
    """,
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_SECONDS = {
    "w": Decimal(604_800),
    "d": Decimal(86_400),
    "h": Decimal(3_600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}


class UnitError(ValueError):
    """A value that is not understood.

    Attributes:
        found: the text as it was given.
        accepted: what would have been understood, as a phrase for people.
    """

    def __init__(self, found: str, accepted: str) -> None:
        super().__init__(f"found {found!r}, accepted is {accepted}")
        self.found = found
        self.accepted = accepted


def parse_bytes(text: str) -> int:
    """Read a size such as `8G`, `512M`, `1.5g`, `64k`, `8GiB`, `8GB` or `4096`, in bytes and rounded up.

    `k m g t p e` are binary multiples in either case, with or without `B` or `iB`; no suffix means bytes.

    Raises:
        UnitError: not a size, or more than 2**63 - 1 bytes.
    """
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise UnitError(text, ACCEPTED_BYTES)
    power = "kmgtpe".index(match[2].lower()) + 1 if match[2] else 0
    number = match[1]
    size_bytes = int(number) << 10 * power if number.isdigit() else _round_up(Decimal(number) * 1024**power)
    if size_bytes > MAX_BYTES:
        raise UnitError(text, ACCEPTED_BYTES + ", below 8E")
    return size_bytes


def parse_duration(text: str) -> float:
    """Read a duration such as `90`, `1.5`, `1h30m`, `2d`, `500ms`, `1:30` (m:s) or `1:30:00` (h:m:s), in seconds.

    Units are `w d h m min s sec ms`, each at most once and from large to small.

    Raises:
        UnitError: not a duration, or more than ten years.
    """
    duration_s = _duration(text.strip())
    if duration_s is None or duration_s > MAX_SECONDS:
        raise UnitError(text, ACCEPTED_DURATION)
    return float(duration_s)


def parse_milli(text: str) -> int:
    """Read a count that may be a fraction, such as cpus or gpus: `2` is 2000, `0.5` is 500, rounded up.

    Raises:
        UnitError: not a number, negative, or out of range.
    """
    if _NUMBER.fullmatch(text.strip()) is None:
        raise UnitError(text, ACCEPTED_MILLI)
    milli = _round_up(Decimal(text.strip()) * 1000)
    if milli > MAX_MILLI:
        raise UnitError(text, ACCEPTED_MILLI)
    return milli


def parse_offered_milli(text: str) -> int:
    """The same for cpus that a node offers, which must be more than none.

    Raises:
        UnitError: as `parse_milli`, and for 0.
    """
    milli = parse_milli(text)
    if not milli:
        raise UnitError(text, ACCEPTED_MILLI + ", more than 0")
    return milli


def parse_count(text: str) -> int:
    """Read a whole number that is not negative.

    Raises:
        UnitError: anything else, or more than 2**53.
    """
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdigit() and len(stripped) < 20 and int(stripped) <= MAX_MILLI):
        raise UnitError(text, ACCEPTED_COUNT)
    return int(stripped)


def parse_gpu_ids(text: str) -> tuple[str, ...]:
    """Read which gpus are meant, as CUDA_VISIBLE_DEVICES takes them: `2` is `0` and `1`; with commas, the ids.

    A single id is written with a comma behind it (`3,`).

    Raises:
        UnitError: neither; an id twice; or more than 1024.
    """
    stripped = text.strip()
    if stripped.isascii() and stripped.isdigit() and len(stripped) < 5 and int(stripped) <= MAX_GPUS:
        return tuple(map(str, range(int(stripped))))
    ids = tuple(word.strip() for word in stripped.removesuffix(",").split(","))
    if not all(map(_GPU_ID.fullmatch, ids)) or len(set(ids)) < len(ids) or len(ids) > MAX_GPUS or stripped.isdigit():
        raise UnitError(text, ACCEPTED_GPUS)
    return ids


def format_bytes(size_bytes: int) -> str:
    """Write a size for people, at most three figures before the point: `512 B`, `1.5 GiB`, `64 GiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(value) < 1023.95:
            return f"{value:.1f}".removesuffix(".0") + f" {unit}"
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + " EiB"


def format_duration(duration_s: float) -> str:
    """Write a duration for people in its two largest units: `120ms`, `4.2s`, `1m5s`, `1h30m`, `2d3h`.

    What it writes `parse_duration` reads back, to the precision shown.
    """
    if duration_s < 0:
        return "-" + format_duration(-duration_s)
    if duration_s < 0.9995:
        return f"{round(duration_s * 1000)}ms"
    if duration_s < 59.95:
        return f"{duration_s:.1f}".removesuffix(".0") + "s"
    minutes, seconds = divmod(round(duration_s), 60)
    if minutes < 60:
        return _pair(minutes, "m", seconds, "s")
    hours, minutes = divmod(round(duration_s / 60), 60)
    if hours < 24:
        return _pair(hours, "h", minutes, "m")
    days, hours = divmod(round(duration_s / 3600), 24)
    return _pair(days, "d", hours, "h")


def format_milli(milli: int) -> str:
    """Write thousandths as the shortest decimal number: 2000 is `2`, 500 is `0.5`."""
    whole, rest = divmod(milli, 1000)
    return f"{whole}.{rest:03}".rstrip("0").rstrip(".")


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}" + (f"{small}{small_unit}" if small else "")


def _round_up(value: Decimal) -> int:
    return int(value.to_integral_value(rounding=ROUND_CEILING))


def _duration(text: str) -> Decimal | None:
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    if clock := _CLOCK.fullmatch(text):
        return _clock(clock[1], clock[2], clock[3])
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    parts = {unit: number for unit, number in match.groupdict().items() if number is not None}
    if not parts or not all(_NUMBER.fullmatch(number) for number in parts.values()):
        return None
    return sum((Decimal(number) * _SECONDS[unit] for unit, number in parts.items()), Decimal(0))


def _clock(hours: str | None, minutes: str, seconds: str) -> Decimal | None:
    if Decimal(seconds) >= 60 or (hours is not None and int(minutes) >= 60):
        return None
    return Decimal(hours or 0) * 3600 + Decimal(minutes) * 60 + Decimal(seconds)
