"""How an attempt begins: its directory, its streams, its environment, and the one call that makes a process of it.

Standard library only, part of the starter. It keeps no list of what runs. Everything that can go wrong before the
command runs is raised as `CannotStart`, with nothing left open.
"""

import errno
import os
import time
from collections.abc import Callable, Sequence

from lanai.agent import starter_command as command
from lanai.agent import starter_files as files
from lanai.agent import starter_output as output
from lanai.agent.starter_attempt import Attempt
from lanai.agent.starter_cgroups import Leaf, LeafGone, Leaves
from lanai.agent.starter_exec import Environment, Streams, Words, spawn
from lanai.agent.starter_hosts import HostFiles
from lanai.agent.starter_probing import GOOD_US
from lanai.agent.starter_reports import Key

# A directory that is gone, or was removed and made again, is noticed after this long at the latest; where a child has
# to look into it first, after as long as what that saw counts.
_ENTER_AGAIN_US = 20_000


class Spawner:
    """Begins attempts, one at a time. Owns the working directory and the umask of this process.

    Args:
        slots: where output goes unless the user named files.
        leaves: the groups that attempts may have, which know the way back out of one.
        open_input: makes standard input for an attempt that has it by pipe; returns the descriptor for the command.
    """

    def __init__(self, slots: output.Output, leaves: Leaves, open_input: Callable[[Key], int]) -> None:
        self._slots = slots
        self._leaves = leaves
        self._open_input = open_input
        self._host_files = HostFiles(slots.directory)
        self._words = Words()
        self._entered: command.Spec | None = None
        self._enter_again_us = 0

    def ended(self, attempt: Attempt) -> None:
        """Removes what was made for it to begin."""
        if attempt.hosts is not None:
            self._host_files.remove(attempt.key)

    def begin(self, attempt: Attempt, now_us: int) -> None:
        """Starts the attempt's process and fills in what is known of it from then on.

        Raises:
            CannotStart, LeafGone: nothing was started.
        """
        spec = attempt.spec
        if not (spec.has_stdout and spec.has_stderr):
            attempt.slot = self._slots.take()
        try:
            if spec is not self._entered or now_us >= self._enter_again_us:
                self._entered = None
                command.enter(spec)
                self._entered = spec
                self._enter_again_us = now_us + (GOOD_US if spec.places else _ENTER_AGAIN_US)
            if attempt.checks:
                _check_inputs(attempt)
            attempt.wall_us = time.time_ns() // 1000
            if attempt.hosts is not None:
                variables = self._host_files.make(attempt.key, attempt.hosts)
                attempt.extra_environment = {**(attempt.extra_environment or {}), **variables}
            if attempt.leaf is None:
                self._start(attempt)
            else:
                self._start_in(attempt, attempt.leaf)
        except (command.CannotStart, LeafGone):
            if attempt.slot is not None:
                self._slots.give_back(attempt.slot)
            self.ended(attempt)
            raise
        attempt.started_us = now_us

    def _start_in(self, attempt: Attempt, leaf: Leaf) -> None:
        try:
            leaf.enter(attempt.spec)
            self._start(attempt)
        finally:
            self._leaves.go_home()

    def _start(self, attempt: Attempt) -> None:
        if attempt.spec.is_plain and attempt.slot is not None:
            attempt.pid = self._spawn(attempt, attempt.slot.streams)
        else:
            self._begin_with_files(attempt)

    def leave_directory(self) -> None:
        """Leaves the last job's directory, so that an idle starter keeps no file system busy."""
        if self._entered is not None:
            os.chdir("/")
            self._entered = None

    def _begin_with_files(self, attempt: Attempt) -> None:
        spec = attempt.spec
        opened = files.open_user_files(spec, attempt.job)
        descriptors = opened.descriptors
        try:
            attempt.records = opened.records
            if spec.stdin == "pipe":
                descriptors[0] = self._open_input(attempt.key)
            stdin_fd, *outputs = descriptors
            if attempt.slot is not None:
                own = zip(outputs, attempt.slot.descriptors, strict=True)
                outputs = [own_fd if user_fd is None else user_fd for user_fd, own_fd in own]
            attempt.pid = self._spawn(attempt, Streams(stdin_fd, *outputs), opened.awaited)
        finally:
            files.close_all(descriptors)

    def _spawn(self, attempt: Attempt, streams: Streams, awaited: Sequence[str | None] = ()) -> int:
        spec = attempt.spec
        words = attempt.words
        path = spec.programs.get(words[0]) or spec.find(words[0])
        environment = _environment(attempt)
        if any(awaited):
            return self._spawn_other(b"/bin/sh", files.waiting_words(words, path, awaited), environment, streams)
        try:
            return spawn(path, self._words.lay_out(words), environment, streams)
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                return self._spawn_other(b"/bin/sh", [b"sh", path, *words[1:]], environment, streams)
            if error.errno == errno.ENOENT and spec.programs.pop(words[0], None) is not None:
                # The program has moved since it was looked up; looking again raises if it is nowhere.
                return self._spawn_other(spec.find(words[0]), words, environment, streams)
            raise command.spawn_failure(error, path) from None

    def _spawn_other(self, path: bytes, words: list[bytes], environment: Environment, streams: Streams) -> int:
        try:
            return spawn(path, self._words.lay_out(words), environment, streams)
        except OSError as error:
            raise command.spawn_failure(error, path) from None


def _check_inputs(attempt: Attempt) -> None:
    attempt.passed = command.run_checks(attempt.checks, "in", attempt.spec.cwd)
    failed = [result.reason for result in attempt.passed if result.reason is not None]
    if failed:
        raise command.CannotStart("check", None, "; ".join(failed))


def _environment(attempt: Attempt) -> Environment:
    spec = attempt.spec
    environment = spec.environment
    if environment is None:
        raise command.CannotStart("exit", 126, spec.flaw)
    if attempt.extra_environment or attempt.gpus:
        environment = _own_environment(attempt)
    job, index, number, mark, *deadline = environment.places
    job.value, index.value, number.value, mark.value = attempt.variables
    if deadline:
        deadline[0].value = b"LANAI_DEADLINE=%d" % ((attempt.wall_us + spec.time_limit_us) // 1_000_000)
    return environment


def _own_environment(attempt: Attempt) -> Environment:
    variables = attempt.spec.variables.copy()
    try:
        for name, value in (attempt.extra_environment or {}).items():
            variables[os.fsencode(name)] = os.fsencode(value)
        if attempt.gpus:
            ids = os.fsencode(",".join(attempt.gpus))
            variables[b"LANAI_GPUS"] = variables[b"CUDA_VISIBLE_DEVICES"] = ids
        return attempt.spec.lay_out(variables)
    except ValueError as error:
        raise command.CannotStart("exit", 126, str(error)) from None
