"""The Python client: speaks to the API process, and nothing else.

It must not open the store or speak to an agent. Of Lanai it imports ``lanai.model`` and ``lanai.wire``. Each name below
is imported when it is first used, so that ``import lanai.client`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lanai.client.client import Client as Client
    from lanai.client.client import Submitted as Submitted
    from lanai.client.connection import Target as Target
    from lanai.client.discover import Found as Found
    from lanai.client.discover import find as find

_HOMES = {
    "Client": "lanai.client.client",
    "Submitted": "lanai.client.client",
    "Target": "lanai.client.connection",
    "Found": "lanai.client.discover",
    "find": "lanai.client.discover",
}

__all__ = ["Client", "Found", "Submitted", "Target", "find"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
