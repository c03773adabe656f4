"""Runnables of langchain-core and ours, mixed."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, TypedDict

import pytest

from mpflow.graph import START, StateGraph
from mpflow.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from mpflow.runnables.runnable import is_runnable
from tests.colours import Run

pytest.importorskip("langchain_core")

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable as TheirRunnable
from langchain_core.runnables import RunnableLambda as TheirLambda
from langchain_core.runnables import RunnableParallel as TheirParallel


class State(TypedDict, total=False):
    topic: str
    text: str
    a: str
    b: str


def chain(answer: str) -> Any:
    return ChatPromptTemplate.from_template("on {topic}") | FakeListChatModel(responses=[answer]) | StrOutputParser()


def test_chains_of_theirs_are_branches_of_ours(run: Run) -> None:
    both = RunnableParallel(joke=chain("ha"), poem=chain("oh"), topic=itemgetter("topic"))
    assert run.invoke(both, {"topic": "x"}) == {"joke": "ha", "poem": "oh", "topic": "x"}
    chunks = run.stream(both, {"topic": "x"})
    assert [chunk["joke"] for chunk in chunks if "joke" in chunk] == ["h", "a"]


def test_ours_on_either_side_of_theirs(run: Run) -> None:
    ours = RunnableParallel(topic=RunnablePassthrough())
    assert run.invoke(ours | chain("ha") | str.upper, "x") == "HA"
    assert run.invoke(chain("ha") | RunnableLambda(str.upper), {"topic": "x"}) == "HA"
    assert run.invoke(chain("ha") | RunnableParallel(up=str.upper, n=len), {"topic": "x"}) == {"up": "HA", "n": 2}
    assert run.stream(chain("ha") | RunnablePassthrough(), {"topic": "x"}) == ["h", "a"]
    assert run.stream(ours | chain("ha"), "x") == ["h", "a"]


def test_ours_within_theirs(run: Run) -> None:
    ours = RunnableParallel(a=lambda x: x + 1, b=lambda x: x * 2)
    assert run.invoke(TheirParallel(p=ours, q=lambda x: x), 3) == {"p": {"a": 4, "b": 6}, "q": 3}
    assert run.invoke(TheirLambda(lambda x: ours), 3) == {"a": 4, "b": 6}
    assert run.batch(TheirLambda(lambda x: x) | ours, [1, 2]) == [{"a": 2, "b": 2}, {"a": 3, "b": 4}]
    assert isinstance(ours, TheirRunnable)
    assert is_runnable(TheirLambda(lambda x: x))


def test_a_compiled_graph_within_a_chain_of_theirs(run: Run) -> None:
    graph = StateGraph(State)
    graph.add_node("tell", RunnablePassthrough.assign(text=chain("ha")))
    graph.add_edge(START, "tell")
    app = TheirLambda(lambda x: {"topic": x}) | graph.compile() | itemgetter("text")
    assert run.invoke(app, "x") == "ha"


def test_callbacks_reach_theirs_through_ours(run: Run) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    class Seen(BaseCallbackHandler):
        def __init__(self) -> None:
            self.prompts: list[str] = []

        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            self.prompts.append(messages[0][0].content)

    def calls_it(topic: str) -> str:
        return str(chain("ha").invoke({"topic": topic}))

    seen = Seen()
    app = RunnableParallel(a={"topic": RunnablePassthrough()} | RunnableLambda(chain("ha").invoke), b=calls_it)
    run.invoke(app, "x", {"callbacks": [seen]})
    assert seen.prompts == ["on x"] * 2


def test_tokens_in_branches_are_messages_of_the_node_around(run: Run) -> None:
    graph = StateGraph(State)
    graph.add_node("tell", RunnableParallel(a=chain("ha"), b=lambda state: chain("ho").invoke(state)))
    graph.add_edge(START, "tell")
    parts = run.stream(graph.compile(), {"topic": "x"}, stream_mode="messages")
    assert sorted(message.content for message, _ in parts if message.content) == ["a", "h", "h", "o"]
    assert {metadata["langgraph_node"] for _, metadata in parts} == {"tell"}
