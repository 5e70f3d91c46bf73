"""Outputs and inputs through the API process, as itself, under a scripted hub."""

import json
import threading
import time
from collections.abc import Callable

import pytest

from lanai.model.batch import Counts
from lanai.model.errors import Refusal
from lanai.model.ids import BatchId, Index
from lanai.model.records import SaveAttempts, SaveTail
from lanai.wire import messages
from lanai.wire.messages import InputState
from services.scripted_api import ENV, WITHIN_S, Api, attempt


def output_message(stream: int, data: bytes, *, is_end: bool = False, problem: str = "") -> messages.Output:
    return messages.Output(stream, 1, 0, data, is_end, problem)


def test_a_reader_that_stops_reading_holds_its_credit_and_nothing_else(api: Api) -> None:
    client = api.client()
    client.submit([b"a\n"], {}, env=ENV)
    sent, credits_given = [0], [0]
    is_stalled = threading.Event()
    piece = b"y" * 65_536

    def feed(message: object) -> None:
        if isinstance(message, messages.Follow):
            credits_given[0] += message.credit
        elif isinstance(message, messages.Credit):
            credits_given[0] += message.count
        else:
            return
        while sent[0] + len(piece) <= credits_given[0]:
            sent[0] += len(piece)
            api.hub.say(output_message(1, piece))
        is_stalled.set()

    api.hub.on_message = feed
    raw = api.raw()
    raw.sendall(b"GET /v1/jobs/1/1/output?stream=out&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    # Until the socket's buffers and the credit are used up, the reader gives credit back; then it is silent.
    while is_stalled.wait(0.5):
        is_stalled.clear()
    assert 256 * 1024 <= sent[0] < 4 << 20
    begun_s = time.monotonic()
    for _ in range(20):
        api.client().hub()
    assert time.monotonic() - begun_s < 5
    raw.close()
    deadline_s = time.monotonic() + WITHIN_S
    while not any(isinstance(message, messages.Unfetch) for message in api.hub.messages):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_output_comes_from_the_node_and_where_that_is_gone_from_the_tail(api: Api) -> None:
    client = api.client()
    client.submit([b"a\nb\n"], {}, env=ENV)
    api.hub.commit(
        SaveAttempts([attempt(1, 1, 1), attempt(1, 2, 2)]),  # type: ignore[list-item]
        SaveTail(BatchId(1), Index(1), 1, False, b"the end", b"oh", 5000, 2),
        SaveTail(BatchId(1), Index(2), 1, False, b"all of it", b"", 9, 0),
    )
    follows: list[messages.Follow] = []

    def away(message: object) -> None:
        if isinstance(message, messages.Follow):
            follows.append(message)
            api.hub.say(output_message(message.stream, b"", is_end=True, problem="its node is away"))

    api.hub.on_message = away
    frames = list(client.output(1, 1))
    assert frames[:2] == [(1, b"the end"), (2, b"oh")]
    end = json.loads(frames[2][1])
    assert end["problem"].startswith("its node is away; 4993 bytes")
    assert [follow.attempt for follow in follows] == [1, 1]
    follows.clear()
    assert list(client.output(1, 2)) == [(1, b"all of it"), (0, b'{"attempt":1,"problem":""}')]
    assert follows == []
    assert next(client.output(1, 2, offsets=(4, 0), stream="out")) == (1, b"of it")


def test_input_is_offered_again_until_the_job_has_begun(api: Api) -> None:
    client = api.client()
    client.submit([b"cat\n"], {"shell": "words", "stdin": "pipe"}, env=ENV, single=True)
    taken = bytearray()
    refusals = [2]

    def take(message: object) -> None:
        if not isinstance(message, messages.Input):
            return
        if refusals[0]:
            refusals[0] -= 1
            waiting = "the job has not begun", message.attempt, InputState.WAITING
            api.hub.say(messages.InputTaken(BatchId(1), Index(1), message.offset, *waiting))
            return
        assert message.offset == len(taken)
        taken.extend(message.data)
        state = InputState.CLOSED if message.is_end else InputState.OPEN
        api.hub.say(messages.InputTaken(BatchId(1), Index(1), len(taken), "", message.attempt, state))

    api.hub.on_message = take
    assert client.send_input(1, 1, b"z" * 200_000, offset=0) == 200_000
    assert client.send_input(1, 1, b"", offset=200_000, is_end=True) == 200_000
    assert bytes(taken) == b"z" * 200_000


class Pipe:
    """The far side of one command's input: what arrived, and a word about each piece by `answer`."""

    def __init__(self, api: Api, answer: Callable[[messages.Input], tuple[int, str, InputState] | None]) -> None:
        self.pieces: list[messages.Input] = []
        self._api = api
        self._answer = answer
        api.client().submit([b"cat\n"], {"shell": "words", "stdin": "pipe"}, env=ENV, single=True)
        api.hub.on_message = self._take

    def _take(self, message: object) -> None:
        if isinstance(message, messages.Input):
            self.pieces.append(message)
            said = self._answer(message)
            if said is not None:
                self._api.hub.say(self.taken(*said))

    def taken(self, offset: int, problem: str, state: InputState, attempt: int = 1) -> messages.InputTaken:
        return messages.InputTaken(BatchId(1), Index(1), offset, problem, attempt, state)


def test_input_that_was_lost_with_its_node_is_offered_again(api: Api) -> None:
    """The hub says that the connection is lost, after it had passed the piece on."""
    answers = iter([(0, "its node is not connected", InputState.WAITING), (3, "", InputState.OPEN)])
    pipe = Pipe(api, lambda piece: next(answers))
    assert api.client().send_input(1, 1, b"abc", offset=0, attempt=1) == 3
    assert [(one.offset, one.data, one.attempt) for one in pipe.pieces] == [(0, b"abc", 1)] * 2


def test_input_is_offered_again_when_the_batch_has_moved(api: Api) -> None:
    """A grant that was called back takes a piece with it, and nobody says so."""
    answers = iter([None, (3, "", InputState.OPEN)])

    def answer(piece: messages.Input) -> tuple[int, str, InputState] | None:
        api.hub.say(messages.Progress(BatchId(1), 2, "open", Counts(running=1)))
        return next(answers)

    pipe = Pipe(api, answer)
    assert api.client().send_input(1, 1, b"abc", offset=0, attempt=1) == 3
    assert len(pipe.pieces) == 2


def test_input_taken_by_halves_and_by_another_attempt_is_waited_for(api: Api) -> None:
    def answer(piece: messages.Input) -> tuple[int, str, InputState]:
        api.hub.say(pipe.taken(900, "", InputState.OPEN, attempt=2))
        api.hub.say(pipe.taken(piece.offset + 1, "", InputState.OPEN))
        return piece.offset + len(piece.data), "", InputState.OPEN

    pipe = Pipe(api, answer)
    assert api.client().send_input(1, 1, b"abc", offset=7, attempt=1) == 10
    assert len(pipe.pieces) == 1


def test_an_end_counts_once_the_command_can_see_it(api: Api) -> None:
    def answer(piece: messages.Input) -> tuple[int, str, InputState]:
        api.hub.say(pipe.taken(3, "", InputState.OPEN))
        return 3, "the command takes no more input", InputState.CLOSED

    pipe = Pipe(api, answer)
    assert api.client().send_input(1, 1, b"", offset=3, is_end=True, attempt=1) == 3


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (InputState.CLOSED, "input_refused"),
        (InputState.OVER, "input_refused"),
        (InputState.MISSING, "input_missing"),
    ],
)
def test_input_that_nobody_takes_is_refused(api: Api, state: InputState, code: str) -> None:
    pipe = Pipe(api, lambda piece: (2, "why not", state))
    with pytest.raises(Refusal, match="why not") as refused:
        api.client().send_input(1, 1, b"abc", offset=7, attempt=1)
    assert (refused.value.code, refused.value.facts["offset"]) == (code, 2)
    assert len(pipe.pieces) == 1
