"""The starter: a small single-threaded process per user that spawns, limits and reaps commands, and outlives its agent.

Run as a file with ``python -I -S -X utf8 starter.py LISTEN_FD DIRECTORY MARK IDLE_S [USER MIN_UID ALLOW_ROOT]``;
standard library only, since it has to stay small and to start quickly. This file only makes the process what it has to
be, the user's where one is named; the loop is in ``starter_loop.py``. The protocol is described in
docs/starter-protocol.md and frozen at version 1.
"""

import gc
import os
import socket
import sys

# Isolated mode knows no path but the standard library's. Ours goes last, so that nothing beside us can shadow that.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from lanai.agent import starter_account as accounts
from lanai.agent.starter_loop import PROTOCOL, Settings, Starter
from lanai.agent.starter_peers import turn_away
from lanai.agent.starter_signals import adopt_orphans, open_signals

# It is the user's directory: what he puts in the place of the log must not make us wait.
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY


def main(arguments: list[str]) -> int:
    """Serves until there is nothing left to serve. Returns the exit code."""
    if len(arguments) not in (4, 7) or sys.getfilesystemencoding() != "utf-8":
        usage = "starter.py LISTEN_FD DIRECTORY MARK IDLE_S [USER MIN_UID ALLOW_ROOT]"
        print(f"usage: python -I -S -X utf8 {usage}", file=sys.stderr)
        return 2
    listen_fd, directory, mark, idle_s = arguments[:4]
    directory = os.path.abspath(directory)
    _settle_descriptors(int(listen_fd))
    listener = socket.socket(fileno=int(listen_fd))
    listener.set_inheritable(False)
    account = None
    if len(arguments) == 7:
        user, min_uid, allow_root = arguments[4:]
        try:
            account = _become(user, int(min_uid), allow_root == "1", directory)
        except accounts.CannotBecome as problem:
            turn_away(listener, PROTOCOL, str(problem))
            return 1
    adopt_orphans()
    idle_us = int(float(idle_s) * 1_000_000)
    starter = Starter(Settings(listener, open_signals(), directory, mark, idle_us, account))
    # What is here now stays: looking through it for garbage would be most of what the collector does.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    starter.run()
    return 0


def _become(user: str, min_uid: int, allow_root: bool, directory: str) -> accounts.Account:
    """Becomes the user, with a directory and a log of his own. Raises CannotBecome."""
    account = accounts.find(user, min_uid=min_uid, allow_root=allow_root)
    accounts.make_directory(directory, account)
    accounts.become(account)
    accounts.check_reachable(directory)
    try:
        log_fd = os.open(os.path.join(directory, accounts.LOG_NAME), _LOG_FLAGS, 0o600)
    except OSError:
        return account  # a full disk or quota costs the log; what cannot run for it says so itself
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)
    return account


def _settle_descriptors(listen_fd: int) -> None:
    # Whatever was left open in the agent would be open in every command.
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, listen_fd):
            os.closerange(int(name), int(name) + 1)
    # The commands' standard input unless they are given another.
    null_fd = os.open("/dev/null", os.O_RDONLY)
    if null_fd != 0:
        os.dup2(null_fd, 0)
        os.close(null_fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
