"""The files that make hub and agent services: that systemd takes them, and that nobody's own work is written over."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from lanai.cli import main as entry
from lanai.cli import service_units
from lanai.cli.verbs import install_service
from lanai.model.errors import Refusal
from services.unit import command, environment, settings

WHAT = ["hub", "agent"]
UNITS = {"hub": ["lanai-hub.service"], "agent": ["lanai-jobs.service", "lanai-agent.service"]}
ETC = Path("etc/systemd/system")
ROOT = Path(__file__).resolve().parents[2]


def lanai(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lanai", "install-service", *words], capture_output=True, text=True, check=False
    )


def actions(ended: subprocess.CompletedProcess[str], root: Path) -> dict[str, str]:
    assert ended.returncode == 0, ended.stderr
    shown = json.loads(ended.stdout)
    return {str(Path(each["path"]).relative_to(root)): each["action"] for each in shown["files"]}


def unit_texts() -> dict[str, str]:
    files = [
        *service_units.hub_files(sys.executable, is_packaged=False),
        *service_units.agent_files(sys.executable, is_packaged=False),
    ]
    return {Path(file.path).name: file.text for file in files if file.path.endswith(".service")}


@pytest.mark.parametrize("what", WHAT)
def test_files_are_written_once_and_removed_again(what: str, tmp_path: Path) -> None:
    install = (what, "--root", str(tmp_path), "--format", "json")
    first = actions(lanai(*install), tmp_path)
    assert set(first.values()) == {"written"} and {str(ETC / unit) for unit in UNITS[what]} <= set(first)
    assert set(actions(lanai(*install), tmp_path).values()) == {"unchanged"}
    gone = actions(lanai(*install, "--uninstall"), tmp_path)
    assert {path for path, action in gone.items() if action == "removed"} == {
        path for path in first if not path.endswith(".toml")
    }
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in left] == (["config.toml"] if what == "hub" else [])
    again = actions(lanai(*install, "--uninstall"), tmp_path)
    assert {action for path, action in again.items() if path.endswith(".service")} == {"missing"}


def test_a_unit_that_was_changed_by_hand_is_left_alone_and_the_difference_is_shown(tmp_path: Path) -> None:
    """Not one of the files is written then, not even those that nobody has touched."""
    lanai("hub", "--root", str(tmp_path))
    unit = tmp_path / ETC / "lanai-hub.service"
    changed = unit.read_text().replace("RestartSec=2", "RestartSec=77")
    unit.write_text(changed)
    user = tmp_path / "etc/sysusers.d/lanai.conf"
    user.unlink()
    for words in ((), ("--uninstall",)):
        refused = lanai("hub", "--root", str(tmp_path), *words)
        assert refused.returncode == 7
        assert "\n-RestartSec=77\n+RestartSec=2\n" in refused.stderr
        assert f"lanai: {unit} was changed by hand" in refused.stderr
        assert unit.read_text() == changed and not user.exists()
    forced = actions(lanai("hub", "--root", str(tmp_path), "--force", "--format", "json"), tmp_path)
    assert forced == {
        "etc/sysusers.d/lanai.conf": "written",
        "etc/lanai/config.toml": "unchanged",
        str(ETC / "lanai-hub.service"): "written",
    }
    assert "RestartSec=2\n" in unit.read_text()


def test_a_unit_of_an_earlier_version_is_replaced(tmp_path: Path) -> None:
    unit = tmp_path / ETC / "lanai-agent.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(service_units.marked("[Service]\nExecStart=/old/python\n"))
    done = actions(lanai("agent", "--root", str(tmp_path), "--format", "json"), tmp_path)
    assert done[str(ETC / "lanai-agent.service")] == "written"
    assert "/old/python" not in unit.read_text()


def test_the_configuration_is_the_administrators_once_it_is_there(tmp_path: Path) -> None:
    file = tmp_path / "etc/lanai/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("[access]\nlocal = 'owner'\n")
    done = actions(lanai("hub", "--root", str(tmp_path), "--force", "--format", "json"), tmp_path)
    assert done["etc/lanai/config.toml"] == "kept"
    assert file.read_text() == "[access]\nlocal = 'owner'\n"


def test_the_configuration_that_is_installed_can_be_read_with_and_without_its_comments(tmp_path: Path) -> None:
    import tomllib

    from lanai.model.settings import settings_from

    lanai("hub", "--root", str(tmp_path))
    text = (tmp_path / "etc/lanai/config.toml").read_text()
    access = settings_from([("it", tomllib.loads(text))]).access
    assert (access.local, access.socket, access.listen) == ("everyone", "/run/lanai/api.sock", "")
    shown = "\n".join(line[2:] if line.startswith("# ") and ("=" in line or "[" in line) else line
                      for line in text.splitlines() if "nobody but root" not in line)  # fmt: skip
    full = settings_from([("it", tomllib.loads(shown))])
    assert (full.access.listen, full.agent.cpus) == ("0.0.0.0:7001", 8)


@pytest.mark.parametrize("what", WHAT)
def test_a_dry_run_prints_what_would_be_written_and_writes_nothing(what: str, tmp_path: Path) -> None:
    told = lanai(what, "--dry-run", "--root", str(tmp_path))
    assert told.returncode == 0 and list(tmp_path.iterdir()) == []
    lanai(what, "--root", str(tmp_path))
    shown = json.loads(lanai(what, "--dry-run", "--format", "json").stdout)["files"]
    for file in shown:
        assert (tmp_path / file["path"].removeprefix("/")).read_text() == file["text"]
        assert f"# {file['path']}\n{file['text']}" in told.stdout


def test_packages_have_their_units_elsewhere(tmp_path: Path) -> None:
    made = actions(lanai("hub", "--packaged", "--root", str(tmp_path), "--format", "json"), tmp_path)
    assert set(made) == {
        "lib/systemd/system/lanai-hub.service",
        "usr/lib/sysusers.d/lanai.conf",
        "etc/lanai/config.toml",
    }
    assert lanai("hub", "--packaged").returncode == 2


def test_nobody_but_root_installs_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refusal) as refused:
        install_service.command.main(["agent"], standalone_mode=False)
    assert refused.value.code == "not_root" and "--dry-run" in refused.value.hint


def test_a_hub_that_would_lie_in_a_home_is_refused(tmp_path: Path) -> None:
    """Its unit would fail with `203/EXEC`, since ProtectHome= closes all homes, by whatever name one gets there."""
    (tmp_path / "python").symlink_to("/home/ann/venv/bin/python")
    for python in ("/home/ann/venv/bin/python", "/root/x/../python", str(tmp_path / "python")):
        refused = lanai("hub", "--python", python)
        assert refused.returncode == 2
        assert refused.stderr.startswith("lanai: the hub cannot run what lies in a home, which is closed to it: ")
    assert lanai("hub", "--python", "/home/ann/venv/bin/python", "--root", str(tmp_path)).returncode == 0


@pytest.mark.parametrize("unit", sorted(unit_texts()))
def test_systemd_takes_the_units(unit: str, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        if os.environ.get("CI"):
            pytest.fail("needs systemd-analyze: apt-get install systemd", pytrace=False)
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    for name, text in unit_texts().items():
        (tmp_path / name).write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)], capture_output=True, text=True, check=False
    )
    assert unit not in verified.stderr and verified.returncode == 0, verified.stderr


def test_the_hub_is_shut_in(tmp_path: Path) -> None:
    """systemd's own measure, 0 to 10: the sum of what the process could still do to the machine."""
    if not shutil.which("systemd-analyze"):
        if os.environ.get("CI"):
            pytest.fail("needs systemd-analyze: apt-get install systemd", pytrace=False)
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    unit = tmp_path / "lanai-hub.service"
    unit.write_text(unit_texts()[unit.name])
    words = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(unit)]
    measured = subprocess.run(words, capture_output=True, text=True, check=False)
    assert measured.returncode == 0, measured.stdout[-200:]


def test_a_copy_of_the_hub_may_run_out_of_memory_without_it() -> None:
    """By itself systemd ends a service of which the kernel has ended any process for want of memory."""
    assert settings(unit_texts()["lanai-hub.service"], "OOMPolicy") == ["continue"]


def test_a_root_agent_is_not_shut_in_since_its_jobs_would_be() -> None:
    """Each of these is inherited by what the agent starts, and cannot be undone there."""
    lines = unit_texts()["lanai-agent.service"].splitlines()
    inherited = (
        "Protect",
        "Private",
        "RestrictA",
        "RestrictN",
        "RestrictR",
        "RestrictS",
        "NoNew",
        "SystemCall",
        "Capability",
        "Ambient",
        "Memory",
        "OOMScore",
    )
    assert [line for line in lines if line.startswith(inherited)] == []
    assert "KillMode=process" in lines and "OOMPolicy=continue" in lines
    # Groups with controllers in it would keep systemd 252 from starting it again while jobs run.
    assert not settings(unit_texts()["lanai-agent.service"], "Delegate")


def test_the_jobs_have_a_unit_that_outlives_the_agents() -> None:
    jobs, agent = unit_texts()["lanai-jobs.service"], unit_texts()["lanai-agent.service"]
    assert settings(jobs, "Delegate") == ["yes"] and settings(jobs, "KillMode") == ["process"]
    assert "lanai-jobs.service" in settings(agent, "Wants")[0].split()
    assert "lanai-jobs.service" in settings(agent, "After")[0].split()
    words = command(agent)
    assert words[words.index("--cgroup-base") + 1] == "system.slice/lanai-jobs.service"


@pytest.mark.parametrize(("unit", "watchdog_s"), [("lanai-hub.service", 60), ("lanai-agent.service", 120)])
def test_what_both_units_promise(unit: str, watchdog_s: int) -> None:
    text = unit_texts()[unit]
    assert settings(text, "Type") == ["notify"] and settings(text, "WatchdogSec") == [str(watchdog_s)]
    assert settings(text, "StartLimitIntervalSec") == ["0"] and settings(text, "RestartPreventExitStatus") == ["2"]
    assert environment(text) == {"LANAI_HOME": "/var/lib/lanai", "XDG_CONFIG_DIRS": "/etc:/etc/xdg"}


@pytest.mark.parametrize("unit", ["lanai-hub.service", "lanai-agent.service"])
def test_the_command_of_a_unit_is_understood(unit: str) -> None:
    """An option that is not known would be an exit code 2, and with that a service that stays down."""
    words = command(unit_texts()[unit])
    assert words[:4] == [sys.executable, "-P", "-m", "lanai"]
    at: click.Command = entry.command
    left = words[4:]
    while isinstance(at, click.Group):
        context = at.make_context("lanai", left[:1], resilient_parsing=True)
        _, found, _ = at.resolve_command(context, left)
        assert found is not None
        at, left = found, left[1:]
    assert at.make_context("start", left).params["foreground"] is True


@pytest.mark.parametrize("python", ["/opt/with space/python", "/opt/50%/python", '/opt/"quoted"\\/python'])
def test_an_interpreter_of_any_path_is_quoted(python: str) -> None:
    for file in service_units.agent_files(python, is_packaged=False):
        assert command(file.text)[0] == python


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_what_the_package_does_is_about_files_that_it_has(script: str) -> None:
    text = (ROOT / "tools" / "debian" / script).read_text()
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    assert set(re.findall(r"lanai-\w+\.service", text)) <= set(unit_texts())
    # A jobs unit that is started again has lost the groups of what runs.
    assert "restart lanai-jobs" not in text


def test_the_package_keeps_what_an_administrator_has_configured() -> None:
    build = (ROOT / "tools" / "deb").read_text()
    kept = [file.path for file in service_units.hub_files("python3", is_packaged=True) if file.is_kept]
    assert re.findall(r'echo (\S+) >"\$stage/DEBIAN/conffiles"', build) == kept
