"""The API process, as itself, under a scripted hub: who is let in, and what one client may do to the others."""

import hashlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lanai.cli.listings import JOBS
from lanai.client import Target
from lanai.hub import identity
from lanai.model.batch import Counts
from lanai.model.errors import LanaiError, NotAllowed, NothingThere, OtherEnd, Refusal, StoreFull, TimedOut, UserError
from lanai.model.ids import BatchId, Index, TokenId
from lanai.model.records import SaveAttempts, SaveProgress, SaveTail, SaveToken, SetBatch
from lanai.wire import messages
from scripted_hub import WALL_US
from services.scripted_api import ENV, PATIENCE_S, WITHIN_S, Api, attempt

# -- submission


def test_a_list_arrives_as_it_was_sent(api: Api) -> None:
    client = api.client()
    lines = b"".join(b"echo %d \xff\n" % number for number in range(2500))
    pieces = [lines[at : at + 777] for at in range(0, len(lines), 777)]
    submitted = client.submit(pieces, {"cwd": "/tmp", "priority": 7}, env=ENV, file="jobs.txt")
    assert (submitted.batch, submitted.jobs, submitted.existed) == (1, 2500, False)
    commands = [job["command"].encode("utf-8", "surrogateescape") for job in client.jobs(1)]
    listed = list(client.jobs(1))
    as_lines = b"".join(client.job_lines(1)).splitlines()
    assert [json.loads(line) for line in as_lines] == listed
    assert [list(json.loads(line)) for line in as_lines[:1]] == [list(JOBS.columns)]
    assert b"".join(client.job_lines(1, limit=3)).splitlines() == as_lines[:3]
    assert commands == lines.splitlines()
    shown = client.batch("last")
    assert (shown["batch"], shown["priority"], shown["jobs"]) == (1, 7, 2500)
    assert shown["first_line"] == "echo 0 \ufffd"
    chunks = [message for message in api.hub.messages if isinstance(message, messages.Chunk)]
    assert [chunk.first for chunk in chunks] == [1, 1001, 2001]


def test_shapes_are_told_once_and_the_impossible_is_refused_by_line(api: Api) -> None:
    client = api.client()
    api.hub.verbs["fits"] = lambda said: {
        "reasons": ["needs 8 cpus, the largest node has 2" if s["cpu_milli"] == 8000 else "" for s in said["shapes"]]
    }
    with pytest.raises(UserError) as caught:
        client.submit([b"a\n{use cpu 8} b\n{use cpu 2} c\n{use cpu 8} d\n"], {}, env=ENV, file="f")
    assert caught.value.code == "impossible_request"
    assert caught.value.facts["problems"] == ["f:2: needs 8 cpus, the largest node has 2"]
    (chunk,) = [message for message in api.hub.messages if isinstance(message, messages.Chunk)]
    assert [shape.cpu_milli for _, shape in chunk.shapes] == [1000, 8000, 2000]
    assert chunk.runs == [[1, 0], [1, 1], [1, 2], [1, 1]] or chunk.runs == [(1, 0), (1, 1), (1, 2), (1, 1)]
    assert isinstance(api.hub.messages[-1], messages.Command | messages.Abandon)
    assert list(client.batches()) == []


def test_of_very_many_shapes_the_hub_is_asked_piece_by_piece(api: Api) -> None:
    """A list that asks for another amount in each of 300,000 lines passed what one question can hold."""
    asked: list[int] = []

    def fits(said: dict[str, Any]) -> dict[str, Any]:
        asked.append(len(said["shapes"]))
        return {"reasons": ["too much" if s["memory_bytes"] == 2500 else "" for s in said["shapes"]]}

    api.hub.verbs["fits"] = fits
    with pytest.raises(UserError) as caught:
        api.client().submit([b"".join(b"{use ram %d} a\n" % n for n in range(1, 2502))], {}, env=ENV, file="f")
    assert caught.value.facts["problems"] == ["f:2500: too much"]
    assert asked == [1000, 1000, 501]


def test_bad_lines_are_all_told_and_nothing_is_submitted(api: Api) -> None:
    lines = b"good\n" * 1500 + b"{use cpu x} bad\n" + b"good\n" * 1500 + b"{check foo bar}\n"
    with pytest.raises(UserError) as caught:
        api.client().submit([lines], {}, env=ENV, file="jobs.txt")
    assert caught.value.code == "bad_list"
    problems = caught.value.facts["problems"]
    assert isinstance(problems, list)
    assert [problem.split(":")[1] for problem in problems] == ["1501", "3002"]
    assert caught.value.facts["count"] == 2
    assert list(api.client().batches()) == []


@pytest.mark.parametrize("lines", [b"", b"\n# only this\n\n"])
def test_an_empty_list_is_said_plainly(api: Api, lines: bytes) -> None:
    with pytest.raises(UserError) as caught:
        api.client().submit([lines], {}, env=ENV, file="jobs.txt")
    assert caught.value.code == "empty_list"
    assert not any(isinstance(message, messages.Open) for message in api.hub.messages)


def test_a_single_command_keeps_its_newlines(api: Api) -> None:
    client = api.client()
    command = b"printf '%s\n' 'a\n# b'\n"
    client.submit([command], {"shell": "words", "stdin": "pipe"}, env=ENV, single=True)
    (job,) = client.jobs(1)
    assert job["command"].encode() == command


def test_a_key_is_used_once(api: Api) -> None:
    client = api.client()
    first = client.submit([b"a\nb\n"], {}, env=ENV, key="k")
    again = client.submit([b"a\n", b"b\n"], {}, env={b"SHLVL": b"9"}, key="k")
    assert (again.batch, again.jobs, again.existed) == (first.batch, 2, True)
    with pytest.raises(Refusal) as caught:
        client.submit([b"a\nc\n"], {}, env=ENV, key="k")
    assert caught.value.code == "key_reused"
    assert client.submit([b"a\n"], {}, env=ENV, key="other").batch != first.batch


def test_what_the_hub_refuses_reaches_a_client_that_is_still_sending(api: Api) -> None:
    def full(_: object) -> None:
        raise StoreFull("the hub's disk is full")

    api.hub.verbs["fits"] = full
    with pytest.raises(Refusal) as caught:
        api.client().submit((b"echo\n" * 20_000 for _ in range(20)), {}, env=ENV)
    assert caught.value.code == "store_full"
    with pytest.raises(UserError) as refused:
        api.client().submit((b"echo\n" * 20_000 for _ in range(20)), {"priority": 0}, env=ENV)
    assert refused.value.code == "bad_settings"


def test_a_client_that_goes_away_leaves_no_batch(api: Api) -> None:
    abandoned = threading.Event()
    opened = threading.Event()

    def note(message: object) -> None:
        if isinstance(message, messages.Chunk):
            opened.set()
        if isinstance(message, messages.Abandon):
            abandoned.set()

    api.hub.on_message = note
    raw = api.raw()
    body = b'{"settings": {}, "env": {}}\n' + b"echo\n" * 3000
    raw.sendall(b"POST /v1/batches?key=k HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + body)
    assert opened.wait(WITHIN_S)
    raw.close()
    assert abandoned.wait(WITHIN_S)
    assert api.client().submit([b"a\n"], {}, env=ENV, key="k").jobs == 1


def test_unacknowledged_chunks_hold_the_client_back_and_nobody_else(api: Api) -> None:
    api.hub.is_taking = False
    sent: list[int] = []
    chunks = threading.Semaphore(0)
    api.hub.on_message = lambda message: chunks.release() if isinstance(message, messages.Chunk) else None

    def pieces() -> Iterator[bytes]:
        for number in range(400):
            sent.append(number)
            yield b"x" * 99_999 + b"\n"

    def submit() -> None:
        with pytest.raises(OtherEnd):
            api.client().submit(pieces(), {}, env=ENV)

    thread = threading.Thread(target=submit)
    thread.start()
    for _ in range(16):
        assert chunks.acquire(timeout=WITHIN_S)
    assert api.client().hub()["lanai"] == "0.1.0"
    assert not chunks.acquire(timeout=0.3)  # a seventeenth never comes
    assert len(sent) < 300
    api.hub.stop()
    thread.join(WITHIN_S)
    assert not thread.is_alive()


# -- reading


def test_states_of_jobs(api: Api) -> None:
    client = api.client()
    client.submit([b"a\nb\nc\nd\ne\n"], {}, env=ENV)
    rows = [
        attempt(1, 1, 1),
        attempt(1, 2, 2, state="failed", outcome="exit", exit_code=3),
        attempt(1, 3, 3, state="queued", outcome="node"),
    ]
    api.hub.commit(
        SaveAttempts(rows),  # type: ignore[arg-type]
        SaveTail(BatchId(1), Index(2), 1, True, b"", b"boom\nagain\n", 0, 11),
        SaveProgress(BatchId(1), 3, ((3, 5),), (), Counts(queued=3, done=1, failed=1)),
    )
    api.hub.verbs["in_flight"] = lambda _: {"items": [[3, 2, "n1", 9, WALL_US], [4, 1, "n1", 9, 0]], "waiting": []}
    jobs = {job["index"]: job for job in client.jobs(1)}
    assert [jobs[index]["state"] for index in range(1, 6)] == ["done", "failed", "running", "locked", "queued"]
    assert jobs[1]["wall_s"] == 1.5 and jobs[1]["cpu_user_s"] == 0.25 and jobs[1]["exit_code"] == 0
    assert jobs[3]["attempts"] == 2 and jobs[3]["started_at"] == "2026-09-21T14:13:20.000000Z"
    assert jobs[3]["outcome"] is None and jobs[3]["node"] == "n1"
    assert [job["index"] for job in client.jobs(1, states=["running"])] in ([3], [])
    assert [job["index"] for job in client.jobs(1, states=["failed", "done"])] == [1, 2]
    assert [job["index"] for job in client.jobs(1, ranges="1-5:2")] == [1, 3, 5]
    assert [job["index"] for job in client.jobs(1, limit=2)] == [1, 2]
    (group,) = client.failures(1)["groups"]
    assert (group["outcome"], group["exit_code"], group["count"]) == ("exit", 3, 1)
    assert group["examples"][0]["id"] == "1/2" and group["examples"][0]["stderr"] == "boom\nagain"
    attempts = client.job(1, 3)["attempts_list"]
    assert [(each["attempt"], each["state"]) for each in attempts] == [(1, "failed"), (2, "running")]


def test_batches_and_nodes_that_the_hub_tells_in_pieces_are_shown_together(api: Api) -> None:
    client = api.client()
    for _ in range(3):
        client.submit([b"true\n"], {}, env=ENV)
    whole = api.hub.verbs["status"]({})["batches"]

    def in_pieces(of: str, found: list[dict[str, Any]], name: str) -> None:
        def tell(said: dict[str, Any]) -> dict[str, Any]:
            left = [one for one in found if "after" not in said or one[name] > said["after"]]
            return {of: left[:1], "next": left[0][name] if left else None}

        api.hub.verbs["status" if of == "batches" else of] = tell

    in_pieces("batches", whole, "batch")
    in_pieces("nodes", [{"name": "a"}, {"name": "b"}], "name")
    shown = client.status()
    assert [batch["batch"] for batch in shown["batches"]] == [1, 2, 3]
    assert [node["name"] for node in shown["nodes"]] == ["a", "b"]
    assert [batch["state"] for batch in client.batches()] == [batch["state"] for batch in reversed(shown["batches"])]


def test_a_long_poll_answers_on_a_change_and_shares_one_subscription(api: Api) -> None:
    client = api.client()
    client.submit([b"a\n"], {}, env=ENV)
    change = client.batch(1)["change"]
    watched = threading.Semaphore(0)
    asked = threading.Semaphore(0)

    def note(message: object) -> None:
        if isinstance(message, messages.Watch):
            watched.release()
        if isinstance(message, messages.Command) and message.verb == "progress":
            asked.release()

    api.hub.on_message = note
    seen: list[int] = []
    threads = [
        threading.Thread(target=lambda: seen.append(api.client().batch(1, after=change, timeout_s=WITHIN_S)["change"]))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
        assert asked.acquire(timeout=WITHIN_S)
    api.hub.progress[1] = messages.Progress(BatchId(1), 5, "open", Counts(running=1))
    api.hub.say(api.hub.progress[1])
    for thread in threads:
        thread.join(WITHIN_S)
    assert seen == [5, 5, 5]
    assert watched.acquire(timeout=WITHIN_S) and watched.acquire(timeout=WITHIN_S)  # on once, off once
    assert not watched.acquire(blocking=False)


def test_a_wait_ends_when_the_batch_does_or_its_time_is_up(api: Api) -> None:
    client = api.client()
    client.submit([b"a\n"], {}, env=ENV)
    with pytest.raises(TimedOut):
        client.wait(1, timeout_s=0.05)
    del api.hub.progress[1]
    api.hub.commit(
        SetBatch(BatchId(1), "ended", 10, 0, ended_at_us=WALL_US),
        SaveProgress(BatchId(1), 1, (), (), Counts(done=1)),
    )
    ended = client.wait(1, timeout_s=WITHIN_S)
    assert (ended["state"], ended["counts"]["done"]) == ("ended", 1)
    assert ended["ended_at"] == "2026-09-21T14:13:20.000000Z"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/batches/9", 404),
        ("/v1/batches/last", 404),
        ("/v1/batches/x", 400),
        ("/v1/batches/9999999999999999999", 400),
        ("/v1/batches?before=9223372036854775808", 400),
        ("/v1/batches/1/jobs?limit=0", 400),
        ("/v1/batches/1/jobs?ranges=9-1", 400),
        ("/v1/batches/1/jobs?ranges=1-2", 404),
        ("/v1/batches/1/jobs?ranges=0&format=ndjson", 404),
        ("/v1/jobs/1/2", 404),
        ("/v1/jobs/1/1/output?stream=all", 400),
        ("/v1/nodes/none", 404),
        ("/elsewhere", 404),
    ],
)
def test_bad_questions_are_answered(api: Api, path: str, status: int) -> None:
    if "last" not in path:
        api.client().submit([b"a\n"], {}, env=ENV)
    connection = http.client.HTTPConnection("x")
    connection.sock = api.raw()
    connection.request("GET", path)
    response = connection.getresponse()
    error = json.loads(response.read())["error"]
    connection.close()
    assert (response.status, error["http_status"]) == (status, status)
    assert error["message"] and error["code"]


def test_the_hubs_own_words_come_through(api: Api) -> None:
    def no(_: object) -> None:
        raise Refusal("3 jobs are at work", code="jobs_running", hint="--now", facts={"running": 3})

    api.hub.verbs["stop"] = no
    with pytest.raises(Refusal) as caught:
        api.client().stop()
    assert (caught.value.code, caught.value.hint, caught.value.facts) == ("jobs_running", "--now", {"running": 3})
    api.hub.verbs["cancel"] = lambda said: {"changed": len(said["ranges"])}
    api.client().submit([b"a\n" * 8001], {}, env=ENV)
    assert api.client().cancel(1, ranges="1-9:4,20-30") == 4
    # More ranges than go to the hub at once.
    assert api.client().cancel(1, ranges="1-8001:2") == 4001


def test_jobs_that_a_batch_does_not_have_are_not_passed_over(api: Api) -> None:
    """`retry 109/99` changed nothing and said so with exit code 0."""
    client = api.client()
    client.submit([b"a\n" * 5], {}, env=ENV)
    for change in (client.cancel, client.hold, client.release, client.retry):
        with pytest.raises(NothingThere, match="there is no job 1/6; the batch has 1 to 5"):
            change(1, ranges="2-6", states=["failed"])
    with pytest.raises(NothingThere, match="there is no job 1/0"):
        list(client.jobs(1, ranges="0-3"))


# -- doors


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[Api, int, str, str]]:
    directory = tmp_path / "hub"
    directory.mkdir()
    pin = identity.ensure_certificate(directory, "host")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Api(directory, "--listen", f"127.0.0.1:{port}")
    token = "ab" * 32
    made.hub.commit(SaveToken(TokenId(1), "user", "ann", hashlib.sha256(token.encode()).digest(), WALL_US))
    made.client().hub()
    yield made, port, pin, token
    made.end()


def test_tls_takes_the_users_token_and_no_other(tls: tuple[Api, int, str, str]) -> None:
    api, port, pin, token = tls
    client = api.client(Target(host="127.0.0.1", port=port, pin=pin, token=token))
    assert client.submit([b"a\n" * 5000], {}, env=ENV).jobs == 5000
    assert len(list(client.jobs("last"))) == 5000
    for wrong in ("", "00" * 32, hashlib.sha256(token.encode()).hexdigest()):
        with pytest.raises(NotAllowed):
            api.client(Target(host="127.0.0.1", port=port, pin=pin, token=wrong)).hub()


def test_a_wrong_pin_is_noticed_before_the_token_is_shown(tls: tuple[Api, int, str, str]) -> None:
    api, port, _, token = tls
    with pytest.raises(OtherEnd) as caught:
        api.client(Target(host="127.0.0.1", port=port, pin="00" * 32, token=token)).hub()
    assert caught.value.code == "wrong_pin"


def test_noise_on_the_tls_door_disturbs_nobody(tls: tuple[Api, int, str, str]) -> None:
    api, port, _, _ = tls
    noisy = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for each in noisy:
        each.sendall(b"\x00\xff" * 500)
    assert api.client().hub()["lanai"] == "0.1.0"
    for each in noisy:
        each.close()


def test_the_process_ends_with_its_hub_and_says_so_to_who_waits(tmp_path: Path) -> None:
    api = Api(tmp_path / "hub")
    client = api.client()
    client.submit([b"a\n"], {}, env=ENV)
    change = client.batch(1)["change"]
    errors: list[LanaiError] = []
    asked = threading.Event()
    api.hub.on_message = lambda message: asked.set() if isinstance(message, messages.Watch) else None

    def poll() -> None:
        try:
            client.batch(1, after=change, timeout_s=60)
        except LanaiError as error:
            errors.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    assert asked.wait(WITHIN_S)
    api.end()
    thread.join(WITHIN_S + PATIENCE_S)  # where the end cuts the answer off, the client tries for so long
    assert [error.exit_code for error in errors] == [3]


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100) / "hub"
    api = Api(directory)
    assert api.client().hub()["lanai"] == "0.1.0"
    api.end()
