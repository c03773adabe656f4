from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from mpflow._exec.bindings import Bindings
from mpflow.runnables import RunnableLambda
from tests.exec.pooling import Node


def of_main(**space: Any) -> dict[str, Any]:
    """The globals of a module that workers cannot import."""
    space = {"__name__": "__main__", **space}
    exec("def helper(x): return x\ndef work(x): return helper(x)\ndef late(x): return defined_later(x)", space)
    return space


def cell() -> tuple[Any, Callable[[], None]]:
    factor = [1]

    def work(x: int) -> Any:
        return x, factor

    def rebind() -> None:
        nonlocal factor
        factor = [1]

    return work, rebind


def a_global() -> tuple[Any, Callable[[], None]]:
    space = of_main()
    return space["work"], lambda: space.update(helper=len)


def one_that_was_not_there() -> tuple[Any, Callable[[], None]]:
    space = of_main()
    return space["late"], lambda: space.update(defined_later=len)


def a_default() -> tuple[Any, Callable[[], None]]:
    work = of_main()["work"]
    work.__defaults__ = (1,)
    return work, lambda: setattr(work, "__defaults__", (2,))


def a_keyword_default() -> tuple[Any, Callable[[], None]]:
    work = of_main()["work"]
    work.__kwdefaults__ = {"by": "a"}
    return work, lambda: work.__kwdefaults__.update(by="b")


def a_helpers_global() -> tuple[Any, Callable[[], None]]:
    inner = of_main()
    outer = of_main(helper=inner["work"])
    outer["helper"] = inner["work"]
    return outer["work"], lambda: inner.update(helper=len)


def a_partial() -> tuple[Any, Callable[[], None]]:
    space = of_main()
    return partial(space["work"], 1), lambda: space.update(helper=len)


def an_argument_of_a_partial() -> tuple[Any, Callable[[], None]]:
    work = partial(int, base=2)
    return work, lambda: work.keywords.update(base=8)


def a_list_of_functions() -> tuple[Any, Callable[[], None]]:
    space = of_main()
    stages = [space["helper"], space["work"]]
    return (lambda x: stages), lambda: space.update(helper=len)


def a_runnable() -> tuple[Any, Callable[[], None]]:
    space = of_main()
    return RunnableLambda(space["work"]), lambda: space.update(helper=len)


@pytest.mark.parametrize(
    "make",
    [
        cell,
        a_global,
        one_that_was_not_there,
        a_default,
        a_keyword_default,
        a_helpers_global,
        a_partial,
        an_argument_of_a_partial,
        a_list_of_functions,
        a_runnable,
    ],
)
def test_what_is_bound_anew_is_seen(make: Callable[[], tuple[Any, Callable[[], None]]]) -> None:
    function, rebind = make()
    program = Node(function)
    bindings = Bindings(program)
    assert bindings.stand(program)
    rebind()
    assert not bindings.stand(program)


def test_a_change_in_place_is_not_seen() -> None:
    held = [1]
    program = Node(lambda x: held)
    bindings = Bindings(program)
    held.append(2)
    assert bindings.stand(program)


def test_the_program_itself_may_die() -> None:
    program = Node(lambda x: x)
    bindings, gone = Bindings(program), weakref.ref(program)
    del program
    gc.collect()
    assert gone() is None and bindings
