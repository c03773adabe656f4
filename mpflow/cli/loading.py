"""Finds the graph that a command is told to run."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from mpflow.cli.refusal import Refused, one_line


def load_graph(target: str, executor: str | None = None) -> Any:
    """The compiled graph that ``MODULE:GRAPH`` or ``FILE.py:GRAPH`` names; a builder is compiled.

    Modules are found from the working directory, a file's own imports from its directory. The file is imported by its
    name, so that worker processes find it likewise. Raises `Refused`.
    """
    place, colon, name = target.rpartition(":")
    if not (colon and place and name):
        raise Refused(f"expected MODULE:GRAPH or FILE.py:GRAPH, got {target!r}")
    module = _import(place)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            graphs = sorted(key for key, value in vars(module).items() if _is_graph(value) or _is_builder(value))
            raise Refused(f"{place!r} has no {name!r}; its graphs: {', '.join(graphs) or 'none'}") from None
    if _is_graph(found):
        if executor is None:
            return found
        if not hasattr(found, "with_executor"):
            raise Refused(f"{target!r} is no graph of mpflow, so --executor cannot place its nodes")
        return found.with_executor(executor)
    if _is_builder(found):
        try:
            return found.compile() if executor is None else found.compile(executor=executor)
        except ValueError as error:
            raise Refused(f"{target!r} does not compile: {error}") from error
    raise Refused(f"{target!r} is neither a graph nor its builder but {type(found).__name__}")


def _is_graph(value: Any) -> bool:
    return not isinstance(value, type) and hasattr(value, "invoke") and hasattr(value, "stream")


def _is_builder(value: Any) -> bool:
    return not isinstance(value, type) and hasattr(value, "add_node") and hasattr(value, "compile")


def _import(place: str) -> Any:
    if place.endswith(".py"):
        file = Path(place).resolve()
        if not file.is_file():
            raise Refused(f"no such file: {place}")
        sys.path.insert(0, str(file.parent))
        module = _import_by_name(file.stem, place)
        origin = getattr(module, "__file__", None)
        if origin is None or Path(origin).resolve() != file:
            raise Refused(f"{place} cannot be imported as {file.stem!r}, which is {origin or 'built in'}; rename it")
        return module
    sys.path.insert(0, os.getcwd())
    return _import_by_name(place, place)


def _import_by_name(name: str, place: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        at = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames and frames[-1].filename != __file__ else ""
        raise Refused(f"cannot import {place!r}: {type(error).__name__}: {one_line(error)}{at}") from error
