"""What a RunnableParallel costs when its branches do nothing: at most 60 us is the aim. LangChain's runs the same functions."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from bench.race import Against, Race, cpu_time

pytestmark = cpu_time


def two_branches(module: str) -> Callable[[], Any]:
    """An invoke of two trivial branches. Raises ImportError."""
    both = import_module(module).RunnableParallel(a=lambda x: x + 1, b=lambda x: x * 2)
    return lambda: both.invoke(1)


def test_parallel_of_two_trivial_branches(race: Race) -> None:
    calls = 500

    def many(module: str) -> Callable[[], None]:
        call = two_branches(module)

        def run() -> None:
            for _ in range(calls):
                call()

        return run

    against = Against("LangChain", lambda: many("langchain_core.runnables"), wanted=5, rounds=3)
    race("a RunnableParallel of two branches", many("mpflow.runnables"), against, each=calls, rounds=9)
