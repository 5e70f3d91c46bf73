"""posix_spawn of the C library, given what has been laid out before: streams, environment, words.

Standard library only, part of the starter. `os.posix_spawn` puts the whole environment together anew for every command
and makes the file actions anew too: for a short job that is a fifth of what the starter does at all, and four system
calls. Here they are laid out once, and what differs from one command to the next is written into its place. Nothing
here decides anything, and nothing is told apart but by the error number that the C library returns.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence

from lanai.agent.starter_descriptors import open_files

# Sizes that hold the opaque types of any C library (glibc: 80, 336 and 128 bytes).
_OPAQUE_BYTES = 512
_SPAWN_SETSID = 0x80
_SPAWN_SETSIGMASK = 0x08
_VARIABLE_BYTES = 256
# There is no other thread that the interpreter's lock would have to be given to.
_c = ctypes.PyDLL(None)


class Streams:
    """Descriptors that become a command's standard input, output and error; None leaves ours, which is /dev/null.

    The descriptors are the caller's and have to stay open for as long as this is used.
    """

    __slots__ = ("actions",)

    def __init__(self, *descriptors: int | None) -> None:
        self.actions = ctypes.create_string_buffer(_OPAQUE_BYTES)
        _c.posix_spawn_file_actions_init(self.actions)
        for number, descriptor in enumerate(descriptors):
            if descriptor is not None:
                _check(_c.posix_spawn_file_actions_adddup2(self.actions, descriptor, number))

    def __del__(self) -> None:
        _c.posix_spawn_file_actions_destroy(self.actions)


class Environment:
    """Variables for many commands, of which the first few differ from one command to the next.

    Attributes:
        block: what `spawn` takes.
        places: one for each of the first variables; its ``value`` is set to ``NAME=value``, at most 255 bytes.

    Raises:
        ValueError: a variable cannot be one: its name holds "=", or one of both a zero byte.
    """

    __slots__ = ("block", "places")

    def __init__(self, variables: Mapping[bytes, bytes], varying: Sequence[bytes]) -> None:
        for name, value in variables.items():
            if b"=" in name[1:] or b"\0" in name or b"\0" in value:
                raise ValueError(f"environment: {os.fsdecode(name)!r} cannot be set")
        fixed = [b"%b=%b" % (name, value) for name, value in variables.items() if name not in varying]
        self.places = [ctypes.create_string_buffer(name, _VARIABLE_BYTES) for name in varying]
        first = [ctypes.cast(place, ctypes.c_char_p) for place in self.places]
        self.block = (ctypes.c_char_p * (len(first) + len(fixed) + 1))(*first, *fixed)


class Words:
    """The words of commands as the C library takes them; one array for each number of words, used again and again."""

    def __init__(self) -> None:
        self._arrays: dict[int, ctypes.Array[ctypes.c_char_p]] = {}

    def lay_out(self, words: list[bytes]) -> "ctypes.Array[ctypes.c_char_p]":
        """Returns the array; it holds these words until the next call."""
        count = len(words)
        array = self._arrays.get(count)
        if array is None:
            array = (ctypes.c_char_p * (count + 1))()
            if count <= 64:
                self._arrays[count] = array
        array[:count] = words  # type: ignore[assignment]  # typeshed knows of lists of c_char_p only
        return array


def spawn(path: bytes, words: "ctypes.Array[ctypes.c_char_p]", environment: Environment, streams: Streams) -> int:
    """Starts a process in a session of its own, with an empty signal mask. Returns its number.

    Raises:
        OSError: it could not be started.
    """
    open_files.lower()
    problem = _c.posix_spawn(_pid_address, path, streams.actions, _attributes, words, environment.block)
    open_files.lift()
    if problem:
        _check(problem)
    return _pid.value


def _check(problem: int) -> None:
    if problem:
        raise OSError(problem, os.strerror(problem))


def _new_attributes() -> "ctypes.Array[ctypes.c_char]":
    attributes = ctypes.create_string_buffer(_OPAQUE_BYTES)
    no_signals = ctypes.create_string_buffer(_OPAQUE_BYTES)
    _check(_c.posix_spawnattr_init(attributes))
    _check(_c.posix_spawnattr_setsigmask(attributes, no_signals))
    _check(_c.posix_spawnattr_setflags(attributes, _SPAWN_SETSID | _SPAWN_SETSIGMASK))
    return attributes


_attributes = _new_attributes()
_pid = ctypes.c_int()
_pid_address = ctypes.byref(_pid)
