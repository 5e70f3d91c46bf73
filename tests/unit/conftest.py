"""The core with a recorder, and the rule that no effect goes unlooked-at."""

from collections.abc import Iterator

import pytest

from core_recorder import Recorder


@pytest.fixture
def hub() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.check_nothing_left()
