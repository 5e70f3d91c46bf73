"""Ends what a dead agent has left in control groups, and removes these: `python -m lanai.agent.clear DIR`.

Harmless where there is nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lanai.agent.cgroups import remove_left


def main(state: Path) -> str | None:
    """Returns what the kernel refused; None if all went well."""
    try:
        remove_left(state)
    except OSError as error:
        return f"cannot remove the control groups of {state}: {error.strerror}"
    return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
