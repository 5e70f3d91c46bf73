"""`python -m lanai.cli`: the same as the `lanai` command."""

import sys

from lanai.cli.main import main

sys.exit(main())
