import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.wire import journal
from lanai.wire.journal import FIELD_BYTES, Journal, entry
from lanai.wire.logs import JournalHandler, about
from services.datagrams import Datagrams, fields


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Datagrams]:
    made = Datagrams(tmp_path / "socket")
    yield made
    made.close()


def _journal(server: Datagrams, **always: str | int) -> Journal:
    return Journal("lanai-test", always, path=str(server.path))


def _logger(handler: logging.Handler) -> logging.Logger:
    logger = logging.getLogger("lanai.test")
    logger.handlers, logger.propagate = [handler], False
    return logger


def test_the_bytes_are_those_of_the_format() -> None:
    assert entry({"MESSAGE": "one line", "PRIORITY": 6}) == b"MESSAGE=one line\nPRIORITY=6\n"
    assert entry({"MESSAGE": "a\nb"}) == b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n"


def test_fields_arrive_and_a_value_may_have_lines(server: Datagrams) -> None:
    assert _journal(server, LANAI_NODE="rack-7").send("first\nPRIORITY=0\n", priority=4, fields={"LANAI_BATCH": 417})
    assert fields(server.next()) == {
        "MESSAGE": "first\nPRIORITY=0\n",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "lanai-test",
        "SYSLOG_PID": str(os.getpid()),
        "LANAI_NODE": "rack-7",
        "LANAI_BATCH": "417",
    }


def test_a_value_that_is_too_long_is_cut_and_the_entry_still_fits_a_datagram(server: Datagrams) -> None:
    assert _journal(server).send("x" * 1_000_000)
    assert fields(server.next())["MESSAGE"] == "x" * FIELD_BYTES


def test_text_that_is_no_utf8_does_not_lose_the_line(server: Datagrams) -> None:
    assert _journal(server).send("a name \udcff")
    assert fields(server.next())["MESSAGE"] == "a name ?"


def test_where_no_journal_is_it_says_so(tmp_path: Path) -> None:
    assert not Journal("lanai-test", path=str(tmp_path / "nobody")).send("lost")


def test_log_lines_say_what_they_are_about_and_how_bad_it_is(server: Datagrams) -> None:
    logger = _logger(JournalHandler(_journal(server), "%(message)s"))
    logger.warning("refused %s", "somebody", extra=about(node="rack-7", user="", batch=0))
    got = fields(server.next())
    assert (got["MESSAGE"], got["PRIORITY"], got["LANAI_NODE"]) == ("refused somebody", "4", "rack-7")
    assert got["LANAI_LOGGER"] == "lanai.test"
    assert not {"LANAI_USER", "LANAI_BATCH"} & got.keys()
    try:
        raise ValueError("of ours")
    except ValueError:
        logger.exception("a mistake")
    got = fields(server.next())
    assert got["PRIORITY"] == "3"
    assert got["MESSAGE"].startswith("a mistake\nTraceback")
    assert got["MESSAGE"].endswith("ValueError: of ours")


def test_a_line_that_the_journal_does_not_take_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logger = _logger(JournalHandler(Journal("lanai-test", path=str(tmp_path / "nobody")), "kept: %(message)s"))
    logger.error("what happened")
    assert capfd.readouterr().err == "kept: what happened\n"


def test_standard_error_is_the_journals_only_where_it_is_that_very_file(tmp_path: Path) -> None:
    """A child that writes its log to a file has inherited the variable."""
    look = "import os; from lanai.wire import journal; print(journal.is_stderr(os.environ))"
    read, write = os.pipe()
    facts = os.fstat(write)
    environ = {**os.environ, "JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}
    for stderr, expected in ((write, "True\n"), (subprocess.DEVNULL, "False\n")):
        words = [sys.executable, "-c", look]
        done = subprocess.run(words, env=environ, stderr=stderr, stdout=subprocess.PIPE, text=True, check=True)
        assert done.stdout == expected
    os.close(read)
    os.close(write)
    assert not journal.is_stderr({})
