"""`lanai policy` and `lanai shares` at a real hub with a real agent."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.callers import Caller
from services.processes import eventually
from services.site import Site

POLICY = """\
[schedule]
depth = 3
[accounts.physics]
weight = 3
[accounts.optics]
parent = "physics"
[users."*"]
account = "optics"
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    yield made
    made.close()


def myself(site: Site) -> Caller:
    """The hub's own user, at its Unix socket."""
    return Caller(path=site.home / "hub" / "api.sock", user=pwd.getpwuid(os.getuid()).pw_name)


def test_a_policy_from_its_check_to_a_hub_that_was_killed(site: Site) -> None:
    hub = site.start_hub()
    site.start_agent("n1")
    (site.work / "site.toml").write_text(POLICY)
    before = site.lanai("policy", "show").stdout
    assert site.lanai("policy", "apply", "site.toml").stderr == "in force; changed: depth, users, accounts\n"
    assert site.lanai("policy", "apply", "site.toml").stderr == "in force as before; nothing differs\n"
    shown = site.lanai("policy", "show").stdout
    assert "depth = 3" in shown and '[accounts.optics]\nparent = "physics"' in shown
    site.lanai("run", "-", stdin="sleep 0.2\ntrue\n")
    hub.kill()
    site.start_hub()
    assert site.lanai("policy", "show").stdout == shown
    told = json.loads(site.lanai("events", "--format", "json", "--filter", "kind=policy_changed").stdout)["events"]
    assert [event["text"].partition(" by ")[0] for event in told] == ["depth, users, accounts"]
    rows = json.loads(site.lanai("events", "--audit", "--format", "json").stdout)["audit"]
    (row, *_) = [row for row in rows if row["action"] == "policy.set" and row["after"]["changed"]]
    assert row["after"]["depth"] == 3 and row["before"]["depth"] == 1
    changed = json.loads(site.lanai("policy", "apply", "-", "--format", "json").stdout)["policy"]["changed"]
    assert changed == ["depth", "users", "accounts"], "of an empty file: the usual policy"
    assert site.lanai("policy", "show").stdout == before


def test_a_policy_with_mistakes_changes_nothing(site: Site) -> None:
    site.start_hub()
    (site.work / "bad.toml").write_text('[schedule]\ndepth = 2\n[accounts.a]\nparent = "a"\nweight = nan\n')
    for verb in ("check", "apply"):
        refused = site.lanai("policy", verb, "bad.toml", ok=False)
        assert (refused.returncode, refused.stderr.splitlines()) == (
            2,
            [
                "lanai: bad.toml has 2 mistakes",
                "  bad.toml:4: found a loop of accounts, a -> a, accepted is a tree",
                "  bad.toml:5: found accounts.a.weight = NaN, accepted is a number above 0",
            ],
        )
    assert json.loads(site.lanai("policy", "show", "--format", "json").stdout)["policy"]["depth"] == 1
    assert site.lanai("policy", "check", "missing.toml", ok=False).returncode == 2


def test_the_hub_checks_for_itself_what_it_is_sent(site: Site) -> None:
    site.start_hub()
    root = myself(site)
    said = root.ask("POST", "/v1/policy", {"toml": "[schedule]\ndepth = -1\n", "file": "mine.toml"})
    assert (said.status, said.code) == (400, "bad_policy")
    problems = said.value["error"]["facts"]["problems"]
    assert problems == ["mine.toml:2: found schedule.depth = -1, accepted is a whole number from 0 to 1000"]
    assert root.ask("POST", "/v1/policy", {}).code == "bad_body"
    assert root.ask("POST", "/v1/policy", {"toml": 3}).code == "bad_body"
    assert root.ask("GET", "/v1/policy").value["is_default"]
    big = "".join(f"[users.u{number}]\nweight = 2\n" for number in range(20_000))
    assert root.ask("POST", "/v1/policy", {"toml": big}).value["changed"] == ["users"]
    assert len(root.ask("GET", "/v1/policy").value["policy"]["users"]) == 20_000


def test_a_batch_names_an_account_that_there_is(site: Site) -> None:
    site.start_hub()
    root = myself(site)
    head = {"settings": {"cwd": "/", "account": "physics"}, "env": {}, "file": "f"}
    body = (json.dumps(head) + "\ntrue\n").encode()
    assert root.ask("POST", "/v1/batches?key=a", body).code == "no_such_account"
    site.lanai("policy", "apply", "-", stdin="[accounts.physics]\n")
    assert root.ask("POST", "/v1/batches?key=a", body).status == 201
    rows = root.ask("GET", "/v1/shares").value["shares"]
    assert [(row["place"], row["account"]) for row in rows] == [
        ("account", ""),
        ("user", "physics"),
        ("batch", "physics"),
    ]


def test_users_see_the_policy_and_administrators_change_it(site: Site) -> None:
    site.start_hub()
    site.lanai("token", "create", "ann", "--file", "ann.token")
    (site.work / "site.toml").write_text(POLICY)
    assert "[schedule]" in site.lanai("--token-file", "ann.token", "policy", "show").stdout
    refused = site.lanai("--token-file", "ann.token", "policy", "apply", "site.toml", ok=False)
    assert refused.returncode == 4 and "may not change the scheduling policy" in refused.stderr
    site.lanai("policy", "apply", "site.toml")
    listed = json.loads(site.lanai("--token-file", "ann.token", "shares", "--format", "json").stdout)["shares"]
    assert [(row["name"], row["account"], row["weight"]) for row in listed] == [
        ("physics", "", 3.0),
        ("optics", "physics", 1.0),
    ]


def test_shares_show_what_is_had_and_was_used(site: Site) -> None:
    site.start_hub()
    site.start_agent("n1", "--cpus", "2")
    (site.work / "site.toml").write_text(POLICY)
    site.lanai("policy", "apply", "site.toml")
    batch = site.lanai("submit", "-", "--format", "quiet", stdin="sleep 100\nsleep 100\nsleep 100\n").stdout.strip()

    def shown() -> dict[str, dict[str, object]]:
        rows = json.loads(site.lanai("shares", "--format", "json").stdout)["shares"]
        return {row["place"] if row["place"] != "account" else row["name"]: row for row in rows}

    eventually(lambda: shown()["batch"]["has"] == 1.0, what="both slots to be taken")
    rows = shown()
    assert (rows["batch"]["name"], rows["batch"]["waiting"], rows["batch"]["turn"]) == (batch, 1, 1)
    assert rows["physics"]["has"] == rows["optics"]["has"] == rows["user"]["has"] == 1.0
    used = rows["user"]["used"]
    assert isinstance(used, float) and 0 < used < 0.01
    site.lanai("cancel", batch)
    site.lanai("wait", batch, ok=False)
    lines = site.lanai("shares").stdout.splitlines()
    assert lines[0].split() == ["NAME", "PLACE", "WEIGHT", "PART", "USED", "HAS", "WAITING", "RANK", "TURN"]
    assert [line.rstrip().partition("  ")[0] for line in lines[1:2]] == ["physics"]
    assert lines[2].startswith("  optics") and lines[3].startswith("    ")
    few = site.lanai("shares", "--filter", "used>0", "--filter", "name~^(optics|physics)$", "--limit", "2").stdout
    assert [line.split()[0] for line in few.splitlines()] == ["NAME", "physics", "optics"], few
    assert site.hub is not None
    site.hub.stop()
    site.start_hub()
    assert 0 < shown()["user"]["used"] < 0.01, "use survives a restart of the hub"


def test_a_maui_cfg_becomes_a_policy_that_can_be_applied(site: Site) -> None:
    (site.work / "maui.cfg").write_text(
        "RMPOLLINTERVAL 60\nUSERCFG[ann] FSTARGET=25.0\nFSDECAY 0.5\nFSINTERVAL 24:00:00\n"
    )
    made = site.lanai("policy", "import", "maui.cfg")
    said = "maui.cfg:1: RMPOLLINTERVAL 60: a policy has nothing like it"
    assert made.stderr == said + "\n"
    assert made.stdout.startswith(f"# {said}\n[schedule]\n") and "[users.ann]\nweight = 25\n" in made.stdout
    assert site.lanai("policy", "check", "-", stdin=made.stdout).stderr.startswith("(standard input) is in order; ")
    in_json = json.loads(site.lanai("policy", "import", "maui.cfg", "--format", "json").stdout)["policy"]
    assert in_json["left_out"] == [said] and 'half_life = "1d"' in in_json["toml"]
    site.start_hub()
    site.lanai("policy", "apply", "-", stdin=made.stdout)
    assert 'preset = "tight"' in site.lanai("policy", "show").stdout
    (site.work / "bad.cfg").write_text("USERCFG[ann] MAXJOB=many\nFSDECAY x\n")
    for words in ((), ("--format", "json")):
        refused = site.lanai("policy", "import", "bad.cfg", *words, ok=False)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.splitlines() == [
            "lanai: bad.cfg has 2 mistakes",
            "  bad.cfg:1: USERCFG[ann] MAXJOB=many: accepted is a number",
            "  bad.cfg:2: FSDECAY x: accepted is a number",
        ]


def test_statistics_go_by_the_account_that_is_charged(site: Site) -> None:
    """The user's own by the policy, since the batch asked for none; what has ended stays there under another policy."""
    site.start_hub()
    site.start_agent("n1")
    site.lanai("policy", "apply", "-", stdin=POLICY)
    site.lanai("run", "--", "true")
    site.lanai("policy", "apply", "-", stdin="")
    site.lanai("run", "--", "true")
    groups = json.loads(site.lanai("stats", "--by", "account", "--format", "json").stdout)["groups"]
    assert sorted(group["group"] for group in groups) == ["default", "optics"]
