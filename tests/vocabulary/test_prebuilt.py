"""What is not part of mpflow says what is."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    ("module", "instead"),
    [
        ("mpflow.store.postgres", "SqliteStore"),
        ("mpflow.cache.redis", "SqliteCache"),
        ("mpflow.pregel.remote", "langgraph.pregel.remote"),
        ("mpflow.pregel.debug", "stream_mode"),
    ],
)
def test_importing_what_is_not_there_says_what_to_use(module: str, instead: str) -> None:
    """MOD-11, MOD-12, MOD-13"""
    with pytest.raises(ImportError, match=instead):
        importlib.import_module(module)


@pytest.mark.parametrize("module", ["mpflow.prebuilt", "mpflow.prebuilt.tool_node"])
def test_importing_prebuilt_says_what_to_use(module: str) -> None:
    with pytest.raises(ImportError, match="from_langgraph"):
        importlib.import_module(module)
