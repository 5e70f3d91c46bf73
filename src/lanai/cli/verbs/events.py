"""Show what has happened to nodes and batches, or who changed what"""

from __future__ import annotations

import click

from lanai.cli.context import Asked
from lanai.cli.listings import AUDIT, EVENTS
from lanai.cli.tables import print_rows, pushed_limit, view_of, view_options

SHOWN = 100


@click.command(name="events")
@click.option("--audit", is_flag=True, help="The audit trail: who changed what, from where, and who was refused.")
@click.option("--user", metavar="USER", help="Of the audit trail: what this user did.")
@click.option("--since", metavar="TIME", help="Nothing older: a time, or how long ago, e.g. 2h.")
@view_options
@click.pass_obj
def command(
    asked: Asked,
    audit: bool,
    user: str | None,
    since: str | None,
    format_: str,
    columns: str | None,
    filters: tuple[str, ...],
    limit: int | None,
) -> int:
    """Show what has happened to nodes and batches, the newest first; with --audit, who changed what.

    Operators may see the one, administrators both. A table shows the last 100 unless --limit, --since or --filter says
    otherwise.

    \b
    Examples:
      lanai events --since 1d --filter kind=node_away
      lanai events --audit --user ann
      lanai events --audit --filter is_refused=true --format ndjson
    """
    if user and not audit:
        raise click.UsageError("--user is of the audit trail: give --audit with it")
    listing = AUDIT if audit else EVENTS
    if limit is None and since is None and not filters and format_ == "table":
        limit = SHOWN
    view = view_of(listing, format_, columns, filters, limit)
    since_text = "" if since is None else point_in_time(since)
    client = asked.connect()
    if audit:
        rows = client.audit(limit=pushed_limit(view), user=user or "", since=since_text)
    else:
        rows = client.events(limit=pushed_limit(view), since=since_text)
    print_rows(listing, rows, view)
    return 0


def point_in_time(text: str) -> str:
    """A time that `--since` names, or a length of time before now, as RFC 3339. Raises click.UsageError."""
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
