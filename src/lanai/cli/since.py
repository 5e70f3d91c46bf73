"""`--since`: a time, or how long ago."""

from __future__ import annotations

import click


def since_text(text: str) -> str:
    """A time, or a length of time before now, as RFC 3339.

    Raises:
        click.UsageError: it is neither.
    """
    from datetime import UTC, datetime, timedelta

    from lanai.cli.filters import ACCEPTED_TIME
    from lanai.model.units import UnitError, parse_duration

    try:
        at = datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (UnitError, OverflowError):
        try:
            at = datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            raise click.UsageError(f"--since: found {text!r}, accepted is 2h, or {ACCEPTED_TIME}") from None
    return at.isoformat().replace("+00:00", "Z")
