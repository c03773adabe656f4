"""Random programs of the functional API as data, built under either library from one description.

Which task is called with what depends on what came before alone, so that two engines that give the same get the same back.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hypothesis import strategies as st

from tests.differential.graphs import Broken


@dataclass(frozen=True)
class Task:
    name: str
    fails: int = 0
    tries: int = 1
    calls: int | None = None
    """Another task, by its place among all, that it calls."""
    says: bool = False
    asks: bool = False


@dataclass(frozen=True)
class Call:
    task: int
    waits: bool
    """Whether its result is taken before the next call, or with all others at the end."""
    catches: bool


@dataclass(frozen=True)
class Program:
    tasks: tuple[Task, ...]
    calls: tuple[Call, ...]
    asks: bool = False
    saves: bool = False
    """Whether it saves something else than it returns."""


@st.composite
def programs(draw: Any) -> Program:
    count = draw(st.integers(1, 4))
    tasks = []
    for number in range(count):
        tries = draw(st.sampled_from([1, 1, 3]))
        tasks.append(
            Task(
                f"t{number}",
                fails=draw(st.sampled_from([0, 0, 1, 2] if tries > 1 else [0] * 7 + [1])),
                tries=tries,
                calls=draw(st.none() | st.integers(number + 1, count - 1)) if number + 1 < count else None,
                says=draw(st.booleans()),
                asks=draw(st.sampled_from([False] * 5 + [True])),
            )
        )
    calls = draw(
        st.lists(st.builds(Call, st.integers(0, count - 1), st.booleans(), st.booleans()), min_size=1, max_size=5)
    )
    return Program(tuple(tasks), tuple(calls), draw(st.booleans()), draw(st.booleans()))


class Library:
    """The names that differ between the two: `Library("langgraph")`, `Library("mpflow")`."""

    def __init__(self, package: str) -> None:
        self.package = package
        func, types = import_module(f"{package}.func"), import_module(f"{package}.types")
        self.task, self.entrypoint = func.task, func.entrypoint
        self.RetryPolicy, self.Command, self.interrupt = types.RetryPolicy, types.Command, types.interrupt
        self.get_stream_writer = import_module(f"{package}.config").get_stream_writer
        self.InMemorySaver = import_module(f"{package}.checkpoint.memory").InMemorySaver


def build(program: Program, lib: Library, **options: Any) -> Any:
    """The entrypoint of a description; `options` are those of its tasks."""
    made: list[Any] = []
    attempts: dict[tuple[str, Any], int] = {}

    def make(task: Task) -> Any:
        def work(value: int) -> Any:
            # Attempts are counted here, so what fails must stay in this process.
            if task.fails:
                key = task.name, value
                attempts[key] = attempts.get(key, 0) + 1
                if attempts[key] <= task.fails:
                    raise Broken(task.name)
            if task.says:
                lib.get_stream_writer()((task.name, value))
            below = None if task.calls is None else made[task.calls](value + 1).result()
            answer = lib.interrupt(f"{task.name} {value}") if task.asks else None
            return [task.name, value, below, answer]

        policy = lib.RetryPolicy(max_attempts=task.tries, initial_interval=0.0, jitter=False, retry_on=Broken)
        placed = {} if task.fails else options
        return lib.task(name=task.name, retry_policy=policy if task.tries > 1 else None, **placed)(work)

    made += [make(task) for task in program.tasks]

    def main(value: int, *, previous: Any = None) -> Any:
        found: list[Any] = [previous]
        open_calls = []
        for number, call in enumerate(program.calls):
            future = made[call.task](value + number)
            if call.waits:
                found.append(taken(future, call.catches))
            else:
                open_calls.append((future, call.catches))
        found += [taken(future, catches) for future, catches in open_calls]
        if program.asks:
            found.append(lib.interrupt("main"))
        return lib.entrypoint.final(value=found, save=value) if program.saves else found

    return lib.entrypoint(checkpointer=lib.InMemorySaver())(main)


def taken(future: Any, catches: bool) -> Any:
    if not catches:
        return future.result()
    try:
        return future.result()
    except Broken as error:
        return f"caught {error}"
