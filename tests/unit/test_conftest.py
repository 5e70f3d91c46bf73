"""The fixtures that hold for every test do their work: a careless or an impossible test is noticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"

LEAVES_A_DAEMON = """
import subprocess
def test_careless():
    subprocess.run(["sh", "-c", "setsid sleep 300 >/dev/null 2>&1 & echo $! >daemon.pid"], check=True)
"""

NEEDS_NAMESPACES = """
import pytest
@pytest.mark.netns
def test_never_reached():
    raise AssertionError
"""


def run_pytest(folder: Path, source: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    netns\n")
    (folder / "test_inner.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_inner.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_daemon_left_behind_fails_its_test_and_is_ended(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, LEAVES_A_DAEMON, dict(os.environ))
    pid = int((tmp_path / "daemon.pid").read_text())
    assert f"test_careless left running: {pid} sleep 300" in run.stdout
    assert run.returncode == 1
    assert not Path(f"/proc/{pid}/cmdline").exists() or Path(f"/proc/{pid}/cmdline").read_bytes() == b""


@pytest.mark.parametrize(
    ("ci", "returncode", "shown"),
    [("1", 1, "needs root and iproute2"), ("", 0, "NOT RUN: 1 tests need root and iproute2")],
)
def test_without_namespaces_ci_fails_and_others_are_told(tmp_path: Path, ci: str, returncode: int, shown: str) -> None:
    run = run_pytest(tmp_path, NEEDS_NAMESPACES, {**os.environ, "CI": ci, "PATH": "/nonexistent"})
    assert shown in run.stdout
    assert run.returncode == returncode
