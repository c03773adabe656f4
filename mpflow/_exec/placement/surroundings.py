"""What of its process trusted code goes by without being given it: settings that must be the same in a worker.

A walk names those that the code it meets depends on. Looks only; a library that is not loaded has no settings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

DIRECTORY: Final = "the working directory"
DECIMAL: Final = "the decimal context"
NUMPY: Final = "numpy's error and print settings"
PANDAS: Final = "pandas' options"


def _directory() -> Any:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _decimal() -> Any:
    # The module of old is there as well, in Python; without either nothing was ever computed by one.
    module = sys.modules.get("decimal")
    if module is None:
        return None
    context = module.getcontext()
    traps = sorted(signal.__name__ for signal, is_set in context.traps.items() if is_set)
    return context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp, traps


def _numpy() -> Any:
    module = sys.modules.get("numpy")
    return None if module is None else (module.geterr(), module.get_printoptions())


def _pandas() -> Any:
    module = sys.modules.get("pandas._config.config")
    return None if module is None else _leaves(module._global_config, "")


def _leaves(options: dict[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in options.items():
        found.update(_leaves(value, f"{path}{name}.") if type(value) is dict else {path + name: value})
    return found


_LOOKS: Final[dict[str, Callable[[], Any]]] = {
    DIRECTORY: _directory,
    DECIMAL: _decimal,
    NUMPY: _numpy,
    PANDAS: _pandas,
}


def look(names: Iterable[str] = _LOOKS) -> dict[str, Any]:
    """The settings of these names as they are now, in this context; equal where they are the same, and picklable as text."""
    return {name: repr(_LOOKS[name]()) for name in names}


def of_code(module: str, name: str) -> Iterable[str]:
    """The settings that `name` of a trusted module goes by."""
    root = module.partition(".")[0]
    if root in ("numpy", "scipy"):
        return (NUMPY,)
    if root == "pandas":
        return (PANDAS, NUMPY)
    if root in ("decimal", "_decimal", "_pydecimal"):
        return (DECIMAL,)
    if root in _OF_FILES or name in ("open", "io.open"):
        return (DIRECTORY,)
    return ()


_OF_FILES: Final = frozenset(
    ["os", "posix", "nt", "posixpath", "ntpath", "genericpath", "glob", "pathlib", "tokenize", "gzip", "bz2", "lzma"]
)
