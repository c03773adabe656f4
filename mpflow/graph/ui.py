"""Components of a user interface as part of the state: pushed and deleted by nodes, merged by a reducer of their own.

Each is a dict that says which component to render with which properties; what renders it is nobody's business here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict, Union
from uuid import uuid4

from mpflow._scope import current_scope

if TYPE_CHECKING:
    from mpflow._scope import TaskScope

__all__ = (
    "AnyUIMessage",
    "RemoveUIMessage",
    "UIMessage",
    "delete_ui_message",
    "push_ui_message",
    "ui_message_reducer",
)


class UIMessage(TypedDict):
    """A component to show: its ``name`` and ``props``. One with the ``id`` of another takes its place."""

    type: Literal["ui"]
    id: str
    name: str
    props: dict[str, Any]
    metadata: dict[str, Any]


class RemoveUIMessage(TypedDict):
    """Asks to take away the component with this ``id``."""

    type: Literal["remove-ui"]
    id: str


AnyUIMessage = Union[UIMessage, RemoveUIMessage]  # noqa: UP007 - evaluated


def push_ui_message(
    name: str,
    props: dict[str, Any],
    *,
    id: str | None = None,
    metadata: dict[str, Any] | None = None,
    message: Any = None,
    state_key: str | None = "ui",
    merge: bool = False,
) -> UIMessage:
    """Show a component from within a node: as a custom chunk, and in the state under `state_key`, if that is not None.

    Without `id` it gets a random one. `message` is the message that it belongs to; `merge` adds `props` to those of the
    component with the same id, instead of replacing them. Raises RuntimeError outside of a node.
    """
    scope = current_scope()
    config = scope.config
    known: dict[str, Any] = {"merge": merge, "run_id": config.get("run_id"), "tags": config.get("tags") or None}
    known |= {"name": config.get("run_name"), **(metadata or {})}
    message_id = message.get("id") if isinstance(message, dict) else getattr(message, "id", None)
    if message_id:
        known["message_id"] = message_id
    pushed: UIMessage = {"type": "ui", "id": id or str(uuid4()), "name": name, "props": props, "metadata": known}
    _push(scope, pushed, state_key)
    return pushed


def delete_ui_message(id: str, *, state_key: str = "ui") -> RemoveUIMessage:
    """Take the component with this `id` away. Raises RuntimeError outside of a node."""
    removal: RemoveUIMessage = {"type": "remove-ui", "id": id}
    _push(current_scope(), removal, state_key)
    return removal


def _push(scope: TaskScope, item: AnyUIMessage, state_key: str | None) -> None:
    scope.write_custom(item)
    if state_key:
        scope.writes = [*(scope.writes or ()), (state_key, item)]


def ui_message_reducer(
    left: list[AnyUIMessage] | AnyUIMessage, right: list[AnyUIMessage] | AnyUIMessage
) -> list[AnyUIMessage]:
    """Put the components of `right` after those of `left`, or in the place of the one with the same id.

    Returns a new list. Raises ValueError for the removal of one that is not there.
    """
    merged = list(left) if isinstance(left, list) else [left]
    place_of = {item.get("id"): place for place, item in enumerate(merged)}
    removed: set[str] = set()
    for item in right if isinstance(right, list) else [right]:
        place = place_of.get(item["id"])
        if item["type"] == "remove-ui":
            if place is None:
                raise ValueError(f"Attempting to delete an UI message with an ID that doesn't exist ('{item['id']}')")
            removed.add(item["id"])
        elif place is None:
            place_of[item["id"]] = len(merged)
            merged.append(item)
        else:
            removed.discard(item["id"])
            merged[place] = _merged(merged[place], item)
    return [item for item in merged if item.get("id") not in removed]


def _merged(old: Any, new: UIMessage) -> UIMessage:
    if not new.get("metadata", {}).get("merge"):
        return new
    return {**new, "props": {**old["props"], **new["props"]}}
