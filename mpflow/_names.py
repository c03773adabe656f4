"""The strings and the sentinel that LangGraph keeps private but that show in saved or streamed output.

It owns names only; nothing here may import anything. They stay as LangGraph spells them, since tools read them.
"""

from __future__ import annotations

from typing import Final

# Channels that every run has, and markers among a task's writes.
INPUT: Final = "__input__"
COPY: Final = "__copy__"
ROOT: Final = "__root__"
PARENT: Final = "__parent__"
INTERRUPT: Final = "__interrupt__"
RESUME: Final = "__resume__"
ERROR: Final = "__error__"
ERROR_SOURCE_NODE: Final = "__error_source_node__"
SCHEDULED: Final = "__scheduled__"
ATTEMPTS: Final = "__attempts__"
NO_WRITES: Final = "__no_writes__"
RETURN: Final = "__return__"
PREVIOUS: Final = "__previous__"
OVERWRITE: Final = "__overwrite__"
METADATA: Final = "__metadata__"
WRITES: Final = "$writes"

# Scheduling.
TASKS: Final = "__pregel_tasks"
PUSH: Final = "__pregel_push"
PULL: Final = "__pregel_pull"
CACHE_NS_WRITES: Final = "__pregel_ns_writes"
NULL_TASK_ID: Final = "00000000-0000-0000-0000-000000000000"
BRANCH_TO: Final = "branch:to:"
JOIN: Final = "join:"

# Error handlers are nodes of their own.
HANDLER_PREFIX: Final = "__error_handler__"
DEFAULT_HANDLER: Final = "__default_error_handler__"

# Namespaces of nested graphs: "outer:<task id>|inner:<task id>".
NS_SEP: Final = "|"
NS_END: Final = ":"

# Keys of `config` and of its "configurable" part.
CONF: Final = "configurable"
THREAD_ID: Final = "thread_id"
CHECKPOINT_ID: Final = "checkpoint_id"
CHECKPOINT_NS: Final = "checkpoint_ns"
CHECKPOINT_MAP: Final = "checkpoint_map"
STRICT_RESUME: Final = "__pregel_strict_resume"
PRIVATE_CONF_PREFIX: Final = "__"

RESERVED: Final = frozenset(
    {
        INPUT,
        INTERRUPT,
        RESUME,
        ERROR,
        ERROR_SOURCE_NODE,
        ATTEMPTS,
        NO_WRITES,
        TASKS,
        RETURN,
        PREVIOUS,
        PUSH,
        PULL,
        NS_SEP,
        NS_END,
        CONF,
    }
)
"""Names that a channel of the user must not have."""


class Missing:
    """The type of `MISSING`; there is one instance in each process, also after pickling and copying."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "MISSING"

    def __copy__(self) -> Missing:
        return self

    def __deepcopy__(self, memo: object) -> Missing:
        return self


MISSING: Final = Missing()
"""No value at all, where None would be one."""
