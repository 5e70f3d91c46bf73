"""What the standard library has no call for: a descriptor to read signals from, and the adoption of orphans.

Standard library only, part of the starter. Signals come by signalfd rather than by handlers: a handler, its wake-up
pipe and the interrupted call cost several microseconds for every command that ends.
"""

import ctypes
import os
import signal

_PR_SET_CHILD_SUBREAPER = 36
_INFORMATION_BYTES = 128  # sizeof(struct signalfd_siginfo); the signal's number comes first
_MASK_BYTES = 128  # sizeof(sigset_t)
# Not left ignored, nor at their defaults: what is ignored here would be ignored by every command, and the defaults end
# us. A handler does neither; exec puts the defaults back.
_HANDLED = (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)
_READ = (signal.SIGCHLD, signal.SIGTERM)


def adopt_orphans() -> None:
    """Makes this process the parent of every orphan among its descendants (PR_SET_CHILD_SUBREAPER)."""
    if _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def open_signals() -> int:
    """Returns a descriptor that can be read when a child has ended or SIGTERM has come; settles all other signals.

    SIGCHLD and SIGTERM stay blocked in this process: who spawns must give the command an empty mask.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number in _HANDLED:
        signal.signal(number, _note)
    signal.pthread_sigmask(signal.SIG_SETMASK, _READ)
    mask = sum(1 << (number - 1) for number in _READ).to_bytes(_MASK_BYTES, "little")
    descriptor = int(_libc().signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return descriptor


def read_signals(descriptor: int) -> bytes:
    """Returns the numbers of the signals that have come, one byte each; reading takes them off."""
    try:
        return os.read(descriptor, 4 * _INFORMATION_BYTES)[::_INFORMATION_BYTES]
    except BlockingIOError:
        return b""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _note(number: int, frame: object) -> None:
    """Does nothing; that it is there is enough."""
