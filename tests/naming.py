"""Names of generated tests: the same in every process that collects them."""

from __future__ import annotations

import re
from typing import Any


def shown(value: Any) -> str:
    """A value as text, without the address at which it happens to be."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
