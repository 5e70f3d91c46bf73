"""Features: names of what a node has or is and a job may ask for, such as `ssd` or `a100`.

A node has one or has it not. Two that every node has are found out by its agent: the operating system and the kind of
its processor.
"""

from __future__ import annotations

import re
from typing import Final

from lanai.model.units import UnitError

ACCEPTED_FEATURE: Final = "a name of up to 64 letters, digits and _ . : + -, beginning with a letter, digit or _"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,63}")


def is_feature(text: str) -> bool:
    """Whether a feature may be called so."""
    return _NAME.fullmatch(text) is not None


def parse_feature(text: str) -> str:
    """The name itself. Raises UnitError where no feature may be called so."""
    if not is_feature(text):
        raise UnitError(text, ACCEPTED_FEATURE)
    return text
