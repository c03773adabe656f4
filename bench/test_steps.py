"""What a superstep costs when the nodes do nothing. One process, so CPU time; LangGraph runs the same graphs."""

from __future__ import annotations

from bench.graphs import batch, chain, loop, validated, wide
from bench.race import Against, Race, cpu_time

pytestmark = cpu_time


def test_loop(race: Race) -> None:
    steps = 3_000
    against = Against("LangGraph", lambda: loop("langgraph", steps), wanted=16, rounds=3)
    race(f"a step of a loop of {steps}", loop("mpflow", steps), against, each=steps, rounds=9)


def test_chain(race: Race) -> None:
    steps = 1_000
    against = Against("LangGraph", lambda: chain("langgraph", steps), wanted=16, rounds=3)
    race(f"a step of a chain of {steps}", chain("mpflow", steps), against, each=steps, rounds=9)


def test_wide_state(race: Race) -> None:
    steps, keys = 1_000, 300
    against = Against("LangGraph", lambda: wide("langgraph", steps, keys), wanted=35, rounds=3)
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
