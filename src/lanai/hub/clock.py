"""The hub's two clocks, as integer microseconds. The only place of the hub that reads them."""

from __future__ import annotations

import time


def boottime_us() -> int:
    """For intervals: CLOCK_BOOTTIME, which runs on during suspend and is set by nobody."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def wall_us() -> int:
    """For show, start-after dates and token expiry: microseconds since 1970. May jump."""
    return time.time_ns() // 1000
