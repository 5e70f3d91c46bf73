"""Configuration is refused, by file and key, where it is not understood."""

import pytest

from lanai.model.access import user_name
from lanai.model.clauses import ACCEPTED_RESOURCE
from lanai.model.errors import UserError
from lanai.model.settings import AgentSettings, Settings, settings_from
from lanai.model.units import ACCEPTED_BYTES, ACCEPTED_DURATION, ACCEPTED_MILLI


def test_nothing_gives_the_defaults() -> None:
    assert settings_from([]) == Settings()


def test_later_files_win_key_by_key() -> None:
    weak = {"hub": "https://a:1", "agent": {"cpus": 2, "memory": "8G"}}
    strong = {"agent": {"cpus": 4}}
    assert settings_from([("weak", weak), ("strong", strong)]) == Settings(
        hub="https://a:1", agent=AgentSettings(cpus=4, memory="8G")
    )


def problem_of(name: str) -> str:
    with pytest.raises(UserError) as caught:
        user_name(name)
    return caught.value.message


@pytest.mark.parametrize(
    ("parsed", "problem"),
    [
        ({"hubb": "x"}, "c.toml: unknown key hubb; did you mean hub?"),
        ({"agent": {"memroy": "8G"}}, "c.toml: unknown key agent.memroy; did you mean agent.memory?"),
        ({"keep": {"batches_days": -1}}, "c.toml: keep.batches_days: expected `float` >= 0.0"),
        ({"access": {"local": "all"}}, "c.toml: access.local: invalid enum value 'all'"),
        ({"access": {"admins": ["a/b"]}}, f"c.toml: access.admins: {problem_of('a/b')}"),
        ({"zzzzzz": 1}, "c.toml: unknown key zzzzzz; known are hub, token_file, submit, agent, keep, access"),
        ({"agent": 3}, "c.toml: agent: expected `object`, got `int`"),
        ({"submit": {"priority": "high"}}, "c.toml: submit.priority: expected `int | null`, got `str`"),
        ({"agent": {"resources": {"x": "y"}}}, "c.toml: agent.resources[...]: expected `int`, got `str`"),
        ({"submit": {"memory": "2Q"}}, f"c.toml: submit.memory: found '2Q', accepted is {ACCEPTED_BYTES}"),
        ({"submit": {"time": "soon"}}, f"c.toml: submit.time: found 'soon', accepted is {ACCEPTED_DURATION}"),
        ({"submit": {"priority": 0}}, "c.toml: submit.priority: expected `int` >= 1"),
        ({"submit": {"retries": -1}}, "c.toml: submit.retries: expected `int` >= 0"),
        ({"agent": {"cpus": 0}}, f"c.toml: agent.cpus: found '0', accepted is {ACCEPTED_MILLI}, more than 0"),
        (
            {"agent": {"resources": {"mem": 1}}},
            f"c.toml: agent.resources: found 'mem', accepted is {ACCEPTED_RESOURCE}",
        ),
    ],
)
def test_refused(parsed: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError) as caught:
        settings_from([("c.toml", parsed)])
    assert caught.value.facts["problems"] == [problem]
    assert caught.value.facts["file"] == "c.toml"


def test_all_unknown_keys_are_named_together() -> None:
    with pytest.raises(UserError) as caught:
        settings_from([("c.toml", {"hubb": 1, "agent": {"cpu": 1}})])
    assert len(caught.value.facts["problems"]) == 2
