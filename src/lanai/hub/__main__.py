"""`python -m lanai.hub DIR`: runs a hub in the foreground until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from lanai.hub.server import Hub, Options
from lanai.model.errors import LanaiError
from lanai.model.node import LEASE_S


def main() -> int:
    """Run; returns the exit code."""
    arguments = _parser().parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        return asyncio.run(_run(_options(arguments), arguments.ready_fd))
    except LanaiError as error:
        logging.getLogger("lanai.hub").error("%s", error.message)
        _say(arguments.ready_fd, {"error": error.body()})
        return error.exit_code


async def _run(options: Options, ready_fd: int | None) -> int:
    return await Hub(options).run(lambda facts: _say(ready_fd, facts))


def _say(ready_fd: int | None, facts: dict[str, Any]) -> None:
    if ready_fd is not None:
        os.write(ready_fd, msgspec.json.encode(facts) + b"\n")
        os.close(ready_fd)


def _options(arguments: argparse.Namespace) -> Options:
    directory: Path = arguments.directory.absolute()
    host, _, port = arguments.listen.rpartition(":")
    return Options(
        directory=directory,
        is_private=arguments.private,
        listen=(host.strip("[]") or "0.0.0.0", int(port)),
        join_file=arguments.join_file or directory.parent / "join",
        token_file=directory / "token",
        lease_us=round(arguments.lease_s * 1e6),
        durability=arguments.durability,
        idle_end_s=arguments.idle_end_s,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lanai.hub", description="A hub, in the foreground.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="where it keeps its state")
    parser.add_argument("--private", action="store_true", help="Unix socket only; ends when nobody needs it")
    parser.add_argument("--listen", default="0.0.0.0:0", metavar="HOST:PORT", help="port 0: the one of last time")
    parser.add_argument("--join-file", type=Path, help="where to leave what agents need (default: DIR/../join)")
    parser.add_argument("--lease-s", type=float, default=float(LEASE_S), help="how long a silent node keeps its jobs")
    parser.add_argument("--durability", choices=("full", "normal"), default="full")
    parser.add_argument("--idle-end-s", type=float, default=60.0, help="when a private hub ends")
    parser.add_argument("--ready-fd", type=int, help="descriptor that gets a line of JSON when it takes work")
    return parser


if __name__ == "__main__":
    sys.exit(main())
