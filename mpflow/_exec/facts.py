"""What all tasks of a step share, as it travels: encoded once a step, decoded for the tasks that ask for it.

What cannot travel (callbacks, locks) stays behind; whoever uses it in a worker is told so by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mpflow._messages import Luggage, StepFacts

if TYPE_CHECKING:
    from mpflow._scope import TaskScope

KEPT = 32
"""How many steps' facts a worker keeps between batches. Both sides count alike, so no word is needed about what was dropped."""

_PARENT_ONLY = frozenset({"callbacks"})
_PLAIN, _ENTERED = b"\0", b"\1"
_ATOMS = frozenset({int, float, str, bytes, bool, type(None)})
_CONTAINERS = (dict, list)

Encode = Callable[..., bytes]


def drop_oldest(held: dict[int, Any]) -> None:
    """After a batch, which may need more of them at once: keep the last few."""
    while len(held) > KEPT:
        del held[next(iter(held))]


class LeftBehind:
    """In the place of a value that could not travel. Any use of it raises, naming the value."""

    __slots__ = ("_reason", "_where")

    def __init__(self, where: str, reason: str) -> None:
        self._where = where
        self._reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (LeftBehind, (self._where, self._reason))

    def __repr__(self) -> str:
        return f"<{self._where} stayed in the parent process: {self._reason}>"

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(f"{self._where} cannot be used in a worker process: {self._reason}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._refuse()

    __call__ = __getitem__ = __iter__ = __len__ = __bool__ = __enter__ = __contains__ = _refuse


def encode_facts(facts: StepFacts, encode: Encode) -> bytes:
    """The bytes of a step's facts, without what cannot travel. The first tells whether its tasks have entrances."""
    luggage = None if facts.local is None else facts.local.luggage()
    entered = luggage is not None and bool(luggage.entrances)
    if luggage is not None and luggage.around is not None:
        luggage = replace(luggage, around=_encode_task(luggage.around, encode))
    return (_ENTERED if entered else _PLAIN) + _encode({**facts.__getstate__(), "local": luggage}, encode)


def _encode_task(scope: TaskScope, encode: Encode) -> bytes:
    """A task as its parts in a worker find it: the facts of its step, and under ``task`` what makes it that task."""
    task = {name: getattr(scope, name) for name in ("name", "path", "triggers", "number", "tags", "metadata")}
    task["started_at"] = scope.started_at
    return _encode({**scope.facts.__getstate__(), "task": task}, encode)


def _encode(state: dict[str, Any], encode: Encode) -> bytes:
    config = state["config"] = {key: value for key, value in state["config"].items() if key not in _PARENT_ONLY}
    try:
        return encode(state, path="config")
    except Exception:
        state = {name: _or_left_behind(value, name, encode) for name, value in state.items() if name != "config"}
        state["config"] = _portable(config, encode)
        return encode(state, path="config")


def _portable(config: dict[str, Any], encode: Encode) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        where = f"config[{key!r}]"
        if type(value) is dict:
            kept[key] = {name: _or_left_behind(item, f"{where}[{name!r}]", encode) for name, item in value.items()}
        else:
            kept[key] = _or_left_behind(value, where, encode)
    return kept


def _or_left_behind(value: Any, where: str, encode: Encode) -> Any:
    try:
        encode(value, path=where)
    except Exception as error:
        return LeftBehind(where, getattr(error, "reason", None) or str(error))
    return value


def are_entered(data: bytes) -> bool:
    """Whether tasks with these facts have entrances."""
    return data[:1] == _ENTERED


class KnownFacts:
    """A step's facts as a worker has got them, for a group of tasks."""

    __slots__ = ("_data", "_decode", "_is_data", "_is_told", "_kept")

    def __init__(self, data: bytes, decode: Callable[[memoryview], Any]) -> None:
        self._data = data
        self._decode = decode
        self._is_data: bool | None = None
        self._is_told: bool | None = None
        self._kept: dict[str, Any] = {}

    @property
    def is_told(self) -> bool:
        """Whether they say more than what step it is: of a config, a context, or what the run has."""
        if self._is_told is None:
            state = self.fresh()
            self._is_told = bool(state["config"]) or state["local"] is not None or state.get("context") is not None
        return self._is_told

    def fresh(self) -> dict[str, Any]:
        """A state of `StepFacts` for one task, so that none sees what another did to it.

        Copied from what was decoded for the first one, which takes a fraction of the time, if it is data all through.
        """
        if self._is_data:
            return _copied(self._kept)  # type: ignore[no-any-return]
        state: dict[str, Any] = self._decode(memoryview(self._data)[1:])
        if self._is_data is None:
            self._is_data = _is_data(state)
            if self._is_data:
                self._kept = _copied(state)
        return state


def _is_data(value: Any) -> bool:
    """Whether it consists of dicts, lists and atoms."""
    kind = type(value)
    if kind is dict:
        return all(map(_is_data, value)) and all(map(_is_data, value.values()))
    return all(map(_is_data, value)) if kind is list else kind in _ATOMS


def _copied(value: Any) -> Any:
    """A copy of data, containers and all."""
    if type(value) is dict:
        return {key: _copied(item) if type(item) in _CONTAINERS else item for key, item in value.items()}
    return [_copied(item) if type(item) in _CONTAINERS else item for item in value]


class LazyFacts:
    """A step's facts in a worker: a `StepFacts` that is filled in when it is asked something.

    Made anew for each task. `unpack` makes of a run's luggage what stands for the run.
    """

    def __init__(self, known: KnownFacts, unpack: Callable[[Luggage], Any]) -> None:
        self._known = known
        self._unpack = unpack

    def __getattr__(self, name: str) -> Any:
        # Reached only for what this object does not hold yet: the first question fills in all.
        if name.startswith("__"):
            raise AttributeError(name)
        if "step" not in self.__dict__:
            state = self._known.fresh()
            if state["local"] is not None:
                state["local"] = self._unpack(state["local"])
            self.__dict__.update(state)
            if name in self.__dict__:
                return self.__dict__[name]
        return getattr(StepFacts, name)
