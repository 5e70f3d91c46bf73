"""Names of features, wherever they come from."""

import pytest

from lanai.agent import detect
from lanai.hub.admission import check_offer
from lanai.model.errors import UserError
from lanai.model.features import is_feature, parse_feature
from lanai.model.resources import Capacity
from lanai.model.settings import settings_from
from lanai.model.units import UnitError
from lanai.wire import messages


@pytest.mark.parametrize("name", ["ssd", "a100", "avx-512", "_x", "1g.5gb", "rack:7+8", "x" * 64])
def test_names_that_a_feature_may_have(name: str) -> None:
    assert parse_feature(name) == name


@pytest.mark.parametrize("name", ["", "a b", "a,b", "-a", ".a", "ü", "x" * 65, "a\n"])
def test_names_that_it_may_not_have(name: str) -> None:
    assert not is_feature(name)
    with pytest.raises(UnitError, match="up to 64 letters"):
        parse_feature(name)


def test_each_agent_knows_its_system_and_processor() -> None:
    assert "linux" in detect.features() and all(map(is_feature, detect.features()))


def test_the_configuration_names_the_mistake() -> None:
    assert settings_from([("c.toml", {"agent": {"features": ["ssd"]}})]).agent.features == ["ssd"]
    with pytest.raises(UserError, match=r"c.toml: agent.features: found 'a b', accepted is a name"):
        settings_from([("c.toml", {"agent": {"features": ["a b"]}})])


@pytest.mark.parametrize(
    ("features", "problem"), [(("a b",), "a feature without a proper name"), (("a", "a"), "a feature twice")]
)
def test_the_hub_takes_no_other_either(features: tuple[str, ...], problem: str) -> None:
    """Whatever an agent says is kept and shown to all."""
    hello = messages.Hello(kind="agent", protocol_min=1, protocol_max=1, version="1", features=features)
    with pytest.raises(UserError, match=problem) as caught:
        check_offer(hello, Capacity(cpu_milli=1000, memory_bytes=0))
    assert caught.value.code == "bad_offer"
