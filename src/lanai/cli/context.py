"""What every verb is given: the global options, and the way to a hub that follows from them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The global options. None: not given."""

    hub: str | None = None
    token_file: str | None = None
    verbose: int = 0
