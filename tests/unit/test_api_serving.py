"""The API process's TCP port, where another process has it still."""

from __future__ import annotations

import asyncio
import socket

import pytest

from lanai.api import serving
from lanai.model.errors import UserError


def test_a_port_that_the_last_api_process_still_holds_is_waited_for() -> None:
    async def wait(holder: socket.socket) -> int:
        asked = asyncio.create_task(serving.listener("127.0.0.1", port))
        await asyncio.sleep(0)
        assert not asked.done()
        holder.close()
        with await asked as found:
            return int(found.getsockname()[1])

    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        assert asyncio.run(wait(holder)) == port


def test_a_port_that_is_somebody_elses_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PORT_WITHIN_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as holder, pytest.raises(UserError) as refused:
        asyncio.run(serving.listener("127.0.0.1", holder.getsockname()[1]))
    assert refused.value.code == "cannot_listen"
    assert "already in use" in refused.value.message
