"""`python -m lanai` is the `lanai` command."""

from __future__ import annotations

import sys

from lanai.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
