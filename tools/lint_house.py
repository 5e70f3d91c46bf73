"""The house rules that import-linter and ruff cannot say.

Run by ``make lint``; prints one line per breach as ``file:line: what`` and exits 1 if there is any. It reads the source
and never imports it.

* ``agent/starter.py``, its parts ``agent/starter_*.py``, and the two packages that Python imports on the way to them
  use the standard library and one another only: a starter outlives upgrades of everything else, and has to be small.
* ``core`` calls no builtin that reaches outside of the process.
* Every room has its import contract in pyproject.toml.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ROOT / "src" / "lanai"
STARTER = ("__init__.py", "agent/__init__.py", "agent/starter.py", "agent/starter_*.py")
BUILTINS_NOT_FOR_CORE = frozenset({"breakpoint", "eval", "exec", "input", "open", "print", "__import__"})


def parse(path: Path) -> ast.Module:
    """Returns the syntax tree of the file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields (line, module) of each import anywhere in the source; a relative import yields ``lanai``."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(level=0, module="lanai" | "lanai.agent" as package, names=names):
                yield from ((node.lineno, f"{package}.{alias.name}") for alias in names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield node.lineno, module
            case ast.ImportFrom():
                yield node.lineno, "lanai"


def not_for_starter(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields (line, module) of each import that is neither the standard library's nor a part of the starter."""
    for line, module in imported_modules(tree):
        is_part = module == "lanai.agent.starter" or module.startswith("lanai.agent.starter_")
        if module.partition(".")[0] not in sys.stdlib_module_names and not is_part:
            yield line, module


def foreign_imports(path: Path) -> Iterator[str]:
    """Yields a breach for each import in the file that a starter must not make."""
    for line, module in not_for_starter(parse(path)):
        yield f"{path.relative_to(ROOT)}:{line}: imports {module}, a starter uses the standard library only"


def outside_calls(path: Path) -> Iterator[str]:
    """Yields a breach for each call in the file of a builtin that reaches outside."""
    for node in ast.walk(parse(path)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS_NOT_FOR_CORE:
                yield f"{path.relative_to(ROOT)}:{node.lineno}: calls {name}(), core decides and does nothing else"


def rooms_without_contract() -> Iterator[str]:
    """Yields a breach for each room that no import contract starts from."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    bound = {module for contract in contracts for module in contract["source_modules"]}
    for room in sorted(path.parent.name for path in HOUSE.glob("*/__init__.py")):
        if f"lanai.{room}" not in bound:
            yield f"pyproject.toml: room lanai.{room} has no import contract"


def breaches() -> list[str]:
    """Returns every breach of the rules above, file by file."""
    found = []
    for pattern in STARTER:
        for path in sorted(HOUSE.glob(pattern)):
            found.extend(foreign_imports(path))
    for path in sorted((HOUSE / "core").rglob("*.py")):
        found.extend(outside_calls(path))
    found.extend(rooms_without_contract())
    return found


if __name__ == "__main__":
    problems = breaches()
    print("\n".join(problems), end="\n" if problems else "")
    sys.exit(bool(problems))
