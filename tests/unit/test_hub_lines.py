"""A grant's lines and checks, cut into pieces each of which fits a message."""

from lanai.hub.lines import MESSAGE_BYTES, LineSource, Piece
from lanai.model.clauses import ClauseParser
from lanai.model.ids import BatchId, GrantId, Index
from lanai.model.joblist import BLOCK_BYTES, JobListParser
from lanai.model.records import SaveChunk
from lanai.model.request import Check
from lanai.wire import messages
from lanai.wire.framing import FRAME_BYTES, frame

BATCH = BatchId(7)


class Shelf:
    """A store with the chunks of one batch, made of a job list as they are at submission."""

    def __init__(self, text: bytes) -> None:
        parser = JobListParser()
        self.lines: dict[int, bytes] = {}
        self.checks: dict[int, tuple[Check, ...]] = {}
        self._chunks: list[SaveChunk] = []
        first = 1
        for block in parser.feed(text) + parser.finish():
            assert not parser.problems
            self._chunks.append(SaveChunk(BATCH, first, block.count, (), block.commands, block.checks))
            self.lines.update(enumerate(block.commands.split(b"\0"), first))
            self.checks.update({first + at: found for at, found in block.checks.items()})
            first += block.count

    def chunk(self, batch: BatchId, index: Index) -> SaveChunk:
        return next(one for one in self._chunks if one.first <= index < one.first + one.count)


def pieces(shelf: Shelf, *spans: tuple[int, int]) -> list[Piece]:
    """The pieces of these jobs; each has been put into a frame, and together they are what was asked for."""
    found = list(LineSource(shelf).pieces(BATCH, spans))
    indices: list[int] = []
    for piece in found:
        assert len(framed(piece)) <= FRAME_BYTES
        members = [index for first, last in piece.ranges for index in range(first, last + 1)]
        assert piece.lines.split(b"\0") == [shelf.lines[index] for index in members]
        assert piece.checks == {at: shelf.checks[i] for at, i in enumerate(members) if i in shelf.checks}
        indices += members
    assert indices == [index for first, last in spans for index in range(first, last + 1)]
    return found


def framed(piece: Piece) -> bytes:
    return frame(messages.Grant(GrantId(1), 1, 1, piece.ranges, piece.lines, piece.checks))


def test_a_few_short_jobs_are_one_piece() -> None:
    assert len(pieces(Shelf(b"true\n" * 3000), (1, 3), (900, 2100))) == 1


def test_long_lines_are_cut() -> None:
    shelf = Shelf((b"x" * 1023 + b"\n") * 3000)
    assert [len(framed(piece)) < MESSAGE_BYTES + 100 for piece in pieces(shelf, (1, 3000))] == [True] * 3


def test_checks_count() -> None:
    """64 jobs of 6,000 checks each are short lines and 5 MiB of checks: the hub ended, and again at every start."""
    shelf = Shelf(b"\n".join([b"true" + b" {check in exists /}" * 6000] * 80))
    assert all(len(framed(piece)) < MESSAGE_BYTES for piece in pieces(shelf, (1, 64)))


def test_ranges_count() -> None:
    """Of a batch of very short lines every second job is granted."""
    shelf = Shelf(b":\n" * 200_000)
    assert all(len(framed(piece)) < MESSAGE_BYTES for piece in pieces(shelf, *((i, i) for i in range(1, 200_000, 2))))


def test_the_largest_job_that_a_list_can_hold_fits_a_frame() -> None:
    """So none has to be refused: what a job is checked for is part of its line, which has at most 1 MiB."""
    shortest = b"{check in line /}"
    many = b"x" + shortest * ((BLOCK_BYTES - 1) // len(shortest))
    long = b"x{check out exists+ " + b"f" * (BLOCK_BYTES - 21) + b"}"
    assert ClauseParser().parse(many) is not None
    assert BLOCK_BYTES - len(shortest) < len(many) <= BLOCK_BYTES and len(long) == BLOCK_BYTES
    shelf = Shelf(b"\n".join([b"true", many, long, b"true"]))
    assert [piece.ranges for piece in pieces(shelf, (1, 4))] == [[(1, 1)], [(2, 2)], [(3, 3)], [(4, 4)]]
