"""The API process: `python -m lanai.api DIR [--listen HOST:PORT]... [--parent PID]`, started by the hub in DIR.

It listens first and imports the rest afterwards, so that clients can connect at once and find an answer a moment later.
It ends when the connection to its hub does, on SIGTERM, and for no other reason; SIGINT and SIGHUP are the hub's.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from pathlib import Path

from lanai.model import places
from lanai.wire import unix


def main() -> int:
    """Listen, then serve until the hub ends."""
    arguments = _arguments()
    directory: Path = arguments.directory.absolute()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Who may connect is asked at each request who he is; the mode only spares us those who may not come in at all.
    mode = 0o666 if arguments.local == "everyone" else 0o600
    local = [unix.listen(path, mode=mode) for path in (places.api_socket(directory), arguments.socket) if path]
    gc.disable()  # importing makes nothing that could be collected
    from lanai.api.identity import Admission
    from lanai.api.serving import serve

    gc.freeze()
    gc.enable()
    admission = Admission(
        is_open=arguments.local == "everyone",
        operators=frozenset(arguments.operator),
        admins=frozenset(arguments.admin),
    )
    return serve(directory, local, arguments.listen, admission, parent=arguments.parent)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lanai.api", description="The API process of a hub.")
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--listen", type=_address, action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="one more Unix socket")
    parser.add_argument("--local", choices=("owner", "everyone"), default="owner", help="who may use the Unix sockets")
    parser.add_argument("--operator", action="append", default=[], metavar="USER")
    parser.add_argument("--admin", action="append", default=[], metavar="USER")
    parser.add_argument("--parent", type=int, default=os.getppid(), metavar="PID", help="the hub's process")
    return parser.parse_args()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    sys.exit(main())
