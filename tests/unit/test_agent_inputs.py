"""Input that comes before its job: kept in order, once, for the attempt that it is for."""

from __future__ import annotations

from lanai.agent.events import Member
from lanai.agent.inputs import Inputs
from lanai.model.ids import BatchId, GrantId, Index
from lanai.wire.messages import Input

HERE: Member = (GrantId(5), Index(1))


def piece(offset: int, data: bytes, *, attempt: int = 1, is_end: bool = False) -> Input:
    return Input(BatchId(7), Index(1), offset, data, is_end, attempt)


class Machine:
    """Has one attempt of job 7/1, once `attempt` is not 0."""

    def __init__(self, attempt: int = 0) -> None:
        self.attempt = attempt

    def find(self, batch: BatchId, index: Index, attempt: int | None) -> Member | None:
        is_it = self.attempt > 0 and attempt in (None, self.attempt) and (batch, index) == (7, 1)
        return HERE if is_it else None


def test_pieces_wait_for_their_job_and_keep_their_order() -> None:
    machine = Machine()
    inputs = Inputs(machine.find)
    inputs.add(piece(0, b"ab"))
    assert inputs.ready() == []
    inputs.add(piece(2, b"c", is_end=True))
    machine.attempt = 1
    assert inputs.ready() == [(HERE, piece(0, b"ab")), (HERE, piece(2, b"c", is_end=True))]
    assert inputs.ready() == []


def test_a_piece_offered_again_and_again_waits_once() -> None:
    machine = Machine()
    inputs = Inputs(machine.find)
    for _ in range(3):
        inputs.add(piece(0, b"ab"))
    machine.attempt = 1
    assert inputs.ready() == [(HERE, piece(0, b"ab"))]


def test_a_piece_is_for_its_attempt_and_no_other() -> None:
    machine = Machine(attempt=2)
    inputs = Inputs(machine.find)
    inputs.add(piece(9, b"of the first", attempt=1))
    inputs.add(piece(0, b"of the second", attempt=2))
    inputs.add(piece(0, b"of any", attempt=0))
    assert [one.data for _, one in inputs.ready()] == [b"of the second", b"of any"]


def test_what_waited_goes_with_the_hub_that_sent_it() -> None:
    machine = Machine()
    inputs = Inputs(machine.find)
    inputs.add(piece(0, b"ab"))
    inputs.clear()
    machine.attempt = 1
    assert inputs.ready() == []
