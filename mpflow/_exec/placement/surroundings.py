"""What of its process trusted code goes by without being given it: settings that must be the same in a worker.

A walk names those that the code it meets depends on. Looks only; a library that is not loaded has no settings.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from locale import LC_NUMERIC, LC_TIME, setlocale
from typing import Any, Final

DIRECTORY: Final = "the working directory"
DECIMAL: Final = "the decimal context"
NUMPY: Final = "numpy's error and print settings"
PANDAS: Final = "pandas' options"
HOME: Final = "the home directory"
CLOCK: Final = "the time zone, or the locale of dates"
NUMBERS: Final = "the locale of numbers"
PREFIXES: Final = "ElementTree's prefixes"
WARNINGS: Final = "what becomes of warnings"
CHANCE: Final = "numpy's shared generator"
WATCHED: Final = frozenset({WARNINGS, CHANCE})
"""Those that need not be the same in a worker: there it is seen that a call does nothing with them."""


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


def _home() -> Any:
    return os.path.expanduser("~")


def _clock() -> Any:
    return time.tzname, time.timezone, time.altzone, setlocale(LC_TIME)


def _prefixes() -> Any:
    module = sys.modules.get("xml.etree.ElementTree")
    return None if module is None else getattr(module, "_namespace_map", None)


def are_warnings_heard() -> bool:
    """Whether a warning would be more than a line on stderr: an error, or heard by somebody in this process."""
    made: Any = warnings
    shows = getattr(made, "_showwarnmsg_impl", None)
    if getattr(shows, "__module__", None) not in ("warnings", "_py_warnings"):
        return True
    if warnings.showwarning is not getattr(made, "_showwarning_orig", warnings.showwarning):
        return True
    return any(action == "error" for action, *_ in warnings.filters)


def who_hears_warnings() -> Any:
    """Equal as long as a warning comes to the same."""
    made: Any = warnings
    is_error = any(action == "error" for action, *_ in warnings.filters)
    return made.showwarning, getattr(made, "_showwarnmsg_impl", None), is_error


def hear_all_warnings() -> Any:
    """Within `warnings.catch_warnings`: let through what is not ignored by a filter for its text or module. Who hears them now."""
    warnings.filters[:] = [one for one in warnings.filters if one[0] == "ignore" and (one[1] or one[3])]  # type: ignore[index]
    warnings.simplefilter("always", append=True)
    return who_hears_warnings()


def drawn() -> Any:
    """Where numpy's shared generator is; another after anything was drawn from it."""
    module = sys.modules.get("numpy.random.mtrand")
    if module is None:
        return None
    _, key, at, *rest = module._rand.get_state(legacy=True)
    return key.tobytes(), at, rest


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
    HOME: _home,
    CLOCK: _clock,
    NUMBERS: lambda: setlocale(LC_NUMERIC),
    PREFIXES: _prefixes,
    WARNINGS: are_warnings_heard,
    CHANCE: lambda: None,
}


def look(names: Iterable[str] = _LOOKS) -> dict[str, Any]:
    """The settings of these names as they are now, in this context; equal where they are the same, and picklable as text."""
    return {name: repr(_LOOKS[name]()) for name in names}


def of_code(module: str, name: str) -> Iterable[str]:
    """The settings that `name` of a trusted module goes by."""
    root = module.partition(".")[0]
    if root in _SILENT:
        return ()
    return (WARNINGS, *_of_code(root, module, name))


def _of_code(root: str, module: str, name: str) -> tuple[str, ...]:
    if root == "numpy":
        return (NUMPY,)
    if root == "scipy":
        return (NUMPY, CHANCE)
    if root == "pandas":
        return (PANDAS, NUMPY, CHANCE, CLOCK)
    if root in ("datetime", "_datetime", "_pydatetime", "_strptime", "calendar"):
        return (CLOCK,)
    if root in ("decimal", "_decimal", "_pydecimal"):
        return (DECIMAL,)
    if root == "pathlib":
        return (DIRECTORY, HOME)
    if root == "xml":
        return (PREFIXES,)
    if root in _OF_FILES or name in ("open", "io.open"):
        return (DIRECTORY,)
    return ()


_OF_FILES: Final = frozenset(
    ["os", "posix", "nt", "posixpath", "ntpath", "genericpath", "glob", "tokenize", "gzip", "bz2", "lzma"]
)

_SILENT: Final = frozenset(
    [
        "math",
        "cmath",
        "_operator",
        "operator",
        "itertools",
        "time",
        "_heapq",
        "heapq",
        "_bisect",
        "bisect",
        "_json",
        "json",
    ]
    + [
        "_collections",
        "collections",
        "_functools",
        "functools",
        "hashlib",
        "_hashlib",
        "zlib",
        "_sha2",
        "_md5",
        "_blake2",
    ]
    + ["_thread", "threading", "typing", "types", "_abc", "abc", "mpflow"]
)
"""What never warns."""
