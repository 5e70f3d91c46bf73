"""For tests that play the hub: an agent, in a place that every user gets through, and an API process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.agent_hub import ScriptedHub, listening
from services.agent_process import AgentProcess
from services.scripted_api import Api
from services.users import open_directory


@pytest.fixture
def ground() -> Iterator[Path]:
    with open_directory() as made:
        yield made


@pytest.fixture
def hub(ground: Path) -> Iterator[ScriptedHub]:
    with listening(ground / "hub.sock") as made:
        yield made


@pytest.fixture
def agent(ground: Path) -> Iterator[AgentProcess]:
    """Not started yet; what runs at the end is ended."""
    made = AgentProcess(ground / "agent", f"unix:{ground}/hub.sock")
    yield made
    made.clean_up()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path / "hub")
    yield made
    made.end()
