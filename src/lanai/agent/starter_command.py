"""What a command is run with: the settings shared by many attempts, its words, its environment, its checks.

Standard library only, part of the starter. Nothing here spawns or waits; failures are raised as `CannotStart`, which
already says which outcome the attempt has and whose fault it is.
"""

import errno
import os
import stat
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lanai.agent.starter_descriptors import open_files
from lanai.agent.starter_exec import Environment
from lanai.agent.starter_probing import silent_places
from lanai.agent.starter_processes import MARK

# The node's fault, not the job's: another node, or the same one later, may well succeed.
NODE_ERRORS = frozenset(
    {
        errno.EAGAIN,
        errno.EDQUOT,
        errno.EHOSTDOWN,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ENOTCONN,
        errno.EROFS,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ETXTBSY,
    }
)
# Of these, those that pass by themselves while others go on: the job is not even charged with an attempt.
PASSING_ERRORS = frozenset(
    {
        errno.EAGAIN,
        errno.EDQUOT,
        errno.EHOSTDOWN,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
_DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"
_VARYING = (b"LANAI_JOB_ID", b"LANAI_INDEX", b"LANAI_ATTEMPT", MARK)
_DEADLINE = b"LANAI_DEADLINE"
_OWN_CHARACTERS = 255
_CHECK_KINDS = frozenset({"exists", "exists+", "line", "line+"})


class CannotStart(Exception):
    """An attempt that could not begin: ``outcome`` and ``exit_code`` as they go into its report.

    ``is_passing``: what kept it from that passes by itself, and an agent that knows what to do gets it back instead.
    """

    def __init__(self, outcome: str, exit_code: int | None, reason: str | None, *, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.exit_code = exit_code
        self.reason = reason
        self.is_passing = is_passing


def node_or(error: OSError, outcome: str, exit_code: int | None, what: str) -> CannotStart:
    """Charges an error to the node if it is of that kind, else to the job with the given outcome."""
    reason = f"{what}: {os.strerror(error.errno or 0)}"
    if error.errno == errno.EMFILE:
        reason += f" ({open_files.shortage()})"
    if error.errno in NODE_ERRORS or outcome == "node":
        return CannotStart("node", None, reason, is_passing=error.errno in PASSING_ERRORS)
    return CannotStart(outcome, exit_code, reason)


class Check(NamedTuple):
    """A check of one file: ``when`` is in or out, ``kind`` exists, exists+, line or line+ as in Parasol."""

    when: str
    kind: str
    path: str


class CheckResult(NamedTuple):
    """How a check went; ``reason`` is None if it passed."""

    check: Check
    reason: str | None


class Spec:
    """The settings that many attempts share; sent once, then named by its id.

    ``environment`` is changed in place for every attempt, since one thread spawns one at a time and copying costs; it
    is None where ``flaw`` says why no command can have it.
    """

    __slots__ = (
        "batch",
        "batch_text",
        "cpu_milli",
        "cwd",
        "environment",
        "flaw",
        "grace_us",
        "has_stderr",
        "has_stdout",
        "is_limited",
        "is_plain",
        "leaf_cpu",
        "memory_bytes",
        "needs_leaf",
        "output_bytes",
        "places",
        "programs",
        "stderr",
        "stdin",
        "stdout",
        "time_limit_us",
        "umask",
        "variables",
    )

    def __init__(self, message: dict[str, Any], about_user: Mapping[bytes, bytes] = MappingProxyType({})) -> None:
        self.batch = int(message["batch"])
        self.batch_text = str(self.batch)
        self.cwd = str(message["cwd"])
        self.umask = int(message.get("umask", 0o022))
        self.stdout: str | None = message.get("stdout")
        self.stderr: str | None = message.get("stderr")
        self.stdin = str(message.get("stdin") or "null")
        self.has_stdout = self.stdout is not None
        self.has_stderr = self.stderr is not None
        self.is_plain = self.stdin == "null" and not self.has_stdout and not self.has_stderr
        self.time_limit_us = int(message.get("time_limit_us") or 0)
        self.memory_bytes = int(message.get("memory_bytes") or 0)
        self.cpu_milli = int(message.get("cpu_milli") or 0)
        leaf = message.get("leaf")
        self.needs_leaf = leaf is not None
        self.leaf_cpu = str((leaf or {}).get("cpu") or "")
        self.output_bytes = int(message.get("output_bytes") or 0)
        self.is_limited = bool(self.time_limit_us or self.memory_bytes)
        self.grace_us = int(message.get("grace_us", 5_000_000))
        self.places = silent_places(_places(self))
        self.programs: dict[bytes, bytes] = {}
        self.variables = {**_base_variables(self, message), **about_user}
        self.environment: Environment | None = None
        self.flaw = ""
        try:
            self.environment = self.lay_out(self.variables)
        except ValueError as error:
            self.flaw = str(error)

    def lay_out(self, variables: dict[bytes, bytes]) -> Environment:
        """Returns an environment with these variables and room for those that each attempt has of its own.

        Raises:
            ValueError: a name or a value cannot be one.
        """
        return Environment(variables, (*_VARYING, _DEADLINE) if self.time_limit_us else _VARYING)

    def find(self, word: bytes) -> bytes:
        """Returns the path of a program by this spec's PATH, as execvp would; a word with a slash is its own path.

        Raises:
            CannotStart: there is none.
        """
        if b"/" in word:
            return word
        known = self.programs.get(word)
        if known is None:
            known = self.programs[word] = self._search(word)
        return known

    def _search(self, word: bytes) -> bytes:
        refused = None
        passing: CannotStart | None = None
        for folder in self.variables.get(b"PATH", _DEFAULT_PATH).split(b":") if word else ():
            path = os.path.join(folder or b".", word)
            try:
                mode = os.stat(path).st_mode
            except OSError as error:
                if error.errno in PASSING_ERRORS:
                    passing = passing or node_or(error, "node", None, os.fsdecode(path))
                continue
            except ValueError:
                continue
            if stat.S_ISREG(mode) and os.access(path, os.X_OK):
                return path
            refused = refused or path
        if refused is not None:
            raise CannotStart("notfound", 127, f"{os.fsdecode(refused)}: not executable")
        if passing is not None:
            raise passing
        raise CannotStart("notfound", 127, f"{os.fsdecode(word)}: command not found")


def _places(spec: Spec) -> list[str]:
    """The directories that an attempt goes to before it begins, as far as their names are the same for all."""
    named = [path for path in (spec.stdout, spec.stderr, None if spec.is_plain else spec.stdin) if path]
    return [spec.cwd, *(os.path.join(spec.cwd, os.path.dirname(path.partition("%")[0])) for path in named)]


def _base_variables(spec: Spec, message: dict[str, Any]) -> dict[bytes, bytes]:
    given: dict[str, str] = message.get("env") or {}
    encoded = {_bytes(name): _bytes(value) for name, value in given.items()}
    encoded[b"LANAI_BATCH_ID"] = b"%d" % spec.batch
    cpu_milli = message.get("cpu_milli")
    if cpu_milli is not None:
        encoded[b"LANAI_CPUS"] = b"%g" % (cpu_milli / 1000)
        if cpu_milli >= 1000 and cpu_milli % 1000 == 0:
            encoded.setdefault(b"OMP_NUM_THREADS", b"%d" % (cpu_milli // 1000))
    if spec.memory_bytes:
        encoded.setdefault(b"LANAI_MEMORY_BYTES", b"%d" % spec.memory_bytes)
    return encoded


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def own_variables(batch: str, index: str, number: str, mark: str) -> list[bytes]:
    """Returns what one attempt has in its environment, as ``NAME=value`` in the order of a spec's environment.

    Raises:
        ValueError: a number is out of all bounds.
    """
    # One text for all of them, since each that is made and encoded costs as much as the four together.
    text = f"LANAI_JOB_ID={batch}/{index}\0LANAI_INDEX={index}\0LANAI_ATTEMPT={number}\0LANAI_MARK={mark}"
    if len(text) > _OWN_CHARACTERS:
        raise ValueError(f"attempt {number[:40]} of job {index[:40]}")
    return text.encode().split(b"\0")


def words_of(command: object) -> list[bytes]:
    """Returns the words of a command: a list is taken as it is, a string is a line for /bin/sh.

    Raises:
        TypeError: it is neither.
        CannotStart: a word cannot be handed to a program.
    """
    if isinstance(command, str):
        return [b"/bin/sh", b"-c", *_words([command])]
    if not isinstance(command, list):
        raise TypeError("a command is a list of words or a line")
    # No words at all are a program of no name, which is nowhere to be found.
    return _words(command) or [b""]


def _words(words: list[str]) -> list[bytes]:
    try:
        encoded = "\0".join(words).encode("utf-8", "surrogateescape").split(b"\0")
    except UnicodeEncodeError:
        raise CannotStart("exit", 126, "a word that is neither text nor bytes") from None
    if len(encoded) != (len(words) or 1):
        raise CannotStart("exit", 126, "a word with a zero byte in it")
    return encoded


def spawn_failure(error: OSError, program: bytes) -> CannotStart:
    """Says what an error of posix_spawn means for the attempt."""
    path = os.fsdecode(program)
    if error.errno == errno.E2BIG:
        return CannotStart("exit", 126, f"{path}: argument list too long")
    if error.errno == errno.ENOENT and os.path.exists(path):
        return CannotStart("notfound", 127, f"{path}: its interpreter was not found")
    if error.errno == errno.ENOENT:
        return CannotStart("notfound", 127, f"{path}: command not found")
    if error.errno in (errno.EACCES, errno.EPERM):
        return CannotStart("notfound", 127, f"{path}: not executable")
    return node_or(error, "notfound", 127, path)


def enter(spec: Spec) -> None:
    """Makes the spec's directory and umask those of this process, so that the next spawn inherits them.

    The directory is entered anew each time: one that was removed and made again is not the one we were in.

    Raises:
        CannotStart: the directory is missing or closed to us; always the node's fault.
    """
    try:
        os.chdir(spec.cwd)
    except OSError as error:
        raise node_or(error, "node", None, f"working directory {spec.cwd}") from None
    except ValueError as error:
        raise CannotStart("node", None, f"working directory {spec.cwd}: {error}") from None
    os.umask(spec.umask)


def parse_extra(extra: object) -> tuple[dict[str, str] | None, tuple[Check, ...]]:
    """Reads what is special to one attempt: additions to its environment, and its checks.

    Raises:
        ValueError, TypeError: it is not what the protocol says.
    """
    if not isinstance(extra, dict):
        raise TypeError("extra is no object")
    checks = tuple(Check(*row) for row in extra.get("checks") or ())
    for check in checks:
        if check.when not in ("in", "out") or check.kind not in _CHECK_KINDS:
            raise ValueError(f"unknown check {check}")
    environment = extra.get("env")
    if environment is not None and not isinstance(environment, dict):
        raise TypeError("env is no object")
    return environment, checks


def run_checks(checks: tuple[Check, ...], when: str, cwd: str) -> list[CheckResult]:
    """Makes the checks of one kind, all of them, at most one complaint per file; relative paths start at ``cwd``.

    Raises:
        CannotStart: outcome node, if a file could not be looked at for a reason of the node's.
    """
    results: list[CheckResult] = []
    bad: set[str] = set()
    for check in checks:
        if check.when == when and check.path not in bad:
            reason = _complaint(check, os.path.join(cwd, check.path))
            if reason is not None:
                bad.add(check.path)
            results.append(CheckResult(check, reason))
    return results


def _complaint(check: Check, path: str) -> str | None:
    label = f"{check.when}put check {check.kind}: {check.path}"
    try:
        size = os.stat(path).st_size
        if check.kind.endswith("+") and size == 0:
            return f"{label} is empty"
        if check.kind.startswith("line") and size > 0 and not _ends_with_newline(path, size):
            return f"{label} does not end with a newline"
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in NODE_ERRORS:
            raise node_or(error, "node", None, label) from None
        missing = isinstance(error, FileNotFoundError)
        return f"{label} {'does not exist' if missing else 'cannot be read: ' + str(error)}"
    return None


def _ends_with_newline(path: str, size: int) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.pread(descriptor, 1, size - 1) == b"\n"
    finally:
        os.close(descriptor)
