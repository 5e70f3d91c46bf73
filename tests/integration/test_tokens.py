"""`lanai token` and `lanai events` at a real hub, and a hub that `lanai hub start` opens as its configuration says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.cli.verbs import token
from lanai.model.errors import UserError
from services.callers import Caller
from services.processes import eventually
from services.site import Site
from services.users import needs_root


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    yield made
    made.close()


def test_a_token_from_its_creation_to_its_end(site: Site) -> None:
    site.start_hub()
    made = site.lanai("token", "create", "ann", "--expires", "30d", "--label", "laptop", "--file", "ann.token")
    assert made.stdout == "" and "token 3 of ann (user)" in made.stderr
    file = site.work / "ann.token"
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(file.read_text())) == {"url", "wire_url", "pin", "user", "token"}
    batch = site.lanai("--token-file", "ann.token", "submit", "-", "--format", "quiet", stdin="true\n").stdout.strip()
    listed = site.lanai("batch", "list", "--columns", "batch,user", "--format", "csv").stdout
    assert listed.splitlines()[1:] == [f"{batch},ann"]
    refused = site.lanai("--token-file", "ann.token", "token", "list", ok=False)
    assert (refused.returncode, refused.stderr.splitlines()[1]) == (4, "try: lanai token roles")
    listed = json.loads(site.lanai("token", "list", "--filter", "user=ann", "--format", "json").stdout)
    (token,) = listed["tokens"]
    assert (token["token"], token["kind"], token["state"], token["label"]) == (3, "user", "good", "laptop")
    assert site.lanai("token", "revoke", "ann").stderr == "token 3 revoked\n"
    assert site.lanai("token", "revoke", "3").stderr == "3: revoked before\n"
    assert site.lanai("token", "revoke", "bob", ok=False).returncode == 5
    gone = site.lanai("--token-file", "ann.token", "status", ok=False)
    assert gone.returncode == 4 and "token 3 was revoked" in gone.stderr


def test_a_secret_is_printed_where_no_file_is_named_and_nowhere_else(site: Site) -> None:
    hub = site.start_hub()
    known = json.loads(site.lanai("token", "create", "ann").stdout)
    (site.work / "by-hand.token").write_text(json.dumps(known))
    site.lanai("--token-file", "by-hand.token", "status")
    shown = json.loads(site.lanai("token", "create", "eve", "--kind", "admin", "--format", "json").stdout)["token"]
    assert (shown["token"], shown["kind"], len(shown["secret"])) == (4, "admin", 64)
    hidden = site.lanai("token", "create", "eve", "--file", "eve.token", "--format", "json").stdout
    assert "secret" not in json.loads(hidden)["token"]
    secrets = [known["token"], shown["secret"], json.loads((site.work / "eve.token").read_text())["token"]]
    site.lanai("--token-file", "by-hand.token", "hub", "stop", ok=False)
    for path in [hub.log, *(site.home / "hub").iterdir()]:
        if path.is_file() and path.name != "token":
            assert not [secret for secret in secrets if secret.encode() in path.read_bytes()], path
    assert "eve" in site.lanai("events", "--audit", "--format", "ndjson").stdout


def test_a_file_that_is_there_is_not_overwritten(site: Site) -> None:
    site.start_hub()
    (site.work / "ann.token").write_text("precious")
    refused = site.lanai("token", "create", "ann", "--file", "ann.token", ok=False)
    assert (refused.returncode, (site.work / "ann.token").read_text()) == (2, "precious")
    assert site.lanai("token", "list", "--format", "quiet").stdout.split() == ["1", "2"]
    refused = site.lanai("token", "create", "1000", "--file", "no.token", ok=False)
    assert refused.returncode == 2 and not (site.work / "no.token").exists()
    assert site.lanai("token", "create", "ann", "--expires", "soon", ok=False).returncode == 2


def test_of_several_that_are_revoked_each_that_can_be_is(site: Site) -> None:
    site.start_hub()
    site.lanai("token", "create", "ann")
    site.lanai("token", "create", "bob")
    refused = site.lanai("token", "revoke", "nobody", "ann", "\N{SUPERSCRIPT TWO}", "4", ok=False)
    assert refused.returncode == 5
    said = ["token 3 revoked", "token 4 revoked", "lanai: user \N{SUPERSCRIPT TWO} has no token"]
    assert refused.stderr.splitlines() == [*said, "lanai: user nobody has no token", "try: lanai token list"]


def test_a_secret_that_found_no_room_is_said_to_be_lost(tmp_path: Path) -> None:
    """And it goes where the file was made, whatever somebody has put in its place."""
    file = tmp_path / "ann.token"
    claimed = token._claim(file)
    file.unlink()
    file.symlink_to(tmp_path / "anothers")
    token._write(claimed, file, {"token": "secret"}, 7)
    assert not (tmp_path / "anothers").exists()
    with pytest.raises(UserError) as refused:
        token._write(os.open("/dev/full", os.O_WRONLY), file, {"token": "secret"}, 7)
    assert refused.value.hint == "lanai token revoke 7, and create another"
    assert not file.is_symlink()


def test_an_agent_joins_by_a_join_file_of_its_own(site: Site) -> None:
    site.start_hub()
    site.lanai("token", "create", "ann", "--kind", "agent", "--file", str(site.work / "rack.join"))
    (site.home / "join").write_text((site.work / "rack.join").read_text())
    agent = site.start_agent("n1")
    told = json.loads(site.lanai("events", "--format", "json", "--filter", "kind=node_joined").stdout)["events"]
    assert [each["text"] for each in told] == ["for the first time, with token 3 of ann"]
    site.lanai("token", "revoke", "3")
    eventually(lambda: "token 3 was revoked" in agent.log.read_text())


def test_the_table_of_roles_needs_no_hub(site: Site) -> None:
    columns = "action,user,operator,admin"
    rows = site.lanai("token", "roles", "--format", "csv", "--columns", columns).stdout.splitlines()
    assert rows[0] == "action,user,operator,admin"
    assert "batch.cancel,own,own,yes" in rows and "hub.stop,no,no,yes" in rows


def test_events_and_the_trail_as_lists(site: Site) -> None:
    site.start_hub()
    site.start_agent("n1")
    for _ in range(3):
        site.lanai("node", "drain", "n1")
    assert site.lanai("node", "remove", "nowhere", ok=False).returncode == 5
    trail = json.loads(site.lanai("events", "--audit", "--format", "json").stdout)["audit"]
    assert [row["action"] for row in trail] == ["node.remove", "node.drain", "node.drain", "node.drain"]
    assert (trail[0]["is_refused"], trail[0]["why"]) == (True, "no node is called nowhere")
    table = site.lanai("events", "--audit", "--user", "root", "--limit", "2").stdout.splitlines()
    assert len(table) == 3 and table[0].split()[:3] == ["HAPPENED_AT", "USER", "ROLE"]
    assert site.lanai("events", "--audit", "--user", "ann", "--format", "quiet").stdout == ""
    assert len(site.lanai("events", "--audit", "--since", "1h", "--format", "quiet").stdout.split()) == 4
    assert site.lanai("events", "--audit", "--since", "2199-01-01", "--format", "quiet").stdout == ""
    assert site.lanai("events", "--user", "ann", ok=False).returncode == 2
    assert site.lanai("events", "--since", "then", ok=False).returncode == 2
    kinds = site.lanai("events", "--columns", "kind", "--format", "csv").stdout.split()
    assert set(kinds) == {"kind", "node_joined", "node_drain"}  # what is of one second has no order of its own


def test_a_private_hub_has_no_tokens(site: Site) -> None:
    site.lanai("run", "-", stdin="true\n")
    try:
        refused = site.lanai("token", "create", "ann", ok=False)
        assert (refused.returncode, refused.stderr.splitlines()[1]) == (7, "try: lanai hub start, which has")
        assert (site.home / "private" / "api.sock").stat().st_mode & 0o777 == 0o600
    finally:
        site.lanai("hub", "stop")


def test_the_configuration_opens_the_hub_and_names_who_is_more(site: Site) -> None:
    needs_root()
    import shutil
    import tempfile

    directory = Path(tempfile.mkdtemp(prefix="lanai-open-"))
    directory.chmod(0o711)
    try:
        (site.home / "config.toml").write_text(
            f'[access]\nlocal = "everyone"\nsocket = "{directory}/api.sock"\n'
            'operators = ["games"]\nadmins = ["daemon"]\n'
        )
        site.lanai("hub", "start", "--listen", "127.0.0.1:0")
        for user, role in (("nobody", "user"), ("games", "operator"), ("daemon", "admin"), ("root", "admin")):
            said = Caller(path=directory / "api.sock", user=user).ask("GET", "/v1/hub")
            assert said.value["you"] == {"user": user, "role": role}
        (site.home / "config.toml").write_text('[access]\noperators = ["0", "olga"]\n')
        refused = site.lanai("status", ok=False)
        assert refused.returncode == 2 and "access.operators: '0' cannot be a user's name" in refused.stderr
    finally:
        (site.home / "config.toml").unlink()
        site.lanai("hub", "stop")
        shutil.rmtree(directory)


def test_a_hub_that_is_open_where_nobody_gets_is_said_to_be(site: Site) -> None:
    started = site.lanai("hub", "start", "--listen", "127.0.0.1:0", "--local", "everyone")
    try:
        assert f"others cannot reach {site.home}/hub/api.sock" in started.stderr
        assert "try: [access] socket = PATH in config.toml" in started.stderr
    finally:
        site.lanai("hub", "stop")
    started = site.lanai("hub", "start", "--listen", "127.0.0.1:0")
    assert "others cannot reach" not in started.stderr
    site.lanai("hub", "stop")
