"""The rules of the house hold for the source as it stands, and breaking one is noticed."""

import ast
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import lanai

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "src" / "lanai").rglob("*.py"))


@pytest.fixture(scope="module")
def lint_house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lint_house", ROOT / "tools" / "lint_house.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_says_its_duty() -> None:
    silent = [str(path.relative_to(ROOT)) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_no_room_without_a_name() -> None:
    homeless = {"utils", "helpers", "common", "misc", "util"}
    assert [path.name for path in MODULES if path.stem in homeless or path.parent.name in homeless] == []


def test_the_house_rules_hold(lint_house: ModuleType) -> None:
    assert lint_house.breaches() == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os\nfrom json import loads\n", []),
        ("from lanai.agent import starter_output\nimport lanai.agent.starter_output\n", []),
        ("from lanai.agent.starter_output import Pair\n", []),
        ("import os, msgspec\n", [(1, "msgspec")]),
        ("from lanai.agent import spool\n", [(1, "lanai.agent.spool")]),
        ("def f():\n    from lanai.model import ids\n", [(2, "lanai.model")]),
        ("from . import machine\n", [(1, "lanai")]),
    ],
)
def test_what_a_starter_must_not_import_is_seen(
    lint_house: ModuleType, source: str, found: list[tuple[int, str]]
) -> None:
    assert list(lint_house.not_for_starter(ast.parse(source))) == found


def test_the_starter_runs_without_site_packages() -> None:
    """A starter outlives an upgrade, during which the packages beside it may be gone."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); import lanai.agent.starter"
    starter = ROOT / "src" / "lanai" / "agent" / "starter.py"
    if not starter.exists():
        program = program.replace(".starter", "")
    subprocess.run([sys.executable, "-I", "-S", "-c", program, str(ROOT / "src")], check=True)


def test_the_installed_version_is_the_one_of_the_source() -> None:
    assert importlib.metadata.version("lanai") == lanai.__version__
