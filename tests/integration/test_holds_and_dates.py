"""Holds, start dates, services and accounts with a real hub and agent: what one types, what comes back, what starts."""

from __future__ import annotations

import json
import pwd
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lanai.client.client import Client
from lanai.model.errors import NotAllowed
from services.processes import eventually
from services.site import Site
from services.town import Town
from services.users import made_users, open_directory


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("holds"))
    made.start_hub()
    made.start_agent("n1")
    yield made
    made.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Site]:
    """One whose hub may be killed."""
    made = Site(tmp_path / "site")
    made.start_hub()
    made.start_agent("n1")
    yield made
    made.close()


def why(site: Site, what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.lanai("why", what, "--format", "json").stdout)
    return found


def shown(site: Site, batch: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.lanai("batch", "show", str(batch), "--format", "json").stdout)["batch"]
    return found


def test_a_batch_waits_for_its_date_and_starts_then(site: Site) -> None:
    batch = site.submit(["true"] * 3, "--start-after", "+2s")
    begun_s = time.time()
    said = why(site, str(batch))
    assert (said["code"], said["verdict"][:36]) == ("date", "none of its jobs is to start before ")
    assert shown(site, batch)["start_after_at"] > "2026"
    assert "start_after_at: " in site.lanai("batch", "show", str(batch)).stdout
    site.wait(batch)
    # It was submitted a little before the clock was looked at, and its date lies 2 s after that.
    assert all(job["state"] == "done" for job in site.jobs(batch))
    assert time.time() - begun_s > 0.5


def test_a_batch_is_submitted_held_and_released(site: Site) -> None:
    batch = site.submit(["true"] * 3, "--hold")
    assert why(site, str(batch))["code"] == "held" and shown(site, batch)["state"] == "held"
    site.lanai("release", f"{batch}/2")
    eventually(lambda: [job["state"] for job in site.jobs(batch)] == ["held", "done", "held"], what="job 2")
    site.lanai("release", str(batch))
    site.wait(batch)


def test_a_date_that_is_past_holds_nothing_back(site: Site) -> None:
    said = site.lanai("submit", "-", "--start-after", "2020-01-01", "--format", "quiet", stdin="true\n")
    assert " is past, so its jobs may start at once\n" in said.stderr
    site.wait(int(said.stdout))


def test_a_date_that_is_far_is_set_and_lifted(site: Site) -> None:
    batch = site.submit(["true"], "--start-after", "2126-12-01T08:00Z")
    assert why(site, f"{batch}/1")["verdict"] == "none of its jobs is to start before 2126-12-01 08:00:00 UTC"
    site.lanai("set", str(batch), "--start-after", "2126-12-02")
    assert shown(site, batch)["start_after_at"].startswith("2126-12-0")
    site.lanai("set", str(batch), "--start-after", "now")
    site.wait(batch)


def test_a_timed_hold_outlives_the_hub_and_ends_by_itself(fresh: Site) -> None:
    batch = fresh.submit(["true"] * 2, "--start-after", "2126-12-01")
    fresh.lanai("hold", str(batch), "--until", "2126-12-01")
    assert fresh.lanai("hold", f"{batch}/2", "--until", "+3s").stderr == f"batch {batch}: 1 job held\n"
    fresh.lanai("set", str(batch), "--start-after", "now")
    assert fresh.hub is not None
    fresh.hub.kill()
    fresh.start_hub()
    first = why(fresh, f"{batch}/1")
    assert (first["code"], first["hold"]["kind"], first["hold"]["until"][:10]) == ("held", "user", "2126-12-01")
    assert first["hold"]["since"] == first["since"]
    eventually(lambda: fresh.counts(batch) == {"held": 1, "done": 1}, what="the second job to have run")
    said = fresh.lanai("why", f"{batch}/1").stdout
    assert "held by " in said and " until 2126-12-01 " in said
    fresh.lanai("release", str(batch))
    fresh.wait(batch)


def test_a_hold_until_a_moment_that_is_over_or_none_is_refused(site: Site) -> None:
    batch = site.submit(["true"], "--start-after", "2126-12-01")
    over = site.lanai("hold", str(batch), "--until", "2020-01-01T00:00Z", ok=False)
    assert (over.returncode, over.stderr.splitlines()[0]) == (2, "lanai: 2020-01-01 00:00:00 UTC is over")
    none = site.lanai("hold", str(batch), "--until", "soon", ok=False)
    assert none.returncode == 2 and "--until: found 'soon', accepted is a moment" in none.stderr
    site.lanai("cancel", str(batch))


def test_a_service_or_account_that_is_not_there_is_refused_with_what_is(site: Site) -> None:
    user = pwd.getpwuid(site.home.stat().st_uid).pw_name
    refused = site.lanai("submit", "-", "--service", "fast", stdin="true\n", ok=False)
    assert refused.returncode == 5
    assert refused.stderr.splitlines() == ["lanai: there is no service fast", f"try: {user} may use: normal"]
    refused = site.lanai("run", "--account", "grant", "--", "true", ok=False)
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (5, "lanai: there is no account grant")
    batch = site.submit(["true"], "--service", "normal", "--account", "default", "--start-after", "2126-12-01")
    assert (shown(site, batch)["service"], shown(site, batch)["account"]) == ("normal", "default")
    assert site.lanai("set", str(batch), "--service", "fast", ok=False).returncode == 5
    site.lanai("set", str(batch), "--service", "")
    assert shown(site, batch)["service"] == ""
    site.lanai("cancel", str(batch))


def test_the_configuration_names_a_service(site: Site, tmp_path: Path) -> None:
    config = site.home / "config.toml"
    config.write_text('[submit]\nservice = "fast"\n')
    try:
        refused = site.lanai("submit", "-", stdin="true\n", ok=False)
        assert refused.stderr.splitlines()[0] == "lanai: there is no service fast"
        site.wait(site.submit(["true"], "--service", "normal"))
    finally:
        config.unlink()


def test_an_operators_hold_is_not_its_users_to_lift() -> None:
    with made_users("ann", "keeper") as (ann, keeper), open_directory() as ground:
        town = Town(ground, keeper)
        try:
            town.start_hub()
            batch = town.submit(ann, ["true"] * 2)
            assert town.ask(keeper, lambda client: client.hold(batch)) == 2
            said = town.ask(ann, lambda client: client.why(batch))
            assert (said["hold"]["kind"], said["hold"]["by"]) == ("operator", keeper.pw_name)
            assert f"held by the operator {keeper.pw_name} since " in said["verdict"]

            def release(client: Client) -> str:
                with pytest.raises(NotAllowed) as caught:
                    client.release(batch)
                return caught.value.code

            assert town.ask(ann, release) == "held_by_operator"
            assert town.ask(keeper, lambda client: client.release(batch)) == 2
        finally:
            town.close()
