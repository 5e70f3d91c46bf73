"""The generated parts of the documentation: written in place by ``make docs``, compared by ``--check``.

A generated part stands between ``<!-- generated: KIND ARGUMENTS -->`` and ``<!-- end generated -->``; the writers of
all kinds are in ``docs_parts.py``. ``--check`` writes nothing. It prints one line for each part that is stale, each
relative link that leads nowhere and each ``lanai VERB`` that does not exist, and exits 1 if there is any.
"""

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import click
import docs_parts

from lanai.cli.main import command as lanai

ROOT = Path(__file__).resolve().parent.parent

_PART = re.compile(r"(<!-- generated: ([^\n]*?) -->\n).*?(\n<!-- end generated -->)", re.DOTALL)
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+\s+(.*?)\s*$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`|^ {4,}([^\n]+)$|^(?:```|~~~)[^\n]*\n(.*?)^(?:```|~~~)", re.DOTALL | re.MULTILINE)
# Where a command may stand: at the beginning of code, or after what a shell reads a new command after.
_VERB = re.compile(r"(?:^|[|;&(]|\$ )\s*lanai((?:[ ]+[a-z][a-z-]*)+)", re.MULTILINE)


def pages() -> list[Path]:
    """All pages of the project, in order."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for folder in ("examples", "bench", "tests"):
        found += (ROOT / folder).rglob("*.md")
    return sorted(path for path in found if path.is_file())


def refreshed(text: str) -> str:
    """The text with every generated part written anew. Raises ValueError for a part of no known kind."""
    return _PART.sub(lambda part: part[1] + docs_parts.written(part[2]) + part[3], text)


def stale(page: Path) -> Iterator[str]:
    """The generated parts of a page that differ from what would be written now."""
    for part in _PART.finditer(page.read_text(encoding="utf-8")):
        if part[0] != part[1] + docs_parts.written(part[2]) + part[3]:
            yield f"{_name(page)}: the part `{part[2]}` is stale; run `make docs`"


def broken_links(page: Path) -> Iterator[str]:
    """Relative links to files that are not there, or to headings that a page does not have."""
    for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, heading = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists():
            yield f"{_name(page)}: the link {target} leads nowhere"
        elif heading and path.suffix == ".md" and heading not in anchors(path.read_text(encoding="utf-8")):
            yield f"{_name(page)}: {_name(path)} has no heading #{heading}"


def anchors(text: str) -> set[str]:
    """The names under which the headings of a page can be linked to, as GitHub makes them."""
    headings = _HEADING.findall(_FENCE.sub("", text))
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def unknown_verbs(page: Path) -> Iterator[str]:
    """Mentions of `lanai VERB` in code, where there is no such verb."""
    for code in _CODE.finditer(page.read_text(encoding="utf-8")):
        for mention in _VERB.finditer(code[1] or code[2] or code[3]):
            problem = _unknown(mention[1].split())
            if problem:
                yield f"{_name(page)}: {problem}"


def _unknown(words: list[str]) -> str:
    if words[0] not in verbs():
        return f"there is no `lanai {words[0]}`"
    within = verbs()[words[0]]
    if within and len(words) > 1 and words[1] not in within:
        return f"there is no `lanai {words[0]} {words[1]}`"
    return ""


@cache
def verbs() -> dict[str, frozenset[str]]:
    """Every verb, and the names of its own verbs where it is a group."""
    context = click.Context(lanai)
    found = {name: lanai.get_command(context, name) for name in lanai.list_commands(context)}
    return {
        name: frozenset(command.commands) if isinstance(command, click.Group) else frozenset()
        for name, command in found.items()
    }


def problems() -> list[str]:
    """Everything that is wrong with the documentation."""
    return [line for page in pages() for look in (stale, broken_links, unknown_verbs) for line in look(page)]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else str(page)


def write() -> None:
    """Write every generated part anew; names the pages that changed."""
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = refreshed(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"written: {_name(page)}")


def main() -> int:
    """Entry point. Returns the exit code."""
    if sys.argv[1:] == ["--check"]:
        found = problems()
        print("\n".join(found) if found else "the documentation is up to date")
        return 1 if found else 0
    if sys.argv[1:]:
        print("usage: docs.py [--check]", file=sys.stderr)
        return 2
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
