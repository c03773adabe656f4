"""Random programs of the functional API as data, built under either library from one description.

Which task is called with what depends on what came before alone, so that two engines that give the same get the same back.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hypothesis import strategies as st

from tests.differential.choices import Choices, described
from tests.differential.graphs import Broken

SIZE_BYTES = 48
"""As many decisions as any description asks for."""


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


def programs() -> st.SearchStrategy[Program]:
    return described(program_of, SIZE_BYTES)


def program_of(choices: Choices) -> Program:
    count = 1 + choices.below(4)
    tasks = tuple(_task_of(choices, number, count) for number in range(count))
    calls = tuple(
        Call(choices.below(count), choices.once_in(2), choices.once_in(2)) for _ in range(1 + choices.below(5))
    )
    return Program(tasks, calls, choices.once_in(2), choices.once_in(2))


def _task_of(choices: Choices, number: int, count: int) -> Task:
    tries = choices.one_of([1, 1, 3])
    calls_another = number + 1 < count and choices.once_in(3)
    return Task(
        f"t{number}",
        fails=choices.one_of([0, 0, 1, 2] if tries > 1 else [0] * 7 + [1]),
        tries=tries,
        calls=number + 1 + choices.below(count - number - 1) if calls_another else None,
        says=choices.once_in(2),
        asks=choices.once_in(6),
    )


class Library:
    """The names that differ between the two: `Library("langgraph")`, `Library("mpflow")`."""

    def __init__(self, package: str) -> None:
        self.package = package
        func, types = import_module(f"{package}.func"), import_module(f"{package}.types")
        self.task, self.entrypoint = func.task, func.entrypoint
        self.RetryPolicy, self.Command, self.interrupt = types.RetryPolicy, types.Command, types.interrupt
        self.get_stream_writer = import_module(f"{package}.config").get_stream_writer
        self.get_runtime = import_module(f"{package}.runtime").get_runtime
        self.InMemorySaver = import_module(f"{package}.checkpoint.memory").InMemorySaver


def build(program: Program, lib: Library, **options: Any) -> Any:
    """The entrypoint of a description; `options` are those of its tasks."""
    made: list[Any] = []

    def make(task: Task) -> Any:
        def work(value: int) -> Any:
            if task.fails and lib.get_runtime().execution_info.node_attempt <= task.fails:
                raise Broken(task.name)
            if task.says:
                lib.get_stream_writer()((task.name, value))
            below = None if task.calls is None else made[task.calls](value + 1).result()
            answer = lib.interrupt(f"{task.name} {value}") if task.asks else None
            return [task.name, value, below, answer]

        policy = lib.RetryPolicy(max_attempts=task.tries, initial_interval=0.0, jitter=False, retry_on=Broken)
        return lib.task(name=task.name, retry_policy=policy if task.tries > 1 else None, **options)(work)

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
