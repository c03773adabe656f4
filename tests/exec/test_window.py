"""A window of spans says the same as one of single attempts, whatever is asked of it in whatever order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mpflow._columns import Column, Span, singly
from mpflow._exec.queues import Queue
from mpflow._exec.window import Window
from mpflow._messages import Attempt, StepFacts

FACTS = StepFacts({}, 1, 25)
SIZES = st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=5)


class Things(Column):
    def __init__(self, count: int) -> None:
        super().__init__(None, list(range(count)), FACTS, ())
        self.outbox = object()  # type: ignore[assignment]

    def task(self, position: int) -> Any:
        return position


def filled(sizes: list[tuple[int, bool]]) -> tuple[Window, dict[int, Any]]:
    """A window, and what must be in it."""
    window, model = Window(), {}
    number = 1
    for size, is_whole in sizes:
        span = Span(Things(size), 0, size)
        window.add(number, span if is_whole else list(span))
        model.update(zip(range(number, number + size), span, strict=True))
        number += size + 1
    return window, model


@given(SIZES, st.data())
def test_a_window_of_spans_is_like_one_of_attempts(sizes: list[tuple[int, bool]], data: Any) -> None:
    window, model = filled(sizes)
    while model:
        assert len(window) == len(model) and window
        assert (window.first(), window.last()) == (min(model), max(model))
        numbers = sorted(model)
        number = data.draw(st.sampled_from(numbers))
        assert number in window and max(numbers) + 1 not in window and window.get(number) is model[number]
        what = data.draw(st.sampled_from(("answered", "pop", "cut", "items")))
        if what == "answered":
            asked = numbers[: data.draw(st.integers(1, len(numbers)))]
            if data.draw(st.booleans()):
                asked = [number]
            assert list(window.answered(asked)) == [model[one] for one in asked]
            window.drop(asked)
            for one in asked:
                del model[one]
        elif what == "pop":
            assert window.pop(number) is model.pop(number) and window.pop(number) is None
        elif what == "cut":
            assert singly(window.cut(number)) == [model.pop(one) for one in numbers if one >= number]
        else:
            assert window.items() == sorted(model.items())
    assert not window and not len(window) and window.clear() == [] and window.last() == 0


def test_a_span_that_is_answered_and_taken_back_in_order_makes_no_attempt() -> None:
    things = Things(1000)
    queue = Queue()
    queue.add(Span(things, 0, 1000))
    window = Window()
    window.add(1, queue.take(600))
    window.add(601, queue.take(300))
    assert len(queue) == 100
    answered = window.answered(range(1, 201))
    window.drop(range(1, 201))
    queue.put_back(window.cut(401))
    assert isinstance(answered, Span) and len(answered) == 200 and len(window) == 200 and len(queue) == 600
    assert [len(queue.take(250)) for _ in range(4)] == [200, 250, 50, 100] and not queue
    assert not things.made


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.lists(st.integers(1, 7), min_size=20, max_size=20))
def test_a_queue_gives_spans_out_in_order(sizes: list[int], limits: list[int]) -> None:
    queue = Queue()
    expected = []
    outbox = object()
    for size in sizes:
        things = Things(size)
        things.outbox = outbox  # type: ignore[assignment]
        queue.add(Span(things, 0, size))
        expected += [(things, position) for position in range(size)]
    removed = queue.remove(lambda attempt: attempt.input == 3)
    assert len(removed) == sum(size > 3 for size in sizes)
    taken: list[Any] = []
    for limit in limits:
        if queue:
            batch = queue.take(limit)
            assert 1 <= len(batch) <= limit
            taken += [attempt.task for attempt in batch]
    assert taken == [position for _, position in expected if position != 3] and not queue


def called_by(caller: Attempt | None, name: str, program: Any = None) -> Attempt:
    attempt = Attempt(name, 1, program, None, FACTS, (name,), ())
    attempt.outbox = caller.outbox if caller is not None else Things(0).outbox
    attempt.caller, attempt.is_called = caller, caller is not None
    return attempt


def test_what_is_below_a_task_is_found_and_taken_with_its_like() -> None:
    top = called_by(None, "top")
    left, right = called_by(top, "left"), called_by(top, "right")
    below = [called_by(left, f"below {number}") for number in range(3)]
    queue = Queue()
    queue.add([right, *below])
    assert queue.find_below(right) is None
    found = queue.find_below(left)
    assert found is not None and found[1] is below[2]  # the newest comes first
    assert queue.take_at(*found, 2, left) == [below[2], below[1]]
    assert len(queue) == 2
    assert queue.take_at(0, below[0], 9, left) == [below[0]]  # the next is not below it
    assert queue.take_at(0, right, 9, top) == [right]
    assert not queue and queue.head() is None
