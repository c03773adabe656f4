"""Values as JSON, strictly: what JSON does not have is refused by its path, never made into something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def json_of(value: Mapping[str, Any], where: str) -> str:
    """A value as JSON. Raises TypeError or ValueError for what JSON does not have, naming where it is."""
    _check(value, where)
    return json.dumps(value, allow_nan=False)


def _check(value: Any, where: str) -> None:
    if value is None or isinstance(value, (str, bool, int)):
        return
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{where}: JSON has no {value!r}")
    elif isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where}: JSON has no keys but strings, got {key!r}")
            _check(part, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            _check(part, f"{where}[{index}]")
    else:
        raise TypeError(f"{where}: expected what JSON has, got {type(value).__name__}")
