"""Lines of a log as the systemd journal takes them: native entries with fields, one datagram each.

Used where standard error is the journal's (`JOURNAL_STREAM` of the environment names that very file); a line written
there would arrive as mere text, without a priority and without the fields by which it can be found.

Formats: systemd's "Native Journal Protocol", and systemd.exec(5) on `JOURNAL_STREAM`.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from typing import Final

SOCKET: Final = "/run/systemd/journal/socket"
ERROR: Final = 3
WARNING: Final = 4
INFO: Final = 6
FIELD_BYTES: Final = 64 << 10
"""Of a longer value the rest is cut off, so that an entry always fits a datagram."""

PATIENCE_S: Final = 0.5
"""A journal that takes nothing for so long misses the line: nothing of ours waits for its log."""

_LENGTH: Final = struct.Struct("<Q")


def is_stderr(environ: Mapping[str, str]) -> bool:
    """Whether this process's standard error goes to the journal."""
    try:
        facts = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{facts.st_dev}:{facts.st_ino}"


def entry(fields: Mapping[str, str | int]) -> bytes:
    """One entry. Names are capital letters, digits and `_`; a value may be any text, of several lines too."""
    return b"".join(_field(name.encode("ascii"), str(value)) for name, value in fields.items())


def _field(name: bytes, text: str) -> bytes:
    value = text.encode("utf-8", "replace")[:FIELD_BYTES]
    if b"\n" in value:
        return name + b"\n" + _LENGTH.pack(len(value)) + value + b"\n"
    return name + b"=" + value + b"\n"


class Journal:
    """Sends entries of one program.

    Args:
        identifier: what `journalctl -t` knows it by.
        always: fields that every entry has besides.
        path: the journal's socket.
    """

    def __init__(self, identifier: str, always: Mapping[str, str | int] | None = None, *, path: str = SOCKET) -> None:
        self._always = {"SYSLOG_IDENTIFIER": identifier, "SYSLOG_PID": os.getpid(), **(always or {})}
        self._path = path

    def send(self, message: str, *, priority: int = INFO, fields: Mapping[str, str | int] | None = None) -> bool:
        """Send one entry; False where the journal did not take it."""
        known = {"MESSAGE": message, "PRIORITY": priority, **self._always, **(fields or {})}
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                speaker.settimeout(PATIENCE_S)
                speaker.sendto(entry(known), self._path)
        except OSError:
            return False
        return True
