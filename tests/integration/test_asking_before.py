"""`lanai when` and `lanai free` of what is not submitted yet: options, defaults and refusals as `submit` has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from services.processes import eventually
from services.site import Site

POLICY = """\
[accounts.physics]
[accounts.chemistry]
users = ["carl"]
[services.vip]
users = ["carl"]
[services.alone]
dedicated = true
[services.one]
[services.one.limits]
jobs = 1
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Of two cpus on n1 one is busy for an hour in the service `one`; n2 has a feature and nothing to do."""
    made = Site(tmp_path_factory.mktemp("before") / "site")
    made.start_hub()
    made.start_agent("n1")
    made.start_agent("n2", "--feature", "ssd")
    made.lanai("policy", "apply", "-", stdin=POLICY)
    made.submit(["exec sleep 1000"], "--time", "1h", "--on", "n1", "--service", "one")
    eventually(lambda: asked(made, "free")["jobs"] == 3, what="it to have begun")
    yield made
    made.close()


def asked(site: Site, *words: str) -> dict[str, Any]:
    """The JSON that a verb answers."""
    found: dict[str, Any] = json.loads(site.lanai(*words, "--format", "json").stdout)
    assert found["version"] == 1
    return found


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--service", "vip"), 4),
        (("--service", "vip", "--account", "physics"), 4),
        (("--service", "none"), 5),
        (("--account", "chemistry"), 4),
        (("--account", "none"), 5),
    ],
)
def test_who_may_not_submit_it_is_told_so_in_the_same_words(site: Site, options: tuple[str, ...], code: int) -> None:
    said = [
        site.lanai(*words, *options, stdin="true\n", ok=False)
        for words in (("when",), ("free",), ("free", "--format", "json"), ("submit", "-"))
    ]
    assert {(one.returncode, one.stdout) for one in said} == {(code, "")}
    assert len({one.stderr for one in said}) == 1, said


@pytest.mark.parametrize(
    "options", [("--on", "n["), ("--service", "a/b"), ("--features", "a*"), ("--nodes", "0"), ("--cpus", "0")]
)
def test_what_nobody_could_mean_is_refused(site: Site, options: tuple[str, ...]) -> None:
    accepted = {site.lanai(verb, *options, ok=False).stderr.partition("found")[2] for verb in ("when", "free")}
    refused = site.lanai("submit", "-", *options, stdin="true\n", ok=False)
    assert refused.returncode == 2 and accepted == {refused.stderr.partition("found")[2]}


def test_each_option_counts(site: Site) -> None:
    for options, jobs in (((), 3), (("--on", "n1"), 1), (("--features", "ssd"), 2), (("--service", "alone"), 1)):
        assert asked(site, "free", *options)["jobs"] == jobs, options
        assert asked(site, "when", *(options or ("--cpus", "1")))["certainty"] == "now", options
    full = asked(site, "free", "--service", "one")
    assert (full["jobs"], full["asked"]["service"], full["asked"]["account"]) == (0, "one", "default")
    assert full["limit"] == "service one runs 1 of at most 1 jobs (soft 1, hard 1)"
    later = asked(site, "when", "--service", "one", "--account", "physics")
    assert 3500 < later["in_s"] <= 3600 and later["asked"]["account"] == "physics"
    assert later["what"] == "1 cpu, account physics, service one"
    nowhere = asked(site, "free", "--on", "m[1-3]")
    assert (nowhere["rooms"], nowhere["never"]) == ([], "needs one of the nodes m[1-3], there is none")
    assert "none ever: needs one of the nodes m1, there is none" in site.lanai("free", "--on", "m1").stdout
    assert "not known: needs one of the nodes m1, there is none" in site.lanai("when", "--on", "m1").stdout
    assert asked(site, "when", "--nodes", "2-4")["asked"]["nodes"] == 2


def test_it_comes_after_what_waits_already(site: Site) -> None:
    waiting = site.submit(["true"], "--cpus", "2", "--on", "n1")
    eventually(lambda: asked(site, "why", str(waiting))["code"] == "no_room", what="a pass")
    shown = site.lanai("when", "--cpus", "2", "--on", "n1").stdout
    assert shown.endswith("is expected to have ended by then; before it would come 1 line that waits\n"), shown
    site.lanai("cancel", str(waiting))


def test_what_is_configured_counts_as_for_submit(site: Site) -> None:
    config = site.home / "config.toml"
    config.write_text('[submit]\nservice = "one"\ncpus = 2\n')
    found = asked(site, "free")
    assert (found["asked"]["service"], found["asked"]["cpus"]) == ("one", 2)
    other = asked(site, "when", "--service", "alone")["asked"]
    assert (other["service"], other["cpus"]) == ("alone", 2)
    config.unlink()
