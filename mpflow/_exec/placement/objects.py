"""What objects that a node reaches are made of, as far as their parts can be looked at: fields, slots, what a proxy shows."""

from __future__ import annotations

import abc
import gc
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mpflow._exec.placement.trusted import is_known
from mpflow._exec.placement.values import module_of

_STATELESS: Final = (object, abc.ABC, typing.Generic, typing.Protocol)


class Fields(Mapping[str, Any]):
    """The fields of an instance, those in slots included, as they are at each moment."""

    __slots__ = ("_named", "_owner", "_slots")

    def __init__(self, owner: Any, named: dict[str, Any], slots: dict[str, Any]) -> None:
        self._owner = owner
        self._named = named
        self._slots = slots

    def __getitem__(self, name: str) -> Any:
        if name in self._named:
            return self._named[name]
        try:
            return self._slots[name].__get__(self._owner)
        except AttributeError:  # not set
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        yield from self._named
        yield from (name for name in self._slots if self._is_set(name))

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))

    def __len__(self) -> int:
        return len(self._named) + sum(map(self._is_set, self._slots))

    def _is_set(self, name: str) -> bool:
        try:
            self._slots[name].__get__(self._owner)
        except AttributeError:
            return False
        return True


def fields_of(value: Any) -> Mapping[str, Any] | None:
    """The state of an object of a class of the user's, if that is all there is to it; else None."""
    kind = type(value)
    slots: dict[str, Any] = {}
    for base in kind.__mro__:
        if base in _STATELESS:
            continue
        if is_known(module_of(base)):  # it may hold what nobody can look at
            return None
        members = base.__dict__.items()
        slots.update((name, part) for name, part in members if isinstance(part, types.MemberDescriptorType))
    try:
        named = object.__getattribute__(value, "__dict__")  # whatever its class does when it is asked
    except AttributeError:
        named = None
    if named is None and slots:
        return Fields(value, {}, slots)
    if type(named) is not dict:
        return None
    return Fields(value, named, slots) if slots else named


def shown_by(proxy: types.MappingProxyType[Any, Any]) -> dict[Any, Any] | None:
    """The dict behind a proxy that nobody else can get at, and so nobody can change; None if others hold it too."""
    behind, holders = _behind(proxy)
    return behind if type(behind) is dict and holders <= _ALONE else None


def _behind(proxy: types.MappingProxyType[Any, Any]) -> tuple[Any, int]:
    behind = gc.get_referents(proxy)[0]
    return behind, sys.getrefcount(behind)


_ALONE: Final = _behind(types.MappingProxyType({}))[1]
"""How many references are counted where the proxy's is the only one."""
