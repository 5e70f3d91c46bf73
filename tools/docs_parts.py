"""The writers of the generated parts of the documentation, one for each kind: text for Markdown, made from the source.

They read the program (transition tables, structs, click's commands, the store's schema) and ``docs_words.toml``, which
holds the meanings that stand nowhere in the source. A column or table without a meaning there is an error, so that none
is added without a word. Nothing here writes a file.
"""

import ast
import importlib
import inspect
import re
import sqlite3
import tomllib
import typing
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import click
import msgspec

from lanai.api.handlers import Handlers
from lanai.cli import asking, listings
from lanai.cli.main import SECTIONS
from lanai.cli.main import command as lanai
from lanai.model import errors
from lanai.model.access import RULES, Role, may, may_all
from lanai.wire import messages

HERE = Path(__file__).resolve().parent
SCHEMA = HERE.parent / "src" / "lanai" / "store" / "sql" / "schema.sql"


def written(part: str) -> str:
    """The text of a part, without a newline at its end.

    Args:
        part: KIND and its arguments, as they stand in the marker.

    Raises:
        ValueError: there is no such kind, or it takes other arguments.
    """
    kind, *arguments = part.split()
    if kind not in _WRITERS:
        raise ValueError(f"no part is called {kind!r}; there are {', '.join(_WRITERS)}")
    return _WRITERS[kind](*arguments).strip("\n")


@cache
def words() -> dict[str, dict[str, str]]:
    """The meanings that stand nowhere in the source."""
    return tomllib.loads((HERE / "docs_words.toml").read_text(encoding="utf-8"))


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    titles = list(titles)
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(text: object) -> str:
    """Text as code, or nothing where there is none."""
    return f"`{text}`" if str(text) else ""


# -- from the model


def states(machine: str, first: str) -> str:
    """A state diagram from the transition table of `lanai.model.MACHINE`; `first` is the state things begin in."""
    transitions: dict[Any, tuple[Any, ...]] = importlib.import_module(f"lanai.model.{machine}").TRANSITIONS
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    for state, followers in transitions.items():
        lines += [f"    {state} --> {follower}" for follower in followers] or [f"    {state} --> [*]"]
    return "\n".join([*lines, "```"])


def struct(name: str) -> str:
    """The fields of a struct, with what its docstring says of them."""
    module, _, kind = name.rpartition(".")
    found: type[msgspec.Struct] = getattr(importlib.import_module(module), kind)
    said = _attributes(inspect.getdoc(found) or "")
    rows = []
    for field in msgspec.structs.fields(found):
        default = "" if field.default is msgspec.NODEFAULT else code(_shown(field.default))
        rows.append([code(field.name), code(found.__annotations__[field.name]), default, said.get(field.name, "")])
    return table(["field", "type", "default", "meaning"], rows)


def _shown(value: object) -> str:
    return f"{type(value).__name__}()" if isinstance(value, msgspec.Struct) else repr(value)


def _attributes(doc: str) -> dict[str, str]:
    """What the section `Attributes:` of a docstring says, by name."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in doc.partition("Attributes:\n")[2].splitlines():
        if not line.strip():
            break
        if match := re.match(r" {4}([a-z_*]+(?:, [a-z_*]+)*): (.*)", line):
            names = match[1].split(", ")
            found.update(dict.fromkeys(names, match[2]))
        else:
            for name in names:
                found[name] += " " + line.strip()
    return found


def exit_codes() -> str:
    """The tree of errors with their exit codes and HTTP statuses."""
    rows = []
    for kind, depth in _kinds(errors.LanaiError, -1):
        if depth >= 0:
            said = (inspect.getdoc(kind) or "").partition("\n")[0]
            name = "&nbsp;" * 4 * depth + code(kind.__name__)
            rows.append([name, code(kind.code), str(kind.exit_code), str(kind.http_status), code(kind.retry), said])
    return table(["error", "code", "exit", "HTTP", "retry", "meaning"], rows)


def _kinds(kind: type[errors.LanaiError], depth: int) -> list[tuple[type[errors.LanaiError], int]]:
    below = [found for sub in kind.__subclasses__() for found in _kinds(sub, depth + 1)]
    return [(kind, depth), *below]


def access() -> str:
    """Every action, and what each role may do of it."""
    rows = []
    for action, rule in RULES.items():
        may_do = ["yes" if may_all(r, action) else "own" if may(r, action, is_own=True) else "" for r in Role]
        rows.append([rule.text, code(action), *may_do])
    return table(["to", "action", *Role], rows)


def routes() -> str:
    """Every route of the API with the action that it is."""
    served = Handlers(None, None).routes()  # type: ignore[arg-type]
    return table(["method and path", "action"], [[code(f"{r.method} {r.path}"), code(r.action)] for r in served])


def layout() -> str:
    """Where everything lies on disk: the indented part of the docstring of `lanai.model.places`."""
    doc = inspect.getdoc(importlib.import_module("lanai.model.places")) or ""
    return "```text\n" + inspect.cleandoc("\n" + doc.partition("\n\n")[2]) + "\n```"


# -- from the wire and the store


def wire_messages() -> str:
    """All messages: who gets them, their fields in order, what they say."""
    unions = {"hub": messages.ToHub, "agent": messages.ToAgent, "API": messages.ToApi}
    rows = []
    for name, kind in inspect.getmembers(messages, inspect.isclass):
        if issubclass(kind, messages.Message) and kind is not messages.Message:
            readers = [who for who, union in unions.items() if kind in typing.get_args(union)]
            said = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
            rows.append((_line(kind), [code(name), ", ".join(readers), ", ".join(map(code, _fields(kind))), said]))
    return table(["message", "read by", "fields, in order", "meaning"], [row for _, row in sorted(rows)])


def _fields(kind: type[msgspec.Struct]) -> list[str]:
    return [f"{name}: {kind.__annotations__[name]}" for name in kind.__struct_fields__]


def _line(kind: type) -> int:
    tree = ast.parse(inspect.getsource(messages))
    return next(node.lineno for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)


def store_tables() -> str:
    """The store's tables with their columns; the columns of the primary key are in bold."""
    store = sqlite3.connect(":memory:")
    try:
        store.executescript(SCHEMA.read_text(encoding="utf-8"))
        named = store.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")
        names = [name for (name,) in named]
        rows = []
        for name in names:
            if name.startswith("sqlite_"):
                continue
            columns = store.execute("SELECT name, pk FROM pragma_table_info(?)", (name,)).fetchall()
            shown = ", ".join(f"**{code(column)}**" if key else code(column) for column, key in columns)
            rows.append([code(name), words()["tables"][name], shown])
    finally:
        store.close()
    return table(["table", "holds", "columns"], rows)


# -- from the command line


def columns(kind: str) -> str:
    """The columns of a list, in order."""
    listing = getattr(listings, kind.upper(), None) or getattr(asking, kind.upper())
    meanings = words()[kind]
    rows = [[code(name), "yes" if name in listing.shown else "", meanings[name]] for name in listing.columns]
    return table(["field", "in the table", "meaning"], rows)


def verbs() -> str:
    """All verbs in their sections, each with a link to its page."""
    context = click.Context(lanai)
    left = lanai.list_commands(context)
    rows = []
    for title, names in SECTIONS:
        for name in names:
            if name in left:
                left.remove(name)
                rows.append([title, f"[`lanai {name}`]({name}.md)", _first_line(name)])
    rows += [["Further", f"[`lanai {name}`]({name}.md)", _first_line(name)] for name in left]
    return table(["", "verb", "what it does"], rows)


def _first_line(verb: str) -> str:
    module = importlib.import_module(f"lanai.cli.verbs.{verb.replace('-', '_')}")
    return (inspect.getdoc(module) or "").partition("\n")[0].rstrip(".")


def verb_help(*path: str) -> str:
    """The help of a verb, and of all verbs of a group. Without a name, that of `lanai` itself."""
    command: click.Command = lanai
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        if found is None:
            raise ValueError(f"there is no lanai {' '.join(path)}")
        command = found
    parts = [_help("lanai " + " ".join(path) if path else "lanai", command)]
    if path and isinstance(command, click.Group):
        for name, member in command.commands.items():
            parts += [f"## lanai {' '.join(path)} {name}", _help(f"lanai {' '.join(path)} {name}", member)]
    return "\n\n".join(parts)


def _help(name: str, command: click.Command) -> str:
    """Written from click's parameters, since the layout of its own help differs between versions."""
    arguments = [_argument(each) for each in command.params if isinstance(each, click.Argument)]
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    usage = [name, *(["[OPTIONS]"] if options else []), *arguments]
    if isinstance(command, click.Group):
        usage.append("VERB ...")
    parts = [f"```text\n{' '.join(usage)}\n```", _prose(command.help or "")]
    if options:
        parts.append(table(["option", "meaning"], [[_option(each), _meaning(each)] for each in options]))
    parts.append(_prose(command.epilog or ""))
    return "\n\n".join(part for part in parts if part)


def _argument(argument: click.Argument) -> str:
    shown = argument.metavar or (argument.name or "").upper()
    return shown if argument.required or shown.startswith("[") or argument.metavar else f"[{shown}]"


def _option(option: click.Option) -> str:
    shown = ", ".join(option.opts)
    if option.secondary_opts:
        return code(f"{shown} / {', '.join(option.secondary_opts)}")
    if option.is_flag or option.count:
        return code(shown)
    choices = option.type.choices if isinstance(option.type, click.Choice) else ()
    return code(f"{shown} {option.metavar or '|'.join(map(str, choices)) or option.type.name.upper()}")


def _meaning(option: click.Option) -> str:
    said = option.help or ""
    if option.show_default and option.default is not None:
        said += f" Default: `{option.default}`."
    return said


def _prose(text: str) -> str:
    """A help text as Markdown: paragraphs that click must not wrap become code, a title before them does not."""
    parts = []
    for paragraph in re.split(r"\n[ ]*\n", inspect.cleandoc(text)):
        if "\b" not in paragraph:
            parts.append(" ".join(paragraph.split()))
            continue
        lines = paragraph.replace("\b\n", "").replace("\b", "").splitlines()
        if lines and lines[0].rstrip().endswith(":"):
            parts.append(lines.pop(0))
        block = inspect.cleandoc("\n" + "\n".join(lines))
        if block:
            parts.append(f"```sh\n{block}\n```" if "lanai" in block else f"```text\n{block}\n```")
    return "\n\n".join(part for part in parts if part)


_WRITERS: dict[str, Callable[..., str]] = {
    "states": states,
    "struct": struct,
    "exit-codes": exit_codes,
    "layout": layout,
    "access": access,
    "routes": routes,
    "messages": wire_messages,
    "tables": store_tables,
    "columns": columns,
    "verbs": verbs,
    "help": verb_help,
}
