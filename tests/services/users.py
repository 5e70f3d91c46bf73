"""Real users of this computer, made for tests and removed afterwards. For root only."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def needs_root() -> None:
    """Fail in CI, and leave the test out aloud elsewhere, where nobody else's rights can be taken on."""
    if os.geteuid() == 0:
        return
    if os.environ.get("CI"):
        pytest.fail("this test takes on other users' rights, for which it has to be root")
    pytest.skip("takes on other users' rights: run it as root")


@contextlib.contextmanager
def made_users(*roles: str) -> Iterator[list[pwd.struct_passwd]]:
    """One user for each role, with a home and no login; `ROLE+GROUP` also makes a group that he belongs to."""
    needs_root()
    homes = Path(tempfile.mkdtemp(prefix="lanai-homes-"))
    homes.chmod(0o755)
    names: list[str] = []
    groups: list[str] = []
    try:
        for role in roles:
            short, _, group = role.partition("+")
            name = f"lt-{short}-{os.getpid()}"
            words = ["useradd", "--create-home", "--home-dir", str(homes / name), "--shell", "/usr/sbin/nologin"]
            if group:
                groups.append(f"lt-{group}-{os.getpid()}")
                _run("groupadd", groups[-1])
                words += ["--groups", groups[-1]]
            _run(*words, name)
            names.append(name)
            (homes / name).chmod(0o700)
        yield [pwd.getpwnam(name) for name in names]
    finally:
        for name in names:
            _run("userdel", name)
        for group in groups:
            _run("groupdel", group)
        shutil.rmtree(homes)


@contextlib.contextmanager
def named_users(*names: str) -> Iterator[list[pwd.struct_passwd]]:
    """Users of exactly these names, also such as `useradd` takes for bad ones; without homes and logins."""
    needs_root()
    made: list[str] = []
    try:
        for name in names:
            words = ["useradd", "--badname", "--no-create-home", "--home-dir", "/nonexistent"]
            _run(*words, "--shell", "/usr/sbin/nologin", name)
            made.append(name)
        yield [pwd.getpwnam(name) for name in names]
    finally:
        for name in made:
            _run("userdel", name)


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A new directory that everybody gets through, unlike those that pytest makes."""
    made = Path(tempfile.mkdtemp(prefix="lanai-test-"))
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
