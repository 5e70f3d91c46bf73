"""Following, against an API that answers what the test wrote down: what a real one does only on a bad day."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.cli.main import main
from lanai.cli.single import _next_attempt, exit_code
from scripted_api import ScriptedApi, batch, error, frames, job, serving


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedApi]:
    monkeypatch.setenv("LANAI_HOME", str(tmp_path / "home"))
    with serving(tmp_path / "home") as made:
        yield made


def lanai(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lanai", *words])
    return main()


def test_a_paused_batch_ends_the_watch_with_its_reason(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without this, `lanai run` would follow for ever a batch of which nothing starts any more."""
    paused = batch(7, state="paused", reason="25 jobs in a row failed on 2 nodes", failed=25, queued=75)
    api.on("GET", "/v1/batches/7", paused)
    group = {"outcome": "exit", "exit_code": 1, "signal": None, "count": 25, "reason": None}
    group["examples"] = [{"id": f"7/{index}", "index": index, "reason": None, "stderr": ""} for index in (1, 2, 3, 4)]
    api.on("GET", "/v1/batches/7/failures", {"version": 1, "groups": [group]})
    assert lanai(monkeypatch, "watch", "7") == 1
    said = capsys.readouterr().err
    assert "batch 7 is paused: 25 jobs in a row failed on 2 nodes" in said
    assert "25 x exit code 1: 7/1, 7/2, 7/3, ..." in said
    assert "try: lanai release 7" in said


def failure_group(count: int, **values: object) -> dict[str, object]:
    examples = [{"id": "7/1", "index": 1, "reason": values.get("reason"), "stderr": ""}]
    group = {"outcome": "exit", "exit_code": 1, "signal": None, "count": count, "reason": None, "examples": examples}
    return group | values


def test_what_the_summary_does_not_show_is_counted(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("GET", "/v1/batches/7", batch(7, failed=16))
    reason = "output check exists: outA does not exist"
    groups = [failure_group(7, outcome="check", exit_code=0, reason=reason), failure_group(2)]
    api.on("GET", "/v1/batches/7/failures", {"version": 1, "groups": groups, "more_groups": 3, "more_jobs": 7})
    assert lanai(monkeypatch, "watch", "7") == 1
    lines = capsys.readouterr().err.splitlines()
    assert "  7 x output check exists failed: 7/1, ..." in lines
    assert "  7 x 3 further causes (not shown): lanai job list 7@failed" in lines


def test_at_a_pause_the_groups_add_up_to_the_failed_jobs(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A count is told before what it counts is on disk, and the last jobs end after the pause."""
    paused = batch(7, state="paused", reason="sick", failed=26, queued=74)
    later = batch(7, state="paused", reason="sick", change=2, failed=27, queued=73)
    api.on("GET", "/v1/batches/7", lambda query, body: later if "after" in query else paused)
    found = iter([25, 27])
    api.on("GET", "/v1/batches/7/failures", lambda query, body: {"version": 1, "groups": [failure_group(next(found))]})
    assert lanai(monkeypatch, "watch", "7") == 1
    said = capsys.readouterr().err
    assert "batch 7: 27 failed, 73 queued" in said
    assert "27 x exit code 1" in said


def test_where_they_never_agree_the_difference_is_said(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on("GET", "/v1/batches/7", batch(7, state="paused", reason="sick", failed=26, queued=74))
    api.on("GET", "/v1/batches/7/failures", {"version": 1, "groups": [failure_group(25)]})
    assert lanai(monkeypatch, "watch", "7") == 1
    assert "  1 x failed while this was looked up: lanai job list 7@failed" in capsys.readouterr().err


def test_wait_asks_again_only_for_what_it_has_not_seen(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = iter([batch(change=1, queued=1), batch(change=5, running=1), batch(change=9, done=1)])
    api.on("GET", "/v1/batches/1", lambda query, body: {**next(shown), "state": "open"} | _ended(api))
    assert lanai(monkeypatch, "wait", "1") == 0
    assert [query.get("after") for _, _, query, _ in api.asked] == [None, "1", "5"]


def _ended(api: ScriptedApi) -> dict[str, str]:
    return {"state": "ended"} if len(api.asked) == 3 else {}


def test_an_error_of_the_hub_keeps_its_exit_code_and_hint(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = error("version_mismatch", "the protocols do not meet", exit_code=8, hint="upgrade lanai")
    api.on("GET", "/v1/batches/1", (426, {"error": said}))
    assert lanai(monkeypatch, "wait", "1") == 8
    assert capsys.readouterr().err == "lanai: the protocols do not meet\ntry: upgrade lanai\n"


def test_the_only_state_asked_for_is_left_to_the_hub(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.on("GET", "/v1/batches/1/jobs", {"version": 1, "jobs": [job(3, state="failed")], "next": None})
    assert lanai(monkeypatch, "job", "list", "1", "--filter", "state=failed", "--limit", "5") == 0
    assert lanai(monkeypatch, "job", "list", "1/2-9@failed,done", "--limit", "5") == 0
    first, second = (query for _, _, query, _ in api.asked)
    assert (first["state"], first["limit"]) == ("failed", "10000")
    assert (second["state"], second["ranges"], second["limit"]) == ("failed,done", "2-9", "5")


def status_of(*running: dict[str, object], ended: list[dict[str, object]]) -> dict[str, object]:
    return {"version": 1, "hub": {"pid": 1, "lanai": "x"}, "batches": list(running), "ended": ended, "nodes": []}


@pytest.mark.parametrize(
    ("words", "running", "ended"),
    [
        ((), [7, 8], [6, 5]),
        (("--limit", "1"), [7], []),
        (("--limit", "0"), [], []),
        (("--limit", "3"), [7, 8], [5]),
        (("--filter", "failed>0"), [8], [5]),
    ],
)
def test_status_in_json_has_one_shape_whatever_is_chosen(
    api: ScriptedApi,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    running: list[int],
    ended: list[int],
) -> None:
    """With --limit or --filter the hub, the nodes and the counts were missing."""
    every = {7: batch(7, state="open"), 8: batch(8, state="open", failed=1), 6: batch(6), 5: batch(5, failed=2)}
    answer = status_of(every[7], every[8], ended=[every[6], every[5]])
    api.on("GET", "/v1/status", answer)
    assert lanai(monkeypatch, "status", "--format", "json", *words) == 0
    shown = json.loads(capsys.readouterr().out)
    chosen = {"batches": [every[number] for number in running], "ended": [every[number] for number in ended]}
    assert shown == {**answer, **chosen}


def test_status_in_json_with_columns_has_only_those_in_the_same_shape(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = status_of(batch(7, state="open", failed=1), ended=[batch(6)])
    api.on("GET", "/v1/status", answer)
    assert lanai(monkeypatch, "status", "--format", "json", "--columns", "batch,failed") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {**answer, "batches": [{"batch": 7, "failed": 1}], "ended": [{"batch": 6, "failed": 0}]}


def test_output_goes_on_where_the_connection_to_the_node_broke(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The first answer ends with a problem while the job still runs; what came before must not be copied again."""
    monkeypatch.setattr("lanai.cli.feeding.has_input", lambda: False)
    api.on("POST", "/v1/batches", (201, {"version": 1, "batch": 1, "jobs": 1, "existed": False}))
    outputs = iter([frames((1, b"one "), (2, b"err"), problem="the connection is lost"), frames((1, b"two\n"))])
    api.on("GET", "/v1/jobs/1/1/output", lambda query, body: next(outputs))
    attempts = [{"attempt": 1, "state": "done", "started_at": "x"}]
    states = iter(["running", "done"])
    api.on("GET", "/v1/jobs/1/1", lambda query, body: {**job(state=next(states)), "attempts_list": attempts})
    assert lanai(monkeypatch, "run", "--", "true") == 0
    written = capfdbinary.readouterr()
    assert (written.out, written.err) == (b"one two\n", b"err")
    offsets = [(query["offset"], query["err_offset"]) for _, path, query, _ in api.asked if path.endswith("/output")]
    assert offsets == [("0", "0"), ("4", "3")]
    head, _, line = api.bodies("POST", "/v1/batches")[0].partition(b"\n")
    assert line == b"true"
    assert json.loads(head)["settings"]["shell"] == "words"


@pytest.mark.parametrize("follow", [[], ["-f"]])
def test_the_output_of_each_of_several_jobs_begins_on_a_line_of_its_own(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], follow: list[str]
) -> None:
    api.on("GET", "/v1/batches/1/jobs", {"version": 1, "jobs": [job(1), job(2)], "next": None})
    states = iter(["running", "done", "running", "done"])
    for index, pieces in ((1, [(1, b"no newline"), (2, b"none")]), (2, [(1, b"one\n"), (2, b"one\n")])):
        api.on("GET", f"/v1/jobs/1/{index}/output", frames(*pieces))
        api.on("GET", f"/v1/jobs/1/{index}", lambda query, body: job(state=next(states)))
    assert lanai(monkeypatch, "logs", *follow, "1/1-2") == 0
    written = capfdbinary.readouterr()
    assert written.out == b"==> 1/1 <==\nno newline\n==> 1/2 <==\none\n"
    assert written.err == b"none\none\n"


def test_the_next_attempt_to_show() -> None:
    def listed(*attempts: tuple[int, str, str | None]) -> list[dict[str, object]]:
        return [{"attempt": number, "state": state, "started_at": at} for number, state, at in attempts]

    done = {**job(attempts=1), "attempts_list": listed((1, "done", "x"))}
    assert _next_attempt(done, 1) is None
    queued = {**job(state="queued", attempts=1), "attempts_list": listed((1, "queued", "x"))}
    assert _next_attempt(queued, 1) == 2
    given_back = {**job(state="locked", attempts=4), "attempts_list": listed((1, "queued", "x"), (4, "locked", None))}
    assert _next_attempt(given_back, 1) == 4
    both = {**job(attempts=3), "attempts_list": listed((1, "queued", "x"), (2, "queued", "x"), (3, "done", "x"))}
    assert _next_attempt(both, 1) == 2
    assert _next_attempt(queued, 2) == 2


def test_an_attempt_that_was_given_back_is_followed_again(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A node that gives back what it has not begun ends the stream without a word; the next one has the same number."""
    api.on("POST", "/v1/batches", (201, {"batch": 7, "jobs": 1, "existed": False}))
    api.on("GET", "/v1/batches/7", batch(7, queued=1))
    again = {"attempts": 1, "attempts_list": [{"attempt": 1, "state": "failed", "started_at": "x"}]}
    over = {
        "attempts": 2,
        "attempts_list": [*again["attempts_list"], {"attempt": 2, "state": "done", "started_at": "x"}],
    }
    jobs = iter([job(number=7, state="queued", **again)] * 2 + [job(number=7, **over)] * 2)
    api.on("GET", "/v1/jobs/7/1", lambda query, body: next(jobs))
    second = iter([frames(attempt=2), frames((1, b"two\n"), attempt=2)])
    outputs = {"1": lambda: frames((1, b"one\n")), "2": lambda: next(second)}
    api.on("GET", "/v1/jobs/7/1/output", lambda query, body: outputs[query["attempt"]]())
    assert lanai(monkeypatch, "run", "--retries", "1", "--", "true") == 0
    assert capfdbinary.readouterr().out == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"state": "done", "outcome": "ok", "exit_code": 0}, 0),
        ({"state": "failed", "outcome": "exit", "exit_code": 3}, 3),
        ({"state": "failed", "outcome": "signal", "signal": 11}, 139),
        ({"state": "failed", "outcome": "notfound", "exit_code": 127}, 127),
        ({"state": "failed", "outcome": "check", "exit_code": 0}, 1),
        ({"state": "failed", "outcome": "time", "signal": 15}, 143),
        ({"state": "failed", "outcome": "memory"}, 1),
        ({"state": "cancelled", "outcome": None}, 1),
    ],
)
def test_exit_codes(values: dict[str, object], code: int) -> None:
    assert exit_code(job(**values)) == code  # type: ignore[arg-type]
