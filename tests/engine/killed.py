"""A program that is killed at any moment and started again: it goes on with a saved run, says what it streams, notes each start.

Run as ``python -m tests.engine.killed DATABASE STARTS PLACE``; it ends with the final state on stdout.
"""

from __future__ import annotations

import json
import operator
import os
import sys
import time
from typing import Annotated, Any, TypedDict

from mpflow.checkpoint.sqlite import SqliteSaver
from mpflow.constants import END, START
from mpflow.graph.state import StateGraph
from mpflow.types import Send

ROUNDS = int(os.environ.get("MPFLOW_TEST_ROUNDS", "12"))
WIDTH = 5
CONFIG: Any = {"configurable": {"thread_id": "killed"}, "recursion_limit": 1000}


class State(TypedDict, total=False):
    round: int
    log: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]
    seen: Annotated[dict[str, int], operator.or_]
    text: str


def started(name: str) -> None:
    fd = os.open(os.environ["MPFLOW_TEST_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{name}\n".encode())
    os.close(fd)


def spread(state: State) -> list[Send]:
    return [Send("work", {"round": state["round"], "item": item}) for item in range(WIDTH)]


def plan(state: State) -> State:
    started(f"plan {state.get('round', 0)}")
    time.sleep(0.001)
    return {"round": state.get("round", 0) + 1, "text": state.get("text", "") + f"round {state.get('round', 0)}\n" * 20}


def work(item: Any) -> State:
    name = f"{item['round']}.{item['item']}"
    started(f"work {name}")
    time.sleep(0.002)
    return {"log": [name], "total": item["item"], "seen": {name: item["round"]}}


def gather(state: State) -> State:
    started(f"gather {state['round']}")
    time.sleep(0.001)
    return {"log": [f"gathered {state['round']}: {state['total']}"]}


def graph_of(saver: Any, place: str) -> Any:
    builder = StateGraph(State).add_node("plan", plan, executor="thread").add_node("gather", gather, executor="thread")
    builder.add_node("work", work, executor=place)  # type: ignore[arg-type]
    builder.add_edge(START, "plan").add_conditional_edges("plan", spread, ["work"]).add_edge("work", "gather")
    builder.add_conditional_edges("gather", lambda state: "plan" if state["round"] < ROUNDS else END, ["plan", END])
    return builder.compile(checkpointer=saver)


def main(database: str, starts: str, place: str) -> None:
    os.environ["MPFLOW_TEST_STARTS"] = starts
    with SqliteSaver.from_conn_string(database) as saver:
        graph = graph_of(saver, place)
        known = graph.get_state(CONFIG)
        say({"resumed": dict(known.values)})
        input: Any = None if known.values or known.next else {"log": ["begun"], "total": 0, "seen": {}}
        if not (known.values and not known.next):
            for mode, chunk in graph.stream(input, CONFIG, stream_mode=["updates", "values"], durability="sync"):
                say({mode: chunk})
        say({"final": dict(graph.get_state(CONFIG).values)})


def say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
