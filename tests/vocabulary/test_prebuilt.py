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
        ("mpflow.checkpoint.conformance", "mpflow.testing"),
        ("mpflow.checkpoint.postgres.shallow", "PostgresSaver"),
        ("mpflow.stream.transformers", "astream_events"),
        ("mpflow.utils.config", "mpflow.config"),
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


def test_the_protocol_of_streams_says_what_to_use() -> None:
    """MOD-13"""
    with pytest.raises(ImportError, match="get_stream_writer"):
        from mpflow.pregel.protocol import StreamProtocol  # noqa: F401
