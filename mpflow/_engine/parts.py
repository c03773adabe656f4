"""How a chunk is handed to the consumer: bare, as a tuple, or as a part with its type and namespace (SM-2, SM-12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpflow._names import INTERRUPT
from mpflow.constants import START

Make = Callable[[Any], Any]
"""Builds a state's instance from the dict of its values."""
Shape = Callable[[tuple[str, ...], str, Any, "Make | None"], Any]


def shape_of(modes: str | Sequence[str] | None, subgraphs: bool, version: str) -> Shape:
    """What turns namespace, mode, data and the data's schema into a chunk. Raises ValueError for an unknown version."""
    if version == "v2":
        return _part
    if version != "v1":
        raise ValueError(f"version={version!r} is none of 'v1', 'v2'")
    single = modes is None or isinstance(modes, str)
    if subgraphs:
        if single:
            return lambda ns, mode, data, make: (ns, data)
        return lambda ns, mode, data, make: (ns, mode, data)
    if single:
        return lambda ns, mode, data, make: data
    return lambda ns, mode, data, make: (mode, data)


def _part(ns: tuple[str, ...], mode: str, data: Any, make: Make | None) -> dict[str, Any]:
    if mode == "values":
        interrupts: tuple[Any, ...] = ()
        if isinstance(data, dict):
            if INTERRUPT in data:
                data = dict(data)
                interrupts = tuple(data.pop(INTERRUPT))
            if make is not None:
                data = make(data)
        return {"type": mode, "ns": ns, "data": data, "interrupts": interrupts}
    if make is not None:
        if mode == "checkpoints":
            data = _typed(data, make)
        elif mode == "debug" and data["type"] == "checkpoint":
            data = {**data, "payload": _typed(data["payload"], make)}
    return {"type": mode, "ns": ns, "data": data}


def _typed(payload: dict[str, Any], make: Make) -> dict[str, Any]:
    """A checkpoint's payload with its state as an instance, once there is a whole state."""
    if START in payload["next"] or not isinstance(payload["values"], dict):
        return payload
    return {**payload, "values": make(payload["values"])}


def printed(ns: tuple[str, ...], mode: str, data: Any) -> str:
    """The line that ``print_mode`` prints for a chunk."""
    where = f" \033[1;33m[graph={ns}]\033[0m" if ns else ""
    return f"\033[1m[{mode}]\033[0m{where} {data!r}\n"
