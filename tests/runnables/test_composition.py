"""Runnables put together: sequences, coercion, passthrough, assign, pick, binding, retries and fallbacks."""

from __future__ import annotations

import asyncio
import pickle
from operator import itemgetter
from typing import Any

import pytest

from mpflow.runnables import (
    AddableDict,
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
    coerce_to_runnable,
)
from tests.colours import Run


def double(x: Any) -> Any:
    return x * 2


def increase(x: int) -> int:
    return x + 1


def letters(word: str) -> Any:
    yield from word


def louder(chunks: Any) -> Any:
    for chunk in chunks:
        yield chunk.upper()


class Greeter:
    """An object with no more of the protocol than `invoke`."""

    def invoke(self, input: Any, config: Any = None) -> Any:
        return f"hello {input}"


def test_a_pipe_composes_from_either_side(run: Run) -> None:
    assert run.invoke(RunnableLambda(increase) | double | str, 3) == "8"
    assert run.invoke(increase | RunnableLambda(double), 3) == 8
    assert run.invoke({"a": increase, "b": double} | RunnableLambda(itemgetter("b")), 3) == 6
    assert run.invoke(RunnableLambda(increase).pipe(double, str, name="named"), 3) == "8"


def test_sequences_are_taken_apart() -> None:
    chain = RunnableLambda(increase) | (RunnableLambda(double) | str)
    assert isinstance(chain, RunnableSequence)
    assert [step.get_name() for step in chain.steps] == ["increase", "double", "str"]
    assert (chain.first, chain.middle, chain.last) == (chain.steps[0], chain.steps[1:2], chain.steps[2])


def test_what_becomes_a_runnable(run: Run) -> None:
    for thing, input, output in [
        (increase, 1, 2),
        (itemgetter("a"), {"a": 5}, 5),
        ({"a": increase, "b": {"c": double}}, 2, {"a": 3, "b": {"c": 4}}),
        (Greeter(), "you", "hello you"),
        (louder, "ab", "AB"),
    ]:
        assert run.invoke(coerce_to_runnable(thing), input) == output


@pytest.mark.parametrize("thing", [3, None, "text", [increase]])
def test_what_does_not_become_a_runnable(thing: Any) -> None:
    with pytest.raises(TypeError, match="Expected a Runnable, callable or dict"):
        RunnableLambda(increase) | thing
    with pytest.raises(TypeError, match="branch 'a'"):
        RunnableParallel(a=thing)


def test_a_function_is_given_the_config_of_its_call(run: Run) -> None:
    def tags(x: Any, config: Any) -> Any:
        return x, config["tags"], config["configurable"]

    chain = RunnableLambda(increase) | RunnableLambda(tags).with_config(tags=["own"])
    found = run.invoke(chain, 1, {"tags": ["given"], "configurable": {"user": "u"}})
    assert found == (2, ["own", "given"], {"user": "u"})
    assert run.invoke(RunnableLambda(tags), 1) == (1, [], {})


def test_a_runnable_that_a_function_returns_is_invoked_with_the_same_input(run: Run) -> None:
    chosen = RunnableLambda(lambda x: RunnableLambda(increase if x > 1 else double))
    assert (run.invoke(chosen, 1), run.invoke(chosen, 5)) == (2, 6)
    assert run.stream(RunnableLambda(lambda x: RunnableLambda(letters)), "ab") == ["a", "b"]


def test_functions_that_return_themselves_come_to_an_end(run: Run) -> None:
    again = RunnableLambda(lambda x: again)
    with pytest.raises(RecursionError, match="recursion_limit"):
        run.invoke(again, 1, {"recursion_limit": 5})


def test_async_functions_run_in_the_async_colour_alone() -> None:
    async def later(x: int) -> int:
        return x + 1

    chain = RunnableLambda(later) | double
    assert asyncio.run(chain.ainvoke(1)) == 4
    with pytest.raises(TypeError, match="No synchronous function"):
        chain.invoke(1)
    both = RunnableLambda(increase, afunc=later, name="both")
    assert (both.invoke(1), asyncio.run(both.ainvoke(1)), both.get_name()) == (2, 2, "both")


def test_passthrough_assign_and_pick(run: Run) -> None:
    chain = RunnablePassthrough.assign(b=lambda d: d["a"] + 1) | RunnablePassthrough.assign(a=itemgetter("b"))
    assert run.invoke(chain, {"a": 1}) == {"a": 2, "b": 2}
    assert run.invoke(RunnablePassthrough(), 7) == 7
    seen: list[Any] = []
    assert run.invoke(RunnablePassthrough(seen.append), 7) == 7
    assert seen == [7]
    assert run.invoke(chain.pick("b"), {"a": 1}) == 2
    assert run.invoke(RunnablePick(["a", "c"]), {"a": 1, "b": 2}) == {"a": 1}
    assert run.invoke(RunnableLambda(lambda x: {"x": x}).assign(y=lambda d: d["x"]), 3) == {"x": 3, "y": 3}
    with pytest.raises(ValueError, match="must be a dict"):
        run.invoke(chain, 3)


def test_chunks_flow_through_what_can_answer_before_the_end(run: Run) -> None:
    assert run.stream(RunnableLambda(letters) | louder | RunnablePassthrough(), "abc") == ["A", "B", "C"]
    assert run.stream(RunnableLambda(letters) | louder | double, "abc") == ["ABCABC"]
    assert run.invoke(RunnableLambda(letters) | louder, "abc") == "ABC"
    assert run.stream(RunnableLambda(increase), 1) == [2]


def test_an_async_generator_streams_in_the_async_colour() -> None:
    async def slowly(chunks: Any) -> Any:
        async for chunk in chunks:
            yield chunk + "."

    async def collect() -> list[Any]:
        return [chunk async for chunk in (RunnableLambda(letters) | slowly).astream("ab")]

    assert asyncio.run(collect()) == ["a.", "b."]
    assert asyncio.run(RunnableGenerator(slowly).ainvoke("a")) == "a."
    with pytest.raises(TypeError, match="No synchronous function"):
        RunnableGenerator(slowly).invoke("a")


def test_assigned_keys_come_after_those_that_are_handed_on(run: Run) -> None:
    chunks = run.stream(RunnablePassthrough.assign(b=lambda d: d["a"] * 2), {"a": 1, "b": 0})
    assert chunks == [{"a": 1}, {"b": 2}]


def test_addable_dicts_add_up() -> None:
    summed = AddableDict({"a": "x"}) + AddableDict({"a": "y", "b": 1}) + {"b": None, "c": {}}
    assert summed == {"a": "xy", "b": 1, "c": {}}
    assert {"a": 1} + AddableDict({"b": 2}) == {"a": 1, "b": 2}


def test_bind_gives_arguments_besides_the_input(run: Run) -> None:
    def power(x: int, *, by: int = 1) -> int:
        return x**by

    bound = RunnableLambda(power).bind(by=2)
    assert (run.invoke(bound, 3), run.invoke(bound.bind(by=3), 3), run.invoke(bound, 3, by=1)) == (9, 27, 3)
    assert run.stream(bound, 3) == [9]


def test_batches_keep_the_order_and_may_return_failures(run: Run) -> None:
    third = RunnableLambda(lambda x: 3 // x)
    assert run.batch(third, [1, 3]) == [3, 1]
    with pytest.raises(ZeroDivisionError):
        run.batch(third, [1, 0])
    kept = run.batch(third, [1, 0, 3], return_exceptions=True)
    assert (kept[0], type(kept[1]), kept[2]) == (3, ZeroDivisionError, 1)
    assert sorted(run.listed(third, "batch_as_completed", [1, 3])) == [(0, 3), (1, 1)]
    with pytest.raises(ValueError, match="2 inputs but 1 configs"):
        run.batch(third, [1, 2], [{}])


def test_a_retry_ends_with_the_last_error(run: Run) -> None:
    calls: list[int] = []

    def flaky(x: int) -> int:
        calls.append(x)
        if len(calls) < x:
            raise OSError("not yet")
        return len(calls)

    patient = RunnableLambda(flaky).with_retry(wait_exponential_jitter=False)
    assert run.invoke(patient | double, 3) == 6
    calls.clear()
    with pytest.raises(OSError, match="not yet"):
        run.invoke(patient, 4)
    calls.clear()
    picky = RunnableLambda(flaky).with_retry(retry_if_exception_type=(KeyError,), wait_exponential_jitter=False)
    with pytest.raises(OSError, match="not yet"):
        run.invoke(picky, 2)
    assert calls == [2]


def test_fallbacks_take_over_in_their_order(run: Run) -> None:
    def fails(x: Any) -> Any:
        raise KeyError("first")

    safe = RunnableLambda(fails).with_fallbacks([RunnableLambda(fails), RunnableLambda(increase)])
    assert run.invoke(safe, 1) == 2
    told = RunnableLambda(fails).with_fallbacks([RunnableLambda(lambda d: repr(d["error"]))], exception_key="error")
    assert run.invoke(told, {}) == "KeyError('first')"
    with pytest.raises(KeyError):
        run.invoke(RunnableLambda(fails).with_fallbacks([fails], exceptions_to_handle=(OSError,)), 1)


def test_map_calls_it_for_each_item(run: Run) -> None:
    assert run.invoke(RunnableLambda(lambda x: [x]).map(), [1, 2, 3]) == [[1], [2], [3]]
    assert run.invoke(RunnableLambda(increase).map(), []) == []
    assert run.invoke(letters | RunnableLambda(list) | RunnableLambda(str.upper).map(), "ab") == ["A", "B"]


def test_a_subclass_needs_no_more_than_invoke(run: Run) -> None:
    class Length(Runnable[str, int]):
        def invoke(self, input: str, config: Any = None, **kwargs: Any) -> int:
            return len(input)

    assert run.invoke(Length() | double, "abc") == 6
    assert run.stream(Length(), "abc") == [3]
    assert Length().get_name() == "Length"


def test_runnables_are_pickled() -> None:
    chain = RunnableParallel(a=increase, b=double) | RunnablePick("a")
    assert chain.invoke(1) == 2  # what a call keeps for the next does not hinder it
    assert pickle.loads(pickle.dumps(chain)).invoke(1) == 2
