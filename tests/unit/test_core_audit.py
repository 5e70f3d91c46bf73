"""The trail of who changed what, and tokens: in the same records as the change, and only with it."""

from collections.abc import Iterator

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core.effects import EndHub, KillAttempts, TokensChanged
from lanai.core.events import (
    BatchChanged,
    BatchClosed,
    HubStopWished,
    JobsCancelled,
    JobsHeld,
    JobsReleased,
    JobsRetried,
    NodeDisconnected,
    NodeJoined,
    NodeWished,
    Noted,
    TokenCreated,
    TokensRevoked,
)
from lanai.model.access import Caller, Origin, Role
from lanai.model.ids import BatchId, NodeId, TokenId
from lanai.model.records import SaveAudit, SaveEvent, SaveToken

ANN = Caller("ann", Role.USER, Origin("unix", 1000, 42))
EVE = Caller("eve", Role.ADMIN, Origin("tls", address="10.0.0.9", token=2))


@pytest.fixture
def hub() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.check_nothing_left()


def audited(hub: Recorder) -> SaveAudit:
    (row,) = hub.take_kept(SaveAudit)
    return row


def test_a_submission_is_in_the_trail_once_it_is_whole(hub: Recorder) -> None:
    batch = hub.submit(3)
    assert hub.take_kept(SaveAudit) == []  # the recorder's own has no caller
    hub.feed(BatchClosed(7, BatchId(99), 3, b"d", 5, ANN))
    assert hub.refusal() == "no_such_batch"
    row = audited(hub)
    assert (row.row, row.at_us, row.caller, row.action, row.subject) == (1, 5, ANN, "batch.submit", "batch 99")
    assert row.is_refused and "not arriving" in row.why
    assert hub.batch(batch).counts.queued == 3


def test_wishes_tell_how_it_stood_before_and_after(hub: Recorder) -> None:
    batch = hub.submit(10)
    hub.feed(JobsHeld(1, batch, ((1, 3), (5, 5)), 6, (), False, ANN))
    hub.answer()
    row = audited(hub)
    assert (row.action, row.subject) == ("batch.hold", f"batch {batch} jobs 1-3,5")
    assert (row.before, row.after) == (
        {"state": "open", "queued": 10}, {"state": "open", "queued": 6, "held": 4, "changed": 4}
    )  # fmt: skip
    hub.feed(JobsReleased(1, batch, None, 6, ("held",), False, ANN))
    hub.answer()
    row = audited(hub)
    assert (row.action, row.subject, row.after["changed"]) == ("batch.release", f"batch {batch} @held", 4)
    hub.feed(BatchChanged(1, batch, 5, None, 7, EVE))
    hub.answer()
    row = audited(hub)
    assert (row.before, row.after) == ({"priority": 10, "max_running": 0}, {"priority": 5, "max_running": 0})
    hub.feed(BatchChanged(1, batch, 0, None, 7, EVE))
    assert hub.refusal() == "bad_request"
    row = audited(hub)
    assert (row.is_refused, row.after, row.why) == (True, {}, "priority 0 is not between 1 and 10000")
    hub.feed(JobsCancelled(1, batch, None, (), 8, EVE))
    hub.answer()
    row = audited(hub)
    assert row.after == {"state": "ended", "cancelled": 10, "changed": 10}
    hub.take_all()
    hub.feed(JobsRetried(1, batch, None, (), 8, EVE))
    assert hub.refusal() == "batch_ended"
    assert audited(hub).is_refused


def test_very_many_jobs_are_named_as_far_as_the_eye_goes(hub: Recorder) -> None:
    batch = hub.submit(10_000)
    hub.feed(JobsHeld(1, batch, tuple((n, n) for n in range(1, 9_000, 3)), 6, (), False, ANN))
    hub.answer()
    assert len(audited(hub).subject) < 300


def test_what_the_hub_does_by_itself_is_not_in_the_trail(hub: Recorder) -> None:
    batch = hub.submit(1)
    hub.feed(JobsCancelled(0, batch, None, (), 8))
    hub.answer()
    hub.take_all()
    assert hub.take_kept(SaveAudit) == []


def test_nodes(hub: Recorder) -> None:
    hub.join("n")
    hub.feed(NodeWished(1, "n", "drain", 9, EVE))
    hub.answer()
    row = audited(hub)
    assert (row.action, row.subject) == ("node.drain", "node n")
    assert (row.before["is_drained"], row.after["is_drained"]) == (False, True)
    hub.take_all()
    hub.feed(NodeWished(1, "m", "remove", 9, EVE))
    assert hub.refusal() == "no_such_node"
    row = audited(hub)
    assert (row.action, row.is_refused, row.before) == ("node.remove", True, {})


def test_input_and_refusals_are_noted(hub: Recorder) -> None:
    hub.feed(Noted(Caller(), "batch.cancel", "POST /x", 4, {}, True, "not yours", 17))
    row = audited(hub)
    assert (row.caller.role, row.is_refused, row.why, row.left_out) == (None, True, "not yours", 17)


def test_the_wish_to_stop_ends_the_hub_once_it_is_kept(hub: Recorder) -> None:
    hub.feed(HubStopWished(1, 3, EVE))
    assert hub.answer() == {}
    assert hub.take(EndHub) == [EndHub()]
    assert audited(hub).action == "hub.stop"


# -- tokens


def create(hub: Recorder, secret: bytes, *, kind: str = "user", user: str = "ann", expires_at_us: int = 0) -> int:
    hub.feed(TokenCreated(1, kind, user, secret, expires_at_us, "", hub.now_us, EVE))
    assert hub.take(TokensChanged) == [TokensChanged()]
    answer = hub.answer()
    assert answer is not None
    return int(str(answer["token"]))


def test_a_token_is_kept_with_who_wanted_it(hub: Recorder) -> None:
    assert [create(hub, b"a"), create(hub, b"b", kind="agent", user="bob")] == [1, 2]
    assert hub.take_kept(SaveToken)[1] == SaveToken(TokenId(2), "agent", "bob", b"b", hub.now_us)
    rows = hub.take_kept(SaveAudit)
    assert [(row.action, row.subject, row.after["token"]) for row in rows] == [
        ("token.create", "user token of ann", 1),
        ("token.create", "agent token of bob", 2),
    ]
    hub.feed(TokenCreated(1, "user", "ann", b"a", 0, "", hub.now_us, EVE))
    assert hub.refusal() == "token_exists"


def test_tokens_are_revoked_by_number_and_by_user(hub: Recorder) -> None:
    for secret in (b"a", b"b", b"c"):
        create(hub, secret, user="bob" if secret == b"c" else "ann")
    hub.feed(TokensRevoked(1, TokenId(1), "", hub.now_us, EVE))
    assert hub.take(TokensChanged) == [TokensChanged((TokenId(1),))]
    assert hub.answer() == {"revoked": "1", "count": 1}
    hub.feed(TokensRevoked(1, TokenId(0), "ann", hub.now_us, EVE))
    assert hub.take(TokensChanged) == [TokensChanged((TokenId(2),))]
    assert hub.answer() == {"revoked": "2", "count": 1}
    hub.feed(TokensRevoked(1, TokenId(0), "ann", hub.now_us, EVE))
    assert hub.answer() == {"revoked": "", "count": 0}
    for wish in (TokensRevoked(1, TokenId(9), "", 1, EVE), TokensRevoked(1, TokenId(0), "carl", 1, EVE)):
        hub.feed(wish)
        assert hub.refusal() == "no_such_token"
    world = hub.core.world
    assert [world.token_of[secret].is_good(hub.now_us) for secret in (b"a", b"b", b"c")] == [False, False, True]


def test_who_came_by_a_token_that_expires_is_told_to_go(hub: Recorder) -> None:
    create(hub, b"a", expires_at_us=hub.now_us + 5 * SECOND)
    create(hub, b"b", expires_at_us=hub.now_us + 9 * SECOND)
    create(hub, b"c")
    hub.wait(4)
    assert hub.take(TokensChanged) == []
    hub.wait(2)
    assert hub.take(TokensChanged) == [TokensChanged((TokenId(1),))]
    hub.wait(20)
    assert hub.take(TokensChanged) == [TokensChanged((TokenId(2),))]
    hub.take_all()


def test_tokens_and_the_trails_numbers_outlive_the_hub(hub: Recorder) -> None:
    create(hub, b"a", expires_at_us=hub.now_us + 5 * SECOND)
    hub.restart()
    assert hub.core.world.token_of[b"a"].token == 1
    assert create(hub, b"b") == 2
    assert [row.row for row in hub.take_kept(SaveAudit)] == [1, 2]
    hub.wait(6)
    assert hub.take(TokensChanged) == [TokensChanged((TokenId(1),))]


def test_with_which_token_an_agent_joined_is_told_once(hub: Recorder) -> None:
    create(hub, b"a", kind="agent")
    create(hub, b"b", kind="agent", user="bob")

    def join(connection: int, token: int) -> None:
        hub.feed(NodeJoined(connection, "n", b"key", "boot", capacity(), (), "x", hub.now_us, "", (), TokenId(token)))
        hub.take_all()
        hub.feed(NodeDisconnected(NodeId(1), connection))

    for connection, token in enumerate((1, 1, 2, 2), 1):
        join(connection, token)
    told = [event.text for event in hub.take_kept(SaveEvent) if event.kind == "node_joined"]
    assert told == ["for the first time, with token 1 of ann", "again, with token 2 of bob"]
    assert hub.take(KillAttempts) == []
