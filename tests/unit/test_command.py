"""Which lines get a shell, and the words the others are started with."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanai.model.batch import SHELL_SETTINGS
from lanai.model.command import BUILTINS, KEYWORDS, SPECIAL, CommandError, argv, needs_shell


@pytest.mark.parametrize(
    "line",
    [b"sort a > b", b"a;b", b"FOO=1 cmd", b"_x=", b"  cd /tmp", b".\tfile", b": x", b"exec ls", b"if true", b"wait 3"]
    + [b"echo a%cb" % character for character in SPECIAL],
)
def test_lines_for_the_shell(line: bytes) -> None:
    assert needs_shell(line)
    assert argv(line, "auto") == [b"/bin/sh", b"-c", line]


@pytest.mark.parametrize(
    "line",
    [
        b"gzip -k file",
        b"  ls\t-l ",
        b"./configure --prefix=/usr",
        b"/bin/test -e x",
        b"echo x",
        b"kill 12",
        b"1A=b",
        b"a-b=c",
        b"cdrecord",
        b"env A=1 %,+-./:@_",
        b"caf\xc3\xa9 \xff",
    ],
)
def test_lines_started_directly(line: bytes) -> None:
    assert not needs_shell(line)
    assert argv(line, "auto") == line.split() == argv(line, "never")


def test_the_four_settings() -> None:
    line = b"prog 'a b' \"$X\" c\\ d caf\xe9"
    assert argv(line, "auto") == argv(line, "always") == [b"/bin/sh", b"-c", line]
    assert argv(line, "never") == [b"prog", b"'a", b"b'", b'"$X"', b"c\\", b"d", b"caf\xe9"]
    assert argv(line, "words") == [b"prog", b"a b", b"$X", b"c d", b"caf\xe9"]
    assert argv(b"ls", "always") == [b"/bin/sh", b"-c", b"ls"]


@pytest.mark.parametrize("shell", [*SHELL_SETTINGS, "sometimes"])
def test_an_empty_command_or_setting_is_refused(shell: str) -> None:
    with pytest.raises(CommandError):
        argv(b" \t", shell)


def test_an_open_quote_is_refused_where_quotes_count() -> None:
    with pytest.raises(CommandError, match="cannot be split"):
        argv(b"echo 'a", "words")


@given(st.binary(max_size=60).filter(lambda line: b"\0" not in line))
def test_it_agrees_with_the_rule_as_it_is_written(line: bytes) -> None:
    words = line.split()
    name = words[0].partition(b"=")[0] if words and b"=" in words[0] else b""
    is_assignment = name.isascii() and name.decode(errors="replace").isidentifier()
    expected = any(c in line for c in SPECIAL) or bool(words and (words[0] in KEYWORDS | BUILTINS or is_assignment))
    assert needs_shell(line) == expected


def test_every_listed_word_is_the_shells_own() -> None:
    dash = shutil.which("dash")
    for word in sorted((KEYWORDS | BUILTINS) - {b"source"}):
        said = subprocess.run([dash or "sh", "-c", f"command -v {word.decode()}"], capture_output=True, check=False)
        assert said.stdout.strip() == word
