"""Who may do what, at a real hub: every route, as every role, about one's own and another's, through both doors.

The hub is open to everybody on the machine, `games` is an operator there, `olga` one who comes by token. The table of
`model.access` says what is to be refused; what is not refused may fail for other reasons, such as a node that is not
there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lanai.api.handlers import Handlers
from lanai.model.access import RULES, Action, Role, may
from lanai.wire import messages, unix
from services.callers import Caller, acting_as
from services.processes import Process, eventually, start_agent, start_hub
from services.users import needs_root
from services.wirepeer import WirePeer

VICTIM = "daemon"
ROUTES = [(each.method, each.path, each.action) for each in Handlers(None, None).routes()]  # type: ignore[arg-type]
ROLES = {"user": ("nobody", "ann"), "operator": ("games", "olga"), "admin": ("root", "eve")}
"""Role -> who has it on the Unix socket, and who by a token."""


class Site:
    """A hub that others of this machine can reach, and those who call it."""

    def __init__(self, *options: str, prefix: tuple[str, ...] = (), owner: str = "root") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="lanai-access-"))
        self.directory.chmod(0o711)
        self.home = self.directory / "home"
        self.home.mkdir()
        self.open = self.directory / "open"
        self.open.mkdir(mode=0o711)
        self.socket = self.open / "api.sock"
        for path in (self.directory, self.home, self.open):
            shutil.chown(path, owner)
        local = () if "--local" in options else ("--local", "everyone")
        try:
            self.hub = start_hub(self.home, *local, "--api-socket", str(self.socket), *options, prefix=prefix)
        except BaseException:
            shutil.rmtree(self.directory)
            raise
        self.agent: Process | None = None
        eventually(lambda: answers(self.socket))  # it is there before it listens
        self.root = self.local("root")

    def local(self, user: str) -> Caller:
        return Caller(path=self.socket, user=user)

    def remote(self, user: str, kind: str = "user", **wish: object) -> Caller:
        """Somebody with a token made for him."""
        file = self.home / f"{user}-{kind}.token"
        file.write_text(json.dumps(self.token(user, kind, **wish)))
        return Caller(token_file=file, user=user)

    def token(self, user: str, kind: str = "user", **wish: object) -> dict[str, Any]:
        """A token, in what its file holds; `number` besides."""
        said = self.root.ask("POST", "/v1/tokens", {"user": user, "kind": kind, **wish})
        assert said.status == 201, said
        made = said.value
        return {"url": made["url"], "pin": made["pin"], "token": made["secret"], "number": made["token"]}

    def run_agent(self) -> None:
        self.agent = start_agent(self.home, "n1", "--cpus", "2")

    def audit(self, **query: str) -> list[dict[str, Any]]:
        asked = "&".join(f"{name}={value}" for name, value in {"limit": "10000", **query}.items())
        rows: list[dict[str, Any]] = self.root.ask("GET", f"/v1/audit?{asked}").value["audit"]
        return rows

    def refused(self, count: int) -> list[dict[str, Any]]:
        """So many refusals in the trail, the newest first. They are written down a moment after they were told."""

        def found() -> list[dict[str, Any]]:
            rows = [row for row in self.audit() if row["is_refused"]]
            return rows if len(rows) >= count else []

        rows: list[dict[str, Any]] = eventually(found)
        return rows

    def close(self) -> None:
        from services.processes import end_starters

        for process in (self.agent, self.hub):
            if process is not None:
                process.kill()
        end_starters(self.home)
        shutil.rmtree(self.directory)


def answers(path: Path) -> bool:
    try:
        unix.connect(path).close()
    except OSError:
        return False
    return True


@pytest.fixture
def site() -> Iterator[Site]:
    needs_root()
    made = Site("--operator", "games", "--operator", "olga")
    yield made
    made.close()


def submission(*lines: str, **head: object) -> bytes:
    return (
        json.dumps({"settings": {"cwd": "/"}, "env": {"PATH": "/usr/bin:/bin"}, "file": "f", **head}).encode()
        + ("\n" + "".join(f"{line}\n" for line in lines)).encode()
    )


def submitted(caller: Caller, *lines: str, key: str = "") -> int:
    said = caller.ask("POST", f"/v1/batches?key={key or os.urandom(8).hex()}", submission(*lines or ("true",)))
    assert said.status == 201, said
    return int(said.value["batch"])


def ended(caller: Caller, batch: int) -> bool:
    return bool(caller.ask("GET", f"/v1/batches/{batch}").value["state"] == "ended")


def body_of(method: str, path: str) -> object:
    """What to send, so that where one may, little comes of it."""
    if path == "/v1/hub/stop":
        return {"no such field": 1}  # who may stop the hub is told that this is not how
    if path == "/v1/batches" and method == "POST":
        return submission("true")
    if path == "/v1/tokens" and method == "POST":
        return {"user": "carl"}
    if path == "/v1/tokens/revoke":
        return {"user": "nobody-has-this-name"}
    return None if method == "GET" else {}


def told_wrongly(caller: Caller, role: str, own: int, others: int) -> list[tuple[object, ...]]:
    """Ask every route, about both batches where it is about one; returns the answers that the table does not allow."""
    wrong: list[tuple[object, ...]] = []
    for method, path, action in ROUTES:
        for batch in (own, others) if "{batch}" in path else (0,):
            made = path.format(batch=batch, index=1, node="nowhere", name="nothing")
            query = "?tail_only=1" if path.endswith("output") else ""
            said = caller.ask(method, made + query, body_of(method, path))
            is_allowed = may(Role(role), action, is_own=batch != others)
            if (said.status != 403) != is_allowed or said.status >= 500:
                wrong.append((caller.user, method, made, action, said))
            needs = "not_yours" if may(Role(role), action, is_own=True) else "needs_role"
            if said.status == 403 and said.code != needs:
                wrong.append((caller.user, method, made, action, said))
    return wrong


def test_every_route_as_every_role_about_his_own_and_anothers_through_both_doors(site: Site) -> None:
    site.run_agent()
    callers = {name: site.local(name) for name in ("nobody", "games", "root")}
    callers |= {name: site.remote(name, kind) for name, kind in (("ann", "user"), ("olga", "user"), ("eve", "admin"))}
    victim = site.local(VICTIM)
    own = {name: submitted(caller) for name, caller in callers.items()}
    others = submitted(victim)
    eventually(lambda: ended(victim, others) and all(ended(callers[name], batch) for name, batch in own.items()))
    before = victim.ask("GET", f"/v1/batches/{others}").value
    for role, names in ROLES.items():
        for name in names:
            assert callers[name].ask("GET", "/v1/hub").value["you"] == {"user": name, "role": role}
            assert told_wrongly(callers[name], role, own[name], others) == []
        if role == "user":
            assert victim.ask("GET", f"/v1/batches/{others}").value == before
    assert {action for _, _, action in ROUTES} == set(RULES)
    assert {"nobody", "ann", "games", "olga"} <= {row["user"] for row in site.refused(40)}
    assert site.hub.stop() == 0


def test_lists_show_a_user_his_own(site: Site) -> None:
    ann = site.remote("ann")
    hers, his = submitted(ann, "one"), submitted(site.local(VICTIM), "two")
    for caller, seen in ((ann, [hers]), (site.local(VICTIM), [his]), (site.local("nobody"), [])):
        assert [each["batch"] for each in caller.ask("GET", "/v1/batches").value["batches"]] == seen
        assert [each["batch"] for each in caller.ask("GET", "/v1/status").value["batches"]] == seen
    for caller in (site.local("games"), site.root):
        assert {each["batch"] for each in caller.ask("GET", "/v1/batches").value["batches"]} == {hers, his}
        assert {each["batch"] for each in caller.ask("GET", "/v1/status").value["batches"]} == {hers, his}
    site.root.ask("POST", f"/v1/batches/{hers}/cancel", {})
    assert ann.ask("GET", "/v1/status").value["ended"][0]["batch"] == hers
    assert site.local(VICTIM).ask("GET", "/v1/status").value["ended"] == []
    assert site.local("nobody").ask("GET", "/v1/batches/last").code == "no_such_batch"


def test_the_queue_and_statistics_show_a_user_his_own_and_how_much_others_have(site: Site) -> None:
    site.run_agent()
    ann, victim = site.remote("ann"), site.local(VICTIM)
    done = submitted(ann, "true"), submitted(victim, "true")
    eventually(lambda: ended(ann, done[0]) and ended(victim, done[1]))
    hers, his = submitted(ann, "sleep 100", "sleep 100"), submitted(victim, "sleep 100", "sleep 100")

    def seen(caller: Caller, query: str = "") -> list[tuple[list[int], int, int]]:
        blocks = caller.ask("GET", f"/v1/queue{query}").value
        return [
            ([row["batch"] for row in block["rows"]], block["jobs"], block["others"])
            for block in (blocks["running"], blocks["eligible"])
        ]

    eventually(lambda: seen(site.root)[0][1] == 2)
    assert {batch for rows, _, _ in seen(site.local("games")) for batch in rows} == {hers, his}
    for caller, batch in ((ann, hers), (victim, his)):
        assert {number for rows, _, _ in seen(caller) for number in rows} == {batch}
        assert [sum(column) for column in zip(*(block[1:] for block in seen(caller)), strict=True)] == [2, 2]
    assert seen(ann, f"?user={VICTIM}")[0] == seen(site.local("nobody"))[0] == ([], 0, 2)
    groups = {caller.user: caller.ask("GET", "/v1/stats").value for caller in (ann, victim, site.root)}
    assert [group["group"] for group in groups["ann"]["groups"]] == ["ann"]
    assert [group["group"] for group in groups[VICTIM]["groups"]] == [VICTIM]
    assert {group["group"] for group in groups["root"]["groups"]} == {"ann", VICTIM}
    assert len({group["total"]["jobs"] for group in groups.values()}) == 1
    assert victim.ask("GET", f"/v1/jobs/{hers}/1/when").code == "not_yours"
    assert site.root.ask("GET", "/v1/queue?blocks=nonsense").code == "bad_query"
    assert site.root.ask("GET", "/v1/stats?by=nonsense").code == "bad_query"


def test_the_past_is_shown_as_lists_are(site: Site) -> None:
    ann = site.remote("ann")
    for caller in (ann, site.local(VICTIM)):
        batch = submitted(caller, "one", "two")
        caller.ask("POST", f"/v1/batches/{batch}/cancel", {})
        eventually(lambda caller=caller, batch=batch: ended(caller, batch))

    def never_started(caller: Caller, query: str = "") -> int:
        return int(caller.ask("GET", f"/v1/history{query}").value["never_started"])

    assert [never_started(caller) for caller in (ann, site.local("nobody"), site.local("games"))] == [2, 0, 4]
    assert [never_started(caller, "?user=ann") for caller in (ann, site.local("games"), site.root)] == [2, 2, 2]
    assert site.local(VICTIM).ask("GET", "/v1/history?user=ann").code == "not_yours"


def test_what_is_refused_changes_nothing(site: Site) -> None:
    victim, bad = site.local(VICTIM), site.remote("ann")
    batch = submitted(victim, "echo one", "echo two")
    before = victim.ask("GET", f"/v1/batches/{batch}").value
    wishes = {f"/v1/batches/{batch}/{verb}": {} for verb in ("cancel", "hold", "release", "retry")}
    for path, body in {**wishes, f"/v1/batches/{batch}/set": {"priority": 1}}.items():
        said = bad.ask("POST", path, body)
        assert (said.status, said.code) == (403, "not_yours")
    assert bad.ask("POST", f"/v1/jobs/{batch}/1/input?offset=0", b"data").code == "not_yours"
    assert victim.ask("GET", f"/v1/batches/{batch}").value == before
    rows = site.refused(6)
    assert [row["subject"] for row in rows[::-1]][:2] == [
        f"POST /v1/batches/{batch}/cancel", f"POST /v1/batches/{batch}/hold"
    ]  # fmt: skip
    assert all(row["is_refused"] and row["door"] == "tls" and row["address"] == "127.0.0.1" for row in rows)
    assert len({row["token"] for row in rows}) == 1 and rows[0]["token"] is not None


def test_keys_of_two_users_do_not_meet(site: Site) -> None:
    batches = {submitted(caller, key="same") for caller in (site.local(VICTIM), site.remote("ann"))}
    assert len(batches) == 2


# -- forged, expired, revoked, foreign


FORGED = {
    "X-Forwarded-User": "root",
    "X-Remote-User": "root",
    "X-Forwarded-For": "127.0.0.1",
    "Remote-User": "root",
    "Cookie": "user=root",
}


def test_nothing_that_a_request_says_makes_somebody_another(site: Site) -> None:
    for caller, user in ((site.remote("ann"), "ann"), (site.local("nobody"), "nobody")):
        said = caller.ask("GET", "/v1/hub?user=root&role=admin", headers=FORGED)
        assert said.value["you"] == {"user": user, "role": "user"}
        settings = {"cwd": "/", "user": "root"}
        said = caller.ask("POST", "/v1/batches?key=k", submission("true", settings=settings), FORGED)
        assert (said.status, said.code) == (400, "bad_submission")
        said = caller.ask("POST", "/v1/batches?key=k&user=root", submission("true", user="root"), FORGED)
        assert caller.ask("GET", f"/v1/batches/{said.value['batch']}").value["user"] == user
        assert caller.ask("POST", "/v1/tokens", {"user": user, "kind": "admin"}, FORGED).code == "needs_role"


def test_a_token_counts_for_nothing_on_the_unix_socket(site: Site) -> None:
    secret = site.token("eve", "admin")["token"]
    said = site.local("nobody").ask("GET", "/v1/hub", headers={"Authorization": f"Bearer {secret}"})
    assert said.value["you"] == {"user": "nobody", "role": "user"}


def test_a_user_whom_the_system_does_not_know_is_refused(site: Site) -> None:
    said = site.local("54321987").ask("GET", "/v1/hub")
    assert (said.status, said.code) == (403, "unknown_user")
    (row,) = site.refused(1)
    assert (row["user"], row["uid"], row["pid"]) == (None, 54321987, os.getpid())


def test_tokens_that_open_no_door_of_clients(site: Site) -> None:
    known = site.remote("ann")
    assert known.ask("GET", "/v1/hub").status == 200
    url = site.token("ann")["url"]
    other = Site()
    try:
        foreign = other.token("ann", "admin")["token"]
    finally:
        other.close()
    join = json.loads((site.home / "join").read_text())["token"]
    hashed = hashlib.sha256(known._known["token"].encode()).hexdigest()
    for wrong, why in ((foreign, "not known"), (join, "for agents"), (hashed, "not known"), ("", "needs a token")):
        file = site.home / "wrong.token"
        file.write_text(json.dumps({"url": url, "token": wrong}))
        said = Caller(token_file=file).ask("GET", "/v1/hub")
        assert said.status == 403 and why in said.value["error"]["message"], (wrong, said)
    said = site.remote("late", expires_s=0.001).ask("GET", "/v1/hub")
    assert "has expired" in said.value["error"]["message"]
    rows = site.refused(5)
    assert len(rows) == 5 and all(row["user"] is None and row["door"] == "tls" for row in rows)
    assert known.ask("GET", "/v1/hub").status == 200


def test_a_revoked_token_ends_what_is_under_way(site: Site) -> None:
    """One who follows an output that never comes, one who waits for a batch to change: both are cut off, others not."""
    ann, eve = site.remote("ann"), site.remote("eve", "admin")
    batch, kept = submitted(ann, "true"), submitted(eve, "true")
    change = ann.ask("GET", f"/v1/batches/{batch}").value["change"]
    following = f"/v1/jobs/{batch}/1/output?follow=1"
    with ann.asked("GET", following) as cut, eve.asked("GET", f"/v1/jobs/{kept}/1/output?follow=1") as stays:
        assert cut.status == stays.status == 200
        said = eve.ask("POST", "/v1/tokens/revoke", {"user": "ann"})
        assert len(said.value["revoked"]) == 1
        assert not _is_whole(cut)
        assert ann.ask("GET", f"/v1/batches/{batch}?after={change}").code == "bad_token"
        eve.ask("POST", f"/v1/batches/{kept}/cancel", {})
        assert _is_whole(stays)
    said = site.root.ask("GET", "/v1/tokens")
    assert [each["state"] for each in said.value["tokens"] if each["user"] == "ann"] == ["revoked"]


def test_a_token_that_expires_ends_what_is_under_way(site: Site) -> None:
    ann = site.remote("ann", expires_s=2.0)
    batch = submitted(ann, "true")
    with ann.asked("GET", f"/v1/jobs/{batch}/1/output?follow=1") as cut:
        assert not _is_whole(cut)
    assert "has expired" in ann.ask("GET", "/v1/hub").value["error"]["message"]


def _is_whole(answer: Any) -> bool:
    """Reads to the end; whether that was the answer's own."""
    import http.client

    try:
        answer.read()
    except (http.client.IncompleteRead, ConnectionError):
        return False
    return True


def test_a_flood_of_wrong_tokens_is_counted_and_not_written_down(site: Site) -> None:
    file = site.home / "wrong.token"
    file.write_text(json.dumps({"url": site.token("ann")["url"], "token": "00"}))
    stranger = Caller(token_file=file)
    for _ in range(50):
        assert stranger.ask("GET", "/v1/hub").status == 403
    assert site.local("nobody").ask("GET", "/v1/audit").code == "needs_role"
    rows = site.refused(21)
    assert rows[0]["user"] == "nobody"
    assert len(rows) <= 25


# -- agents


def test_agents_come_in_by_their_own_tokens_only(site: Site) -> None:
    refused = {
        "only the hub's": site.token("ann")["token"],
        "an administrator's": site.token("eve", "admin")["token"],
        "late": site.token("bob", "agent", expires_s=0.001)["token"],
        "nonsense": "00" * 32,
        "none": "",
    }
    for name, token in refused.items():
        peer = WirePeer.tls(site.home)
        peer.send(messages.Hello("agent", 1, 1, "t", token, name.replace(" ", "-"), "k", "b", 1, 0, None))
        assert peer.expect(messages.Refused).error.code == "bad_token", name
        peer.close()
    peer = WirePeer.tls(site.home)
    peer.send(messages.Hello("api", 1, 1, "t", site.token("bob", "agent")["token"]))
    assert peer.expect(messages.Refused).error.code == "bad_token"
    peer.close()
    rows = site.refused(6)
    assert len(rows) == 6 and all(row["action"] == "agent.join" and row["address"] == "127.0.0.1" for row in rows)


def test_an_agent_whose_token_is_revoked_is_dropped_and_the_others_stay(site: Site) -> None:
    first, second = site.token("ann", "agent"), site.token("bob", "agent")
    gone, stays = WirePeer.tls(site.home), WirePeer.tls(site.home)
    gone.hello_agent("gone", token=first["token"], key="g")
    stays.hello_agent("stays", token=second["token"], key="s")
    said = site.root.ask("POST", "/v1/tokens/revoke", {"token": first["number"]})
    assert said.value["revoked"] == [first["number"]]
    assert gone.is_ended_by_hub()
    stays.send(messages.Heartbeat(7, 1))
    stays.expect(messages.Beat, number=7)
    again = WirePeer.tls(site.home)
    again.send(messages.Hello("agent", 1, 1, "t", first["token"], "gone", "g", "b", 1, 0, None))
    assert "was revoked" in again.expect(messages.Refused).error.message
    for peer in (gone, stays, again):
        peer.close()
    told = [each for each in site.root.ask("GET", "/v1/events").value["events"] if each["kind"] == "node_joined"]
    assert {each["text"] for each in told} == {
        f"for the first time, with token {first['number']} of ann",
        f"for the first time, with token {second['number']} of bob",
    }


# -- the trail


def test_every_change_is_in_the_trail_and_outlives_the_hub(site: Site) -> None:
    site.run_agent()
    ann = site.remote("ann")
    site.root.ask("POST", "/v1/nodes/n1/drain", {})
    batch = submitted(ann, "true", "true")
    for verb in ("hold", "release", "cancel"):
        ann.ask("POST", f"/v1/batches/{batch}/{verb}", {"ranges": "1"})
    ann.ask("POST", f"/v1/batches/{batch}/set", {"priority": 7})
    ann.ask("POST", f"/v1/batches/{batch}/retry", {"states": ["cancelled"]})
    site.root.ask("POST", "/v1/nodes/n1/resume", {})
    eventually(lambda: ended(ann, batch))
    site.root.ask("POST", "/v1/nodes/n1/remove", {})
    site.root.ask("POST", "/v1/tokens/revoke", {"user": "ann"})
    said = site.root.ask("POST", "/v1/hub/stop", {})
    assert said.status == 200
    assert site.hub.wait() == 0
    site.hub = start_hub(site.home, "--local", "everyone", "--api-socket", str(site.socket))
    eventually(lambda: site.root.ask("GET", "/v1/hub").status == 200 if _listens(site) else False)
    rows = site.audit()[::-1]
    assert [row["action"] for row in rows] == [
        "token.create", "node.drain", "batch.submit", "batch.hold", "batch.release", "batch.cancel", "batch.set",
        "batch.retry", "node.resume", "node.remove", "token.revoke", "hub.stop",
    ]  # fmt: skip
    by = {row["action"]: row for row in rows}
    assert by["batch.set"]["before"]["priority"] == 10 and by["batch.set"]["after"]["priority"] == 7
    assert by["batch.hold"]["subject"] == f"batch {batch} jobs 1"
    assert (by["batch.hold"]["user"], by["batch.hold"]["door"]) == ("ann", "tls")
    assert (by["node.drain"]["user"], by["node.drain"]["uid"], by["node.drain"]["pid"]) == ("root", 0, os.getpid())
    assert [row["action"] for row in site.audit(user="ann")][-1] == "batch.submit"
    page = site.root.ask("GET", "/v1/audit?limit=2").value
    assert [row["row"] for row in page["audit"]] == [12, 11] and page["next"] == 11
    since = rows[5]["happened_at"]
    assert len(site.audit(since=since)) == 7


def _listens(site: Site) -> bool:
    try:
        site.root._connected().close()
    except OSError:
        return False
    return True


def test_input_for_a_job_is_in_the_trail_once(site: Site) -> None:
    site.run_agent()
    ann = site.remote("ann")
    head = {"settings": {"cwd": "/", "stdin": "pipe", "shell": "words"}, "single": True}
    said = ann.ask("POST", "/v1/batches?key=k", submission("cat", **head)[:-1])
    batch = said.value["batch"]
    for offset, data, end in ((0, b"one", 0), (3, b"two", 1)):
        said = ann.ask("POST", f"/v1/jobs/{batch}/1/input?offset={offset}&end={end}", data)
        assert said.status == 200, said
    eventually(lambda: ended(ann, batch))
    rows = eventually(lambda: [row for row in site.audit() if row["action"] == "input.write"])
    assert [(row["user"], row["subject"]) for row in rows] == [("ann", f"job {batch}/1")]


# -- whose hub it is


def test_a_hub_that_is_not_open_is_its_owners(tmp_path: Path) -> None:
    needs_root()
    site = Site("--local", "owner")
    try:
        assert site.root.ask("GET", "/v1/hub").value["you"]["role"] == "admin"
        assert site.socket.stat().st_mode & 0o777 == (site.home / "hub" / "api.sock").stat().st_mode & 0o777 == 0o600
        with pytest.raises(PermissionError):
            site.local("nobody").ask("GET", "/v1/hub")
        site.socket.chmod(0o666)
        said = site.local("nobody").ask("GET", "/v1/hub")
        assert (said.status, said.code) == (403, "not_allowed")
        assert "belongs to root" in said.value["error"]["message"]
    finally:
        site.close()


def test_a_hub_of_somebody_who_is_not_root_serves_everybody_with_a_token() -> None:
    """It has no rights but to read the interpreter, which on some machines lies in a home of root's."""
    needs_root()
    rights = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    prefix = ("setpriv", "--reuid", "daemon", "--regid", "daemon", "--clear-groups", *rights)
    site = Site(prefix=prefix, owner="daemon")
    try:
        assert re.search(r"^Uid:\t1\t1\t1\t1$", Path(f"/proc/{site.hub.pid}/status").read_text(), re.MULTILINE)
        for caller, user, role in (
            (site.local("root"), "root", "admin"),
            (site.local("daemon"), "daemon", "admin"),
            (site.local("nobody"), "nobody", "user"),
            (site.remote("no-such-user-here"), "no-such-user-here", "user"),
        ):
            assert caller.ask("GET", "/v1/hub").value["you"] == {"user": user, "role": role}
        site.run_agent()
        ann = site.remote("ann")
        batch = submitted(ann, "id -un")
        eventually(lambda: ended(ann, batch))
        assert ann.ask("GET", f"/v1/jobs/{batch}/1/output?stream=out").body == b"root\n"
    finally:
        site.close()


def test_this_process_is_root_again_after_all() -> None:
    needs_root()
    with acting_as(1):
        assert os.geteuid() == 1
    assert (os.geteuid(), os.getegid()) == (0, 0)
    assert Action.HUB_SEE in RULES


def test_what_a_dropped_agent_runs_ends_with_its_lease() -> None:
    needs_root()
    site = Site("--lease-s", "4")
    try:
        made = site.token("ann", "agent")
        wire = site.root.ask("GET", "/v1/hub").value["url"]
        (site.home / "join").write_text(json.dumps({**made, "url": wire}))
        site.agent = start_agent(site.home, "n1", "--cpus", "1")
        pid_file = site.directory / "pid"
        batch = submitted(site.root, f"echo $$ > {pid_file}; exec sleep 1000")
        eventually(lambda: pid_file.exists() and pid_file.read_text())
        command = Path("/proc", pid_file.read_text().strip())
        site.root.ask("POST", "/v1/tokens/revoke", {"user": "ann"})
        eventually(lambda: not command.exists())
        assert site.root.ask("POST", f"/v1/batches/{batch}/cancel", {}).status == 200
        (refused, *_) = site.refused(1)
        assert (refused["subject"], refused["token"]) == ("node n1", made["number"])
    finally:
        site.close()
