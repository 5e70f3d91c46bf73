"""Whether tests can make control groups here."""

from __future__ import annotations

import os

import pytest

from lanai.agent import cgroup_mounts


def needs_cgroups() -> None:
    """Fail in CI, and leave the test out aloud elsewhere, where none can be made."""
    can = any(one.own is not None and os.access(one.own, os.W_OK) for one in cgroup_mounts.find())
    if can:
        return
    if os.environ.get("CI"):
        pytest.fail("this test makes cgroups, for which it has to be root where they are mounted writable")
    pytest.skip("makes cgroups: run it as root, where they are mounted writable")
