"""Programs as a user ports them, of which no other file has the like, come to what they come to under LangGraph."""

from __future__ import annotations

import operator
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from tests.colours import Run
from tests.differential.scenarios import check, tried

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    count: int


def _saver(lib: Any) -> Any:
    return lib.checkpoint_memory.InMemorySaver()


def _single(lib: Any, node: Any, name: str = "node") -> Any:
    return lib.graph.StateGraph(State).add_node(name, node).add_edge("__start__", name)


def _asking(lib: Any) -> Any:
    return _single(lib, lambda state: {"log": [lib.types.interrupt("how many?")]})


def input_is_asked_for_until_it_is_good(lib: Any, run: Run) -> Any:
    """IN-1, IN-2"""

    def ask(state: State) -> Any:
        question = "how many?"
        while True:
            answer = lib.types.interrupt(question)
            if isinstance(answer, int) and answer > 0:
                return {"count": answer}
            question = f"{answer!r} is no number"

    graph = _single(lib, ask).compile(checkpointer=_saver(lib))
    seen = [run.invoke(graph, {"log": []}, THREAD)]
    for answer in ("many", -3, "", 7):
        seen += [run.invoke(graph, lib.types.Command(resume=answer), THREAD), run.get_state(graph, THREAD)]
    return seen


def nothing_is_no_answer(lib: Any, run: Run) -> Any:
    """IN-9: refused, in LangGraph by an error of its own making."""
    graph = _asking(lib).compile(checkpointer=_saver(lib))
    run.invoke(graph, {"log": []}, THREAD)
    refused = tried(lambda: run.invoke(graph, lib.types.Command(resume=None), THREAD))
    seen = [isinstance(refused, Exception), run.get_state(graph, THREAD).next]
    return [*seen, run.invoke(graph, lib.types.Command(resume="one"), THREAD)]


def answered_at_the_head_by_its_id(lib: Any, run: Run) -> Any:
    """SA-11"""
    graph = _asking(lib).compile(checkpointer=_saver(lib))
    run.invoke(graph, {"log": []}, THREAD)
    head = run.get_state(graph, THREAD).config
    seen = [run.invoke(graph, lib.types.Command(resume="one"), head)]
    return [*seen, [(state.next, state.metadata["source"]) for state in run.history(graph, THREAD)]]


def a_root_that_would_last(lib: Any, run: Run) -> Any:
    """SG-7"""
    graph = _single(lib, lambda state: {"log": ["done"]}).compile(checkpointer=True)
    return [tried(lambda: run.invoke(graph, {"log": []}, THREAD)), tried(lambda: run.invoke(graph, {"log": []}))]


def what_flows_down(lib: Any, run: Run) -> Any:
    """SG-8"""

    def tell(state: State, config: Any, *, store: Any, runtime: Any, writer: Any) -> Any:
        writer("leaf")
        store.put(("seen",), "leaf", {"by": runtime.context})
        return {"log": [sorted(config["tags"]), config["metadata"]["mine"], runtime.context]}

    tell.__annotations__.clear()
    leaf = _single(lib, tell).compile()
    store = lib.store_memory.InMemoryStore()
    graph = _single(lib, leaf, "child").compile(store=store)
    config: Any = {"tags": ["outer"], "metadata": {"mine": 1}}
    chunks = run.stream(graph, {"log": []}, config, context="me", stream_mode=["custom", "updates"], subgraphs=True)
    return [[(mode, chunk) for _, mode, chunk in chunks], store.get(("seen",), "leaf").value]


SCENARIOS = [
    a_root_that_would_last,
    answered_at_the_head_by_its_id,
    input_is_asked_for_until_it_is_good,
    nothing_is_no_answer,
    what_flows_down,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_ports(scenario: Any) -> None:
    check(scenario)
