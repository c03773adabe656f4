"""Components of a user interface in the state are LangGraph's."""

from typing import Annotated, Any

from typing_extensions import TypedDict

from tests.colours import Run
from tests.differential.scenarios import check, tried


def pushed_and_deleted(lib: Any, run: Run) -> Any:
    ui = lib.graph_ui

    reducer = ui.ui_message_reducer  # within the class its name is a key of the state

    class State(TypedDict):
        ui: Annotated[list[Any], reducer]
        more: Annotated[list[Any], reducer]

    def show(state: State) -> Any:
        ui.push_ui_message("chart", {"x": 1}, id="1")

    def change(state: State) -> Any:
        ui.push_ui_message("chart", {"y": 1}, id="1", merge=True, metadata={"of": "user"})
        ui.push_ui_message("table", {}, id="2", message={"id": "message"}, state_key="more")
        ui.push_ui_message("passing", {}, id="3", state_key=None)

    def delete(state: State) -> Any:
        ui.delete_ui_message("2", state_key="more")
        ui.push_ui_message("other", {"z": 3}, id="1")

    graph = lib.graph.StateGraph(State).add_sequence([show, change, delete]).add_edge("__start__", "show").compile()
    config: Any = {"tags": ["mine"], "run_name": "run"}
    modes = ["values", "custom", "updates"]
    return run.stream(graph, {"ui": [], "more": []}, config, stream_mode=modes), tried(
        lambda: ui.push_ui_message("a", {})
    )


def merged(lib: Any, run: Run) -> Any:
    def item(id: str, **metadata: Any) -> Any:
        return {"type": "ui", "id": id, "name": "n", "props": {id: len(metadata)}, "metadata": metadata}

    gone: Any = {"type": "remove-ui", "id": "1"}
    pairs: list[Any] = [([], item("1")), (item("1"), item("2")), ([item("1")], gone), ([item("2")], gone)]
    pairs += [([item("1")], [gone, item("1")]), ([item("1")], [item("1", merge=True)]), ([item("1")], [item("1", a=1)])]
    return [tried(lambda pair=pair: lib.graph_ui.ui_message_reducer(*pair)) for pair in pairs]


def test_components_are_pushed_and_deleted() -> None:
    check(pushed_and_deleted)


def test_components_are_merged() -> None:
    check(merged)
