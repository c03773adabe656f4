"""Pickle on the private wire: what the typed codec does not know, and classes that no module of the worker holds.

Must never be reached by a codec for the disk. cloudpickle is imported at the first need. A class by value is named by
cloudpickle's own id for it, so that a class shipped twice, or shipped and sent back, stays one class in each process,
whether it travelled with a function or with a value.
"""

from __future__ import annotations

import io
import pickle
import sys
import weakref
from contextvars import ContextVar
from importlib import import_module
from types import FunctionType
from typing import Any, Final

# Modules that hold something else, or nothing, in a worker.
_NOT_SHARED: Final = frozenset({"__main__", "__mp_main__"})

_class_bytes: weakref.WeakKeyDictionary[type, bytes] = weakref.WeakKeyDictionary()
_being_pickled: set[type] = set()


def dumps(value: Any, buffers: list[Any] | None = None) -> bytes:
    """Pickle `value` so that another process can load it; raises whatever the value's own code raises.

    Given `buffers`, large contents are appended to it as `pickle.PickleBuffer`, to be handed to `loads`.
    """
    callback = None if buffers is None else buffers.append
    try:
        data = pickle.dumps(value, 5, buffer_callback=callback)
    except Exception:
        if buffers:
            buffers.clear()
    else:
        # By reference to a module that the worker does not share, pickle succeeds here and fails there.
        if b"__main__" not in data and b"__mp_main__" not in data and not _by_value_modules():
            return data
        if buffers:
            buffers.clear()
    out = io.BytesIO()
    _pickler()(out, protocol=5, buffer_callback=callback).dump(value)
    return out.getvalue()


def loads(data: Any, buffers: Any = ()) -> Any:
    """Undo `dumps`. Runs the code that the pickle names: for bytes of our own workers alone."""
    return pickle.loads(data, buffers=buffers)


def is_shared(module_name: Any) -> bool:
    """Whether another process finds the module of that name, and in it what it holds here."""
    if not isinstance(module_name, str) or module_name in _NOT_SHARED:
        return False
    by_value = _by_value_modules()
    return module_name.partition(".")[0] not in by_value and module_name not in by_value


def is_importable(kind: type) -> bool:
    """Whether another process finds this very class by its module and qualified name."""
    if not is_shared(kind.__module__):
        return False
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def pickle_class(kind: type) -> tuple[str, bytes]:
    """The id and the pickle of a class by value. A change made to the class in place after the first time is not seen."""
    data = _class_bytes.get(kind)
    if data is None:
        out = io.BytesIO()
        _being_pickled.add(kind)
        try:
            _pickler()(out, protocol=5).dump(kind)
        finally:
            _being_pickled.discard(kind)
        data = _class_bytes[kind] = out.getvalue()
    return _class_id(kind), data


def load_class(class_id: str, data: bytes) -> type:
    """The class of that id, from its pickle if this process has not met it."""
    tracker = _tracker()._DYNAMIC_CLASS_TRACKER_BY_ID
    known = tracker.get(class_id)
    kind: Any = known if known is not None else pickle.loads(data)
    if not isinstance(kind, type):
        raise TypeError(f"expected a class by value, got {type(kind).__name__}")
    if known is None:
        tracker.setdefault(class_id, kind)
        _tracker()._DYNAMIC_CLASS_TRACKER_BY_CLASS[kind] = class_id
        _class_bytes[kind] = data
    return kind


def _tracker() -> Any:
    import cloudpickle.cloudpickle

    return cloudpickle.cloudpickle


def _class_id(kind: type) -> str:
    return str(_tracker()._get_or_create_tracker_id(kind))


def _by_value_modules() -> Any:
    """Modules that the user registered with ``cloudpickle.register_pickle_by_value``."""
    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle.list_registry_pickle_by_value() if cloudpickle is not None else ()


_KEPT_OF_TYPED_DICTS = ("__module__", "__qualname__", "__doc__", "__total__", "__required_keys__", "__optional_keys__")


def _described(kind: Any) -> tuple[Any, ...]:
    """What makes a TypedDict. cloudpickle's way, through its bases, fails before Python 3.12 for one that has others."""
    kept = {name: getattr(kind, name) for name in _KEPT_OF_TYPED_DICTS}
    return type(kind).__module__, kind.__name__, dict(kind.__annotations__), kept


def _typed_dict(module: str, name: str, fields: dict[str, Any], kept: dict[str, Any]) -> Any:
    kind = import_module(module).TypedDict(name, fields)
    for attribute, value in kept.items():
        setattr(kind, attribute, value)
    return kind


_pickler_class: Any = None


def _pickler() -> Any:
    global _pickler_class
    if _pickler_class is None:
        import cloudpickle

        class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
            """cloudpickle's, with classes by value under their ids, so that loading never rewrites a known class."""

            def reducer_override(self, value: Any) -> Any:
                if isinstance(value, type) and value not in _being_pickled and not is_importable(value):
                    if value.__module__ != "builtins":  # type(None) and its like have a way of their own
                        return load_class, pickle_class(value)
                if type(value).__name__ == "_TypedDictMeta" and not getattr(value, "__parameters__", ()):
                    if not is_importable(value):
                        return _typed_dict, _described(value)
                # cloudpickle itself knows of __main__ alone.
                if type(value) is FunctionType and value.__module__ in _NOT_SHARED:
                    return self._dynamic_function_reduce(value)
                if isinstance(value, type) and value.__module__ in _NOT_SHARED:
                    return _tracker()._dynamic_class_reduce(value)
                if type(value) is ContextVar:
                    from mpflow._wire import variables

                    return variables.reduced(value)
                return super().reducer_override(value)

        _pickler_class = ByValuePickler
    return _pickler_class
