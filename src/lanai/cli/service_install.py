"""Puts the files of a service in place, or takes them away, and has the service manager look at them.

Nothing that somebody else has written is written over or removed, unless that is asked for. All files are looked at
before the first is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from lanai.cli.service_units import ServiceFile, is_ours
from lanai.model.errors import LanaiError, OtherEnd, Refusal, StoreError, UserError

_SYSTEMD_RUNS: Final = "/run/systemd/system"
_COMMAND_S: Final = 120.0
_HOMES: Final = ("/home/", "/root/", "/run/user/")
"""What ProtectHome= closes, as systemd.exec(5) has it."""


class Done(NamedTuple):
    """What became of a file: `written`, `unchanged`, `kept` as it was, `removed` or `missing`."""

    path: Path
    action: str


def install(files: Sequence[ServiceFile], root: Path, *, is_forced: bool) -> list[Done]:
    """Write them below `root`.

    Raises:
        Refusal: one is there that was changed by hand; how it differs is among its facts. Nothing was written.
        StoreError: one cannot be written.
    """
    if not is_forced:
        refuse_changed(files, root)
    done = []
    for file in files:
        path = _below(root, file.path)
        before = _text(path)
        if before is not None and (before == file.text or file.is_kept):
            done.append(Done(path, "unchanged" if before == file.text else "kept"))
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            made = path.with_name(path.name + ".lanai-new")
            made.write_text(file.text)
            made.chmod(0o644)
            made.replace(path)
        except OSError as error:
            raise _unwritable(path, error) from None
        done.append(Done(path, "written"))
    return done


def uninstall(files: Sequence[ServiceFile], root: Path, *, is_forced: bool) -> list[Done]:
    """Remove them below `root`; errors as of `install`."""
    if not is_forced:
        refuse_changed(files, root)
    done = []
    for file in files:
        path = _below(root, file.path)
        if file.is_kept or not path.exists():
            done.append(Done(path, "kept" if path.exists() else "missing"))
            continue
        try:
            path.unlink()
        except OSError as error:
            raise _unwritable(path, error) from None
        done.append(Done(path, "removed"))
    return done


def refuse_homes(*paths: str) -> None:
    """Raises UserError where one of them, or what it is a link to, lies in a home: those are closed to the hub."""
    for path in paths:
        for place in (os.path.abspath(path), os.path.realpath(path)):
            if place.startswith(_HOMES):
                raise UserError(
                    f"the hub cannot run what lies in a home, which is closed to it: {place}",
                    code="in_a_home",
                    hint="install Lanai where everybody can read it: python3 -m venv /opt/lanai; or give --python",
                    facts={"path": place},
                )


def has_systemd() -> bool:
    """Whether systemd is what runs this machine's services."""
    return os.path.isdir(_SYSTEMD_RUNS)


def is_known(unit: str) -> bool:
    """Whether systemd has such a unit."""
    return _answers("systemctl", "cat", unit)


def is_active(unit: str) -> bool:
    """Whether such a unit runs."""
    return _answers("systemctl", "is-active", "--quiet", unit)


def make_user(file: str) -> None:
    """Have the user that a sysusers.d file tells of; harmless where he is there. Raises OtherEnd."""
    import pwd

    try:
        pwd.getpwnam("lanai")
    except KeyError:
        if shutil.which("systemd-sysusers"):
            run("systemd-sysusers", file)
        else:
            words = ("--system", "--user-group", "--home-dir", "/var/lib/lanai", "--no-create-home")
            run("useradd", *words, "--shell", "/usr/sbin/nologin", "--comment", "Lanai hub", "lanai")


def run(*words: str) -> None:
    """Run a command of the system's. Raises OtherEnd with what it said."""
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OtherEnd(f"{words[0]} cannot be run: {error}", code="command_failed") from None
    if ended.returncode:
        why = (ended.stderr or ended.stdout).strip() or f"exit code {ended.returncode}"
        raise OtherEnd(f"`{' '.join(words)}` failed: {why}", code="command_failed")


def _answers(*words: str) -> bool:
    try:
        return subprocess.run(words, capture_output=True, timeout=_COMMAND_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def refuse_changed(files: Iterable[ServiceFile], root: Path) -> None:
    """Raises Refusal where one of them lies below `root` and was changed by hand; how it differs is among its facts."""
    changed = [(path, diff) for file in files for path, diff in _changed(file, root)]
    if changed:
        names = ", ".join(os.fspath(path) for path, _ in changed)
        raise Refusal(
            f"{names} was changed by hand, and is left as it is",
            code="changed_by_hand",
            hint="put what differs into a drop-in (systemctl edit UNIT), then the same with --force",
            facts={"files": [os.fspath(path) for path, _ in changed], "diff": "\n".join(diff for _, diff in changed)},
        )


def _changed(file: ServiceFile, root: Path) -> Iterator[tuple[Path, str]]:
    from difflib import unified_diff

    path = _below(root, file.path)
    found = _text(path)
    if found is None or file.is_kept or found == file.text or is_ours(found):
        return
    lines = unified_diff(found.splitlines(), file.text.splitlines(), os.fspath(path), "of this version", lineterm="")
    yield path, "\n".join(lines)


def _below(root: Path, path: str) -> Path:
    return root / path.removeprefix("/")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> LanaiError:
    return StoreError(f"cannot write {path}: {error.strerror}", code="cannot_write", hint="be root, or give --root DIR")
