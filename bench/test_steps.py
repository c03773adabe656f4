"""What a superstep costs when the nodes do nothing. One process, so CPU time; LangGraph runs the same graphs."""

from __future__ import annotations

from bench.graphs import batch, calls, chain, loop, validated, whole_runs, wide
from bench.race import Against, Race, cpu_time

pytestmark = cpu_time


def test_loop(race: Race) -> None:
    steps = 3_000
    against = Against("LangGraph", lambda: loop("langgraph", steps), wanted=20, rounds=3)
    race(f"a step of a loop of {steps}", loop("mpflow", steps), against, each=steps, rounds=9)


def test_chain(race: Race) -> None:
    steps = 1_000
    against = Against("LangGraph", lambda: chain("langgraph", steps), wanted=20, rounds=3)
    race(f"a step of a chain of {steps}", chain("mpflow", steps), against, each=steps, rounds=9)


def test_wide_state(race: Race) -> None:
    steps, keys = 1_000, 300
    against = Against("LangGraph", lambda: wide("langgraph", steps, keys), wanted=44, rounds=3)
    ours = wide("mpflow", steps, keys)
    race(f"a step in a state of {keys} keys", ours, against, each=steps, rounds=9)


def test_pydantic_state(race: Race) -> None:
    steps = 1_000
    against = Against("LangGraph", lambda: validated("langgraph", steps), rounds=3)
    race("a step with a pydantic state", validated("mpflow", steps), against, each=steps)


def test_batch_of_tiny_runs(race: Race) -> None:
    inputs = 2_000
    against = Against("LangGraph", lambda: batch("langgraph", inputs), rounds=3)
    race(f"a run of a batch of {inputs}", batch("mpflow", inputs), against, each=inputs)


def test_whole_runs(race: Race) -> None:
    runs = 500
    against = Against("LangGraph", lambda: whole_runs("langgraph", runs), rounds=3)
    race("a run of two nodes, by invoke", whole_runs("mpflow", runs), against, each=runs)


def test_called_tasks(race: Race) -> None:
    count = 500
    against = Against("LangGraph", lambda: calls("langgraph", count), wanted=20, rounds=3)
    race("a call of a task, and its result", calls("mpflow", count), against, each=count)
