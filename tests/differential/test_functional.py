"""Random programs of the functional API show their caller the same under both libraries, and wherever their tasks run."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings

from tests.differential.functional import Library, Program, build, programs
from tests.differential.test_saved import astreamed, streamed

# LangGraph's tasks wait for tasks that they called in a pool of so many threads, for ever if there are too few.
CONFIG: Any = {"configurable": {"thread_id": "1"}, "max_concurrency": 100}
THEIRS, OURS = Library("langgraph"), Library("mpflow")


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def shown(program: Program, lib: Library, stream: Any = streamed, **options: Any) -> list[Any]:
    """What two runs on a thread show: outputs in any order of ends, how they ended, the state they left."""
    graph = build(program, lib, **options)
    rounds = []
    given: Any = 1
    for number in range(8):
        chunks, error = stream(graph, given, CONFIG, stream_mode=["updates", "values", "custom"])
        state = graph.get_state(CONFIG)
        questions = state.interrupts
        told = sorted(_told(mode, chunk) for mode, chunk in chunks)
        asked = sorted(question.value for question in questions)
        rounds.append((told, type(error).__name__, asked, state.values, state.next))
        if error is not None:
            break
        if questions:
            given = lib.Command(resume={question.id: f"answer {number}" for question in questions})
        elif number > 0 and given == 5:
            break
        else:
            given = 5
    return rounds


def _told(mode: str, chunk: Any) -> str:
    if isinstance(chunk, dict) and "__interrupt__" in chunk:
        chunk = sorted(question.value for question in chunk["__interrupt__"])
    return repr((mode, chunk))


def is_decided_by_time(rounds: list[Any], program: Program) -> bool:
    """Whether tasks that nobody had asked for yet were running when the program failed, or stopped to ask."""
    return rounds[-1][1] != "NoneType" or any(asked for _, _, asked, _, _ in rounds[:1])


def check(program: Program) -> None:
    theirs = shown(program, THEIRS)
    for found in (shown(program, OURS), shown(program, OURS, astreamed)):
        _compare(found, theirs, program)


def _compare(found: list[Any], expected: list[Any], program: Program) -> None:
    if not is_decided_by_time(expected, program):
        assert found == expected
        return
    # Which of the others had ended by then is a matter of time; how it ended, and what it came to, is not.
    assert [(error, values) for _, error, _, values, _ in found][-1] == [
        (error, values) for _, error, _, values, _ in expected
    ][-1]


@settings(max_examples=50)
@given(programs())
def test_random_programs_show_the_same_under_both_libraries(program: Program) -> None:
    check(program)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@settings(max_examples=5_000)
@given(programs())
def test_thousands_of_random_programs_show_the_same(program: Program) -> None:
    check(program)


@pytest.mark.warm_pool
@settings(max_examples=12)
@given(programs())
def test_programs_come_to_the_same_where_their_tasks_run_in_processes(program: Program) -> None:
    expected = shown(program, OURS)
    _compare(shown(program, OURS, executor="process"), expected, program)


def test_the_generator_makes_what_matters() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=60, database=None)
    @given(programs())
    def collect(program: Program) -> None:
        seen["all"] += 1
        seen["asks"] += program.asks or any(task.asks for task in program.tasks)
        seen["nests"] += any(task.calls is not None for task in program.tasks)
        seen["fails"] += any(task.fails for task in program.tasks)

    collect()
    assert all(seen[kind] > seen["all"] // 10 for kind in ("asks", "nests", "fails"))
