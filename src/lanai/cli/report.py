"""A file about a mistake of ours, so that somebody can send it to us."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback

from lanai import __version__


def write_report(error: BaseException) -> str:
    """Write what is known of `error` to a new file; returns what the user can do about it, naming the file.

    The file holds the versions, the arguments and the stack, and nothing of the environment.
    """
    text = "\n".join(
        (
            f"lanai {__version__}, Python {sys.version}",
            f"at {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} in {_here()}",
            f"arguments: {sys.argv[1:]}",
            "".join(traceback.format_exception(error)),
        )
    )
    descriptor, path = tempfile.mkstemp(prefix="lanai-report-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return f"the report lies in {path}; please send it to us"


def _here() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        return f"a directory that cannot be told: {error.strerror}"
