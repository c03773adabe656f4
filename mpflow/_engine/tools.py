"""The "tools" stream: when the tools start that nodes call through langchain, and what becomes of them (SM-15).

It knows langchain-core, which is imported when the mode is asked for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mpflow.constants import TAG_NOSTREAM
from mpflow.errors import GraphDrained, GraphInterrupt

if TYPE_CHECKING:
    from mpflow._scope import Emit

TOOL = "tool"
"""The event that is a chunk of the mode."""


@lru_cache(maxsize=1)
def tool_handler_class() -> Any:
    """The handler that tells the run of a task what the tools called in it do."""
    from langchain_core.callbacks import BaseCallbackHandler

    class ToolHandler(BaseCallbackHandler):
        run_inline = True
        tells_its_run = True

        def __init__(self, emit: Emit) -> None:
            self._emit = emit
            self._calls: dict[Any, str] = {}

        def on_tool_start(
            self,
            serialized: dict[str, Any] | None,
            input_str: str,
            *,
            run_id: Any,
            tags: list[str] | None = None,
            inputs: dict[str, Any] | None = None,
            tool_call_id: str | None = None,
            name: str | None = None,
            **kwargs: Any,
        ) -> None:
            if TAG_NOSTREAM in (tags or ()):
                return
            call_id = self._calls[run_id] = tool_call_id or str(run_id)
            told: dict[str, Any] = {
                "event": "tool-started",
                "tool_call_id": call_id,
                "tool_name": (serialized or {}).get("name") or name or "",
            }
            if inputs is not None:
                told["input"] = inputs
            self._emit(TOOL, told)

        def on_tool_end(self, output: Any, *, run_id: Any, **kwargs: Any) -> None:
            call_id = self._calls.pop(run_id, None)
            if call_id is not None:
                self._emit(TOOL, {"event": "tool-finished", "tool_call_id": call_id, "output": output})

        def on_tool_error(self, error: BaseException, *, run_id: Any, **kwargs: Any) -> None:
            call_id = self._calls.pop(run_id, None)
            # A tool that asks or drains is paused: it starts again when the run is resumed, and its end is told then.
            if call_id is not None and not isinstance(error, (GraphInterrupt, GraphDrained)):
                self._emit(TOOL, {"event": "tool-error", "tool_call_id": call_id, "message": str(error)})

    return ToolHandler
