"""Says at the end how many worlds were lived through."""

import pytest

LIVED: dict[str, int] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if LIVED:
        terminalreporter.write_line(", ".join(f"{count} {what}" for what, count in LIVED.items()))


@pytest.fixture
def lived() -> dict[str, int]:
    return LIVED
