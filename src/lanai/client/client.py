"""The hub's capabilities as Python calls: each is one request of docs/http-api.md, its answer as it came.

A batch is named by its number or `last`; ranges of jobs are text as people write them (`12-40:2`). What the other side
refuses is raised as an error of `lanai.model.errors`.

Once a hub has answered, calls that only read, and that which gives input, survive it for `PATIENCE_S`: they are asked
again until it is back, so that waiting and following outlive a restart of the API process or the hub (`patience.py`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlencode

from lanai.client.connection import ANSWER_TIMEOUT_S, Connection, Target
from lanai.client.patience import Patience, Say
from lanai.model.errors import OtherEnd, TimedOut

if TYPE_CHECKING:
    from lanai.model.batch import BatchSettings

BODY_PIECE_BYTES: Final = 1 << 18
POLL_S: Final = 30.0
PAGE_JOBS: Final = 10_000
PATIENCE_S: Final = 30.0
QUIET_S: Final = 1.0

OUT, ERR, END, GAP = 1, 2, 0, 3
"""Which a frame of output is: standard output, standard error, the end."""

Batch = int | str
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What came of a submission. `existed`: the key had been used for the very same before."""

    batch: int
    jobs: int
    existed: bool


class Client:
    """Speaks to one hub. Serves one thread at a time.

    Args:
        patience_s: how long calls that only read are asked again where the hub does not answer any more.
        quiet_s: how long that may last before `say` is told of it.
        say: told, one line a time, that the hub does not answer, and that it does again.
    """

    def __init__(
        self,
        target: Target,
        *,
        patience_s: float = PATIENCE_S,
        quiet_s: float = QUIET_S,
        say: Say = lambda line: None,
    ) -> None:
        self._target = target
        self._connection = Connection(target)
        self._patience = Patience(for_s=patience_s, quiet_s=quiet_s, say=say)

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def another(self) -> Client:
        """A client of the same hub for another thread, which has answered this one. It tells nobody anything."""
        made = Client(self._target)
        made._patience.answered()
        return made

    # -- submitting

    def submit(
        self,
        lines: Iterable[bytes],
        settings: BatchSettings | Mapping[str, object],
        *,
        env: Mapping[bytes, bytes],
        key: str = "",
        file: str = "-",
        single: bool = False,
    ) -> Submitted:
        """Submit a list, given as pieces of bytes of any length, or with `single` one command.

        The batch is on the hub's disk when this returns. Without a `key` a fresh one is used, so the call can be
        repeated under the same `key` only.

        Raises:
            ListErrors: bad lines, all of them; ImpossibleRequest, Refusal: see there. Nothing was submitted.
        """
        head = json.dumps(
            {
                "settings": _plain(settings),
                "env": {_text(name): _text(value) for name, value in env.items()},
                "file": file,
                "single": single,
            }
        )
        path = "/v1/batches?" + urlencode({"key": key or os.urandom(16).hex()})
        body = _coalesced(head.encode() + b"\n", lines)
        answer = self._connection.send(path, body, "application/x-lanai-list")
        self._patience.answered()
        return Submitted(batch=answer["batch"], jobs=answer["jobs"], existed=answer["existed"])

    # -- batches

    def hub(self) -> dict[str, Any]:
        """The hub itself."""
        return self._get("/v1/hub")

    def status(self) -> dict[str, Any]:
        """The hub, batches that have not ended and the last that have, nodes in short."""
        return self._get("/v1/status")

    def batches(self, *, limit: int = 0, state: str = "") -> Iterator[dict[str, Any]]:
        """Batches, newest first; `limit` 0 is all."""
        return self._pages("/v1/batches", "batches", limit=limit, state=state, cursor="before")

    def batch(
        self,
        batch: Batch,
        *,
        after: int | None = None,
        timeout_s: float = POLL_S,
        quiet_s: float = 0.0,
        deadline_s: float | None = None,
    ) -> dict[str, Any]:
        """One batch; with `after`, as soon as its `change` is another, or after `timeout_s`, at most 60.

        A change that says no more than that jobs have moved on is told after `quiet_s` at the earliest, an end at once.

        Raises:
            TimedOut: `deadline_s`, by the monotonic clock, passed while the hub did not answer.
        """
        longest_s = min(timeout_s, POLL_S)
        query: dict[str, object] = {}
        if after is not None:
            query = {"after": after, "timeout_s": longest_s, "quiet_s": min(quiet_s, longest_s)}
        return self._get(_url(f"/v1/batches/{batch}", query), deadline_s=deadline_s)

    def follow(self, batch: Batch, *, timeout_s: float | None = None, quiet_s: float = 0.0) -> Iterator[dict[str, Any]]:
        """The batch now and whenever it has changed, until it has ended; that state is the last.

        While it merely goes on it is told every `quiet_s` at most.

        Raises:
            TimedOut: `timeout_s` passed first.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        shown = self.batch(batch, deadline_s=deadline_s)
        while True:
            yield shown
            if shown["state"] == "ended":
                return
            left_s = POLL_S if deadline_s is None else deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimedOut(f"batch {shown['batch']} has not ended after {timeout_s:g} s")
            shown = self.batch(
                shown["batch"],
                after=shown["change"],
                timeout_s=min(left_s, POLL_S),
                quiet_s=quiet_s,
                deadline_s=deadline_s,
            )

    def wait(self, batch: Batch, *, timeout_s: float | None = None) -> dict[str, Any]:
        """The batch once it has ended. Raises TimedOut where `timeout_s` passes first."""
        for shown in self.follow(batch, timeout_s=timeout_s, quiet_s=POLL_S):
            last = shown
        return last

    def jobs(
        self, batch: Batch, *, states: Sequence[str] = (), ranges: str = "", limit: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Jobs in order of index, read page by page as they are taken; `limit` 0 is all."""
        return self._pages(
            f"/v1/batches/{batch}/jobs", "jobs", limit=limit, state=",".join(states), ranges=ranges, cursor="after"
        )

    def job_lines(
        self, batch: Batch, *, states: Sequence[str] = (), ranges: str = "", limit: int = 0
    ) -> Iterator[bytes]:
        """The same as JSON, one object a line, as the hub writes it: pages of any number of whole lines."""
        left, at = limit, None
        query = {"state": ",".join(states), "ranges": ranges, "format": "ndjson"}
        while True:
            size = min(left, PAGE_JOBS) if limit else PAGE_JOBS
            path = _url(f"/v1/batches/{batch}/jobs", {**query, "limit": size, "after": at})
            page, at = self._patiently(partial(self._connection.page, path))
            yield page
            left -= page.count(b"\n")
            if at is None or (limit and left <= 0):
                return

    def failures(self, batch: Batch, *, limit: int = 10) -> dict[str, Any]:
        """Failed jobs grouped by cause, the largest group first, with examples."""
        return self._get(_url(f"/v1/batches/{batch}/failures", {"limit": limit}))

    def why(self, batch: Batch, index: int | None = None) -> dict[str, Any]:
        """Verdict and facts: why a batch, or one job of it, stands where it does."""
        return self._get(f"/v1/batches/{batch}/why" if index is None else f"/v1/jobs/{batch}/{index}/why")

    def wish(
        self, batch: Batch, verb: str, *, ranges: str | None = None, states: Sequence[str] = (), until_us: int = 0
    ) -> dict[str, Any]:
        """Cancel, hold, release or retry jobs; `ranges` None is the whole batch. `until_us` is for hold alone.

        Returns:
            `changed`: how many jobs the wish reaches; `at_nodes`: those of them at nodes, where it may come too late;
            `running`: those that hold leaves running; `resumed`: whether a paused batch goes on;
            `stay`: held jobs that are not the caller's to release.
        """
        body = {"ranges": ranges, "states": list(states), **({"until_us": until_us} if until_us else {})}
        return self._post(f"/v1/batches/{batch}/{verb}", body)

    def cancel(self, batch: Batch, *, ranges: str | None = None, states: Sequence[str] = ()) -> int:
        """Cancel jobs; returns how many were not at their end. `ranges` None is the whole batch."""
        return self._change(batch, "cancel", ranges, states)

    def hold(self, batch: Batch, *, ranges: str | None = None, states: Sequence[str] = (), until_us: int = 0) -> int:
        """Keep waiting jobs from starting; returns how many, those at nodes included that may have begun already.

        `until_us` is a time in microseconds since 1970; 0: until they are released.
        """
        changed: int = self.wish(batch, "hold", ranges=ranges, states=states, until_us=until_us)["changed"]
        return changed

    def release(self, batch: Batch, *, ranges: str | None = None, states: Sequence[str] = ()) -> int:
        """Let held jobs start; returns how many."""
        return self._change(batch, "release", ranges, states)

    def retry(self, batch: Batch, *, ranges: str | None = None, states: Sequence[str] = ()) -> int:
        """Queue failed or cancelled jobs again; returns how many."""
        return self._change(batch, "retry", ranges, states)

    def set(
        self,
        batch: Batch,
        *,
        priority: int | None = None,
        max_running: int | None = None,
        account: str | None = None,
        service: str | None = None,
        start_after_us: int | None = None,
        reservation: str | None = None,
    ) -> None:
        """Change what may change of a batch; None leaves it. An empty account or service is the user's own.

        An empty reservation is none: its jobs run anywhere.
        """
        body: dict[str, object] = {"priority": priority, "max_running": max_running}
        more = {"account": account, "service": service, "start_after_us": start_after_us, "reservation": reservation}
        body |= {name: value for name, value in more.items() if value is not None}
        self._post(f"/v1/batches/{batch}/set", body)

    # -- jobs

    def job(self, batch: Batch, index: int) -> dict[str, Any]:
        """One job with all its attempts."""
        return self._get(f"/v1/jobs/{batch}/{index}")

    def output(
        self,
        batch: Batch,
        index: int,
        *,
        stream: str = "both",
        attempt: int = 0,
        follow: bool = False,
        offsets: tuple[int, int] = (0, 0),
        tail_only: bool = False,
    ) -> Iterator[tuple[int, bytes]]:
        """The output as (OUT or ERR, bytes), as it comes with `follow`; last (END, JSON of attempt and problem).

        Where the node has not kept all of it, (GAP, JSON of `stream` and `missing`): so many bytes are left out there.

        Args:
            attempt: 0 is the current one, else the last.
            offsets: where to begin in standard output and in standard error.

        The connection is the call's own, so that other calls may be made meanwhile.
        """
        query = {
            "stream": stream,
            "attempt": attempt,
            "follow": int(follow),
            "framed": 1,
            "offset": offsets[0],
            "err_offset": offsets[1],
            "tail_only": int(tail_only),
        }
        connection = Connection(self._target)
        try:
            answer = connection.ask("GET", _url(f"/v1/jobs/{batch}/{index}/output", query), timeout_s=None)
            while True:
                which, data = _frame(lambda count: connection.read(answer, count))
                yield which, data
                if which == END:
                    return
        finally:
            connection.close()

    def send_input(
        self, batch: Batch, index: int, data: bytes, *, offset: int, is_end: bool = False, attempt: int = 0
    ) -> int:
        """Hand bytes to the command's standard input; returns the offset after them, once it has taken them all.

        They may be handed over again: each byte is taken once. So this goes on from what was taken last where the hub,
        its API process or the agent was started again meanwhile.

        Args:
            offset: of `data` in the whole of the attempt's input.
            is_end: nothing follows; returns once the command can see that.
            attempt: the only one that it is for; 0 is whichever there is.

        Raises:
            Refusal: `input_refused` where the command reads no more or the attempt has ended, `input_missing` where
                what comes before `offset` has never arrived.
        """
        goal, at = offset + len(data), offset
        while True:
            query = {"offset": at, "end": int(is_end), "attempt": attempt}
            path = _url(f"/v1/jobs/{batch}/{index}/input", query)
            answer = self._patiently(partial(self._hand_over, path, data[at - offset :]))
            at = int(answer["offset"])
            if at >= goal and (answer["end"] or not is_end):
                return at

    # -- the scheduler

    def queue(self, **asked: object) -> dict[str, Any]:
        """Who runs, who is next and who is blocked: `blocks` (names with commas), `user`, `account`, `service`, `node`,
        `batch`, and of each block `most` rows after `skip`."""
        return self._get(_url("/v1/queue", asked))

    def free(self, shape: Mapping[str, object]) -> dict[str, Any]:
        """What could start now of jobs with these `cpus`, `memory`, `gpus`, `nodes`, `time`, `features`, `on`,
        `resources`, `account` and `service`, as text. Raises what submitting such a job would, where that is refused.
        """
        return self._get(_url("/v1/free", shape))

    def when(
        self, batch: Batch | None = None, index: int | None = None, *, shape: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """The earliest start of a job, of the first that waits of a batch, or of one of a shape as in `free`."""
        if batch is None:
            return self._get(_url("/v1/when", shape or {}))
        return self._get(f"/v1/batches/{batch}/when" if index is None else f"/v1/jobs/{batch}/{index}/when")

    def priority(self, batch: Batch | None = None, index: int | None = None, **asked: object) -> dict[str, Any]:
        """Waiting lines in the order of the pass, with the factors of their scores: of a batch, of a job, or of all.

        Of all: lines of `user` alone, and `most` of them after `skip`.
        """
        if batch is None:
            return self._get(_url("/v1/priority", asked))
        return self._get(f"/v1/batches/{batch}/priority" if index is None else f"/v1/jobs/{batch}/{index}/priority")

    def plan(self, *, toml: str | None = None, file: str = "policy", most: int = 100) -> dict[str, Any]:
        """A dry run: what the next pass would start where, what it would promise, what would be blocked and why.

        `toml` is the text of another policy to try, `file` its name in errors; `most` rows of what is blocked.
        """
        if toml is None:
            return self._get(_url("/v1/plan", {"most": most}))
        return self._post("/v1/plan", {"toml": toml, "file": file, "most": most})

    def stats(self, *, by: str = "user", since: str = "", most: int = 100) -> dict[str, Any]:
        """How jobs fared that have ended since a time by RFC 3339: groups by user, account, service or batch."""
        return self._get(_url("/v1/stats", {"by": by, "since": since, "most": most}))

    # -- nodes and the hub

    def nodes(self) -> list[dict[str, Any]]:
        """All nodes, in the order of their names."""
        nodes: list[dict[str, Any]] = self._get("/v1/nodes")["nodes"]
        return nodes

    def node(self, name: str) -> dict[str, Any]:
        """One node."""
        return self._get(f"/v1/nodes/{quote(name, safe='')}")

    def drain(self, node: str) -> None:
        """Start nothing new on a node."""
        self._post(f"/v1/nodes/{quote(node, safe='')}/drain", {})

    def resume(self, node: str) -> None:
        """Use a drained node again."""
        self._post(f"/v1/nodes/{quote(node, safe='')}/resume", {})

    def remove(self, node: str) -> None:
        """Forget a node. Raises Refusal where it has attempts and is not away."""
        self._post(f"/v1/nodes/{quote(node, safe='')}/remove", {})

    def stop(self, *, now: bool = False) -> dict[str, Any]:
        """Begin the hub's end; running commands go on, but a private hub refuses while there are any, or cancels them
        where it is told to stop `now`."""
        return self._post("/v1/hub/stop", {"now": now})

    # -- the scheduling policy, and shares

    def policy(self) -> dict[str, Any]:
        """The `policy` in force, and as `toml`; `is_default` where none was applied."""
        return self._get("/v1/policy")

    def apply_policy(self, toml: str, *, file: str = "policy") -> list[str]:
        """Have another one in force, at once and whole. Returns what of it differs from the one before.

        Raises:
            UserError: mistakes, each by `file` and line. Nothing was applied.
        """
        changed: list[str] = self._post("/v1/policy", {"toml": toml, "file": file})["changed"]
        return changed

    def shares(self) -> dict[str, Any]:
        """The share tree as `shares`, depth first, of siblings the one first whose turn it is.

        `more` is how many places were left out: of batches those behind the first 2,000.
        """
        return self._get("/v1/shares")

    # -- reservations

    def reservations(self) -> list[dict[str, Any]]:
        """All reservations made by people, the first to begin first; of the nodes of each the first few."""
        found: list[dict[str, Any]] = self._get("/v1/reservations")["reservations"]
        return found

    def reservation(self, name: str) -> dict[str, Any]:
        """One of them. Raises NothingThere."""
        return self._get(f"/v1/reservations/{quote(name, safe='')}")

    def reserve(self, name: str, wish: Mapping[str, Any]) -> dict[str, Any]:
        """Make one, or with `is_dry_run` say what it would do. `wish`: as docs/http-api.md has it."""
        return self._post("/v1/reservations", {**wish, "name": name})

    def change_reservation(self, name: str, wish: Mapping[str, Any]) -> dict[str, Any]:
        """Have it be another in what `wish` says; the rest stays."""
        return self._post(f"/v1/reservations/{quote(name, safe='')}/change", dict(wish))

    def drop_reservation(self, name: str) -> None:
        """Have it be no more. Raises NothingThere."""
        self._post(f"/v1/reservations/{quote(name, safe='')}/drop", {})

    # -- tokens, and what has happened

    def tokens(self) -> list[dict[str, Any]]:
        """All tokens, by number; their secrets are kept nowhere."""
        tokens: list[dict[str, Any]] = self._get("/v1/tokens")["tokens"]
        return tokens

    def create_token(
        self, user: str, *, kind: str = "user", expires_s: float | None = None, label: str = ""
    ) -> dict[str, Any]:
        """A new token with its `secret`, which is told this once, and with `url`, `wire_url` and `pin` of the hub.

        Args:
            kind: `user`, `agent` or `admin`.
            expires_s: after so long it is good no longer; None is never.
        """
        return self._post("/v1/tokens", {"user": user, "kind": kind, "expires_s": expires_s, "label": label})

    def revoke_tokens(self, *, token: int = 0, user: str = "") -> list[int]:
        """Revoke one token, or all of a user. Returns those that were good before. Raises NothingThere."""
        revoked: list[int] = self._post("/v1/tokens/revoke", {"token": token, "user": user})["revoked"]
        return revoked

    def events(self, *, limit: int = 0, since: str = "") -> Iterator[dict[str, Any]]:
        """What has happened to nodes and batches, newest first; `limit` 0 is all, `since` is a time by RFC 3339."""
        return self._pages("/v1/events", "events", limit=limit, since=since, cursor="before")

    def audit(self, *, limit: int = 0, user: str = "", since: str = "") -> Iterator[dict[str, Any]]:
        """Who changed what, newest first; of one `user` where it is given."""
        return self._pages("/v1/audit", "audit", limit=limit, user=user, since=since, cursor="before")

    def history(self, *, user: str = "", since: str = "") -> Iterator[dict[str, Any]]:
        """Pages of the jobs that have ended, by batch and index: `jobs`, and `never_started`, a count of others.

        Args:
            user: only his; empty: all that the caller may see.
            since: only what was submitted since, a time by RFC 3339.
        """
        query: dict[str, object] = {"user": user, "since": since, "limit": PAGE_JOBS}
        at: Mapping[str, object] | None = {}
        while at is not None:
            page = self._get(_url("/v1/history", {**query, **at}))
            yield page
            at = page["next"]

    # -- within

    def _change(self, batch: Batch, verb: str, ranges: str | None, states: Sequence[str]) -> int:
        changed: int = self.wish(batch, verb, ranges=ranges, states=states)["changed"]
        return changed

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        answer = self._connection.json("POST", path, body)
        self._patience.answered()
        return answer

    def _get(self, path: str, *, deadline_s: float | None = None) -> dict[str, Any]:
        ask = partial(self._connection.json, "GET", path, timeout_s=ANSWER_TIMEOUT_S)
        return self._patiently(ask, deadline_s=deadline_s)

    def _hand_over(self, path: str, data: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._connection.read(self._connection.ask("POST", path, data)))
        return answer

    def _patiently(self, ask: Callable[[], T], *, deadline_s: float | None = None) -> T:
        while True:
            try:
                answer = ask()
            except TimedOut:
                raise
            except OtherEnd as error:
                self._patience.failed(error, deadline_s=deadline_s)
            else:
                self._patience.answered()
                return answer

    def _pages(self, path: str, what: str, *, limit: int, cursor: str, **query: object) -> Iterator[dict[str, Any]]:
        taken, at = 0, None
        while True:
            size = min(limit - taken, PAGE_JOBS) if limit else PAGE_JOBS
            page = self._get(_url(path, {**query, "limit": size, cursor: at}))
            yield from page[what]
            taken += len(page[what])
            at = page.get("next")
            if at is None or (limit and taken >= limit):
                return


def _url(path: str, query: Mapping[str, object]) -> str:
    given = {name: value for name, value in query.items() if value is not None and value != ""}
    return f"{path}?{urlencode(given)}" if given else path


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _plain(settings: BatchSettings | Mapping[str, object]) -> object:
    import msgspec

    # By to_builtins and not by msgspec's JSON, which cannot carry bytes that are no UTF-8 to where they are refused.
    return msgspec.to_builtins(settings)


def _coalesced(head: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    gathered, size_bytes = [head], len(head)
    for piece in pieces:
        gathered.append(piece)
        size_bytes += len(piece)
        if size_bytes >= BODY_PIECE_BYTES:
            yield b"".join(gathered)
            gathered, size_bytes = [], 0
    if gathered:
        yield b"".join(gathered)


def _frame(read: Callable[[int], bytes]) -> tuple[int, bytes]:
    head = read(5)
    if len(head) < 5:
        raise OtherEnd("the output ended in the middle", code="output_cut")
    length = int.from_bytes(head[1:], "big")
    data = read(length) if length else b""
    if len(data) < length:
        raise OtherEnd("the output ended in the middle", code="output_cut")
    return head[0], data
