"""What is not part of mpflow says what is."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize("module", ["mpflow.prebuilt", "mpflow.prebuilt.tool_node"])
def test_importing_prebuilt_says_what_to_use(module: str) -> None:
    with pytest.raises(ImportError, match="from_langgraph"):
        importlib.import_module(module)
