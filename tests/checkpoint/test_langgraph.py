"""LangGraph's savers under our graphs, ours under its graphs, and its databases imported (D-9)."""

from __future__ import annotations

import operator
import sqlite3
import subprocess
import sys
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from mpflow.checkpoint.langgraph import LangGraphSaver, import_sqlite, to_langgraph
from mpflow.checkpoint.memory import InMemorySaver
from mpflow.checkpoint.serde.encrypted import EncryptedSerializer
from mpflow.testing.colours import SyncColour
from mpflow.testing.protocol import Checkpoints, Listings, PendingWrites
from mpflow.testing.running import Runs, asks, fails_in_part, fans_out, history

pytest.importorskip("langgraph.checkpoint.sqlite")


class TestAdaptedSqliteSaver(PendingWrites, Runs):
    lacks = frozenset({"prune", "copy_thread", "delete_for_runs"})
    refusals = (ValueError, TypeError)

    def open(self, place: Path) -> AbstractContextManager[Any]:
        from langgraph.checkpoint.sqlite import SqliteSaver

        @contextmanager
        def opened():
            with SqliteSaver.from_conn_string(str(place / "saver.db")) as saver:
                yield LangGraphSaver(saver)

        return opened()

    def aopen(self, place: Path) -> AbstractAsyncContextManager[Any]:
        from contextlib import asynccontextmanager

        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        @asynccontextmanager
        async def opened():
            async with AsyncSqliteSaver.from_conn_string(str(place / "saver.db")) as saver:
                yield LangGraphSaver(saver)

        return opened()


class TestLentSaver(Checkpoints, Listings, PendingWrites):
    """Through both adapters one after the other nothing may change."""

    def open(self, place: Path) -> AbstractContextManager[Any]:
        return nullcontext(LangGraphSaver(to_langgraph(InMemorySaver())))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as LangGraph leaves it: a finished thread with a fork, one that waits for answers, one that failed."""
    path = tmp_path_factory.mktemp("database") / "theirs.db"
    program = f"""
import operator, sys
from typing import Annotated, TypedDict
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Send, interrupt
from tests.checkpoint.test_langgraph import Point, State, build
with SqliteSaver.from_conn_string({str(path)!r}) as saver:
    graph = build(StateGraph, Send, interrupt, saver)
    for thread in ("done", "it's"):
        config = {{"configurable": {{"thread_id": thread}}}}
        graph.invoke({{"log": ["go"], "point": Point(1, [2])}}, config)
    states = list(graph.get_state_history(config))
    graph.update_state(states[2].config, {{"log": ["edited"]}})
    graph.invoke({{"log": ["ask"]}}, {{"configurable": {{"thread_id": "waits"}}}})
    try:
        graph.invoke({{"log": ["fail"]}}, {{"configurable": {{"thread_id": "failed"}}}})
    except RuntimeError:
        pass
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
    return path


@dataclass
class Point:
    x: int
    y: Any


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    point: Point


def build(graph: Any, send: Any, ask: Any, saver: Any, fails: bool = True) -> Any:
    """The same graph for either library."""

    def first(state: State) -> State:
        return {"log": ["first"]}

    def item(number: int) -> State:
        return {"log": [f"item {number}"]}

    def last(state: State) -> State:
        if "ask" in state["log"]:
            return {"log": [ask("why?")]}
        if "fail" in state["log"] and fails:
            raise RuntimeError("no luck")
        return {"log": ["last"]}

    builder = graph(State).add_node("first", first).add_node("item", item).add_node("last", last)
    builder.add_node("beside", lambda state: {"log": ["beside"]})
    builder.add_edge("__start__", "first").add_conditional_edges(
        "first", lambda state: [send("item", n) for n in (1, 2)], ["item"]
    )
    builder.add_edge("item", "last").add_edge("item", "beside")
    return builder.compile(checkpointer=saver)


def ours(saver: Any, **options: Any) -> Any:
    from mpflow.graph import StateGraph
    from mpflow.types import Send, interrupt

    return build(StateGraph, Send, interrupt, saver, **options)


def theirs(saver: Any) -> Any:
    from langgraph.graph import StateGraph
    from langgraph.types import Send, interrupt

    return build(StateGraph, Send, interrupt, saver)


def at(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id}}


def told(graph: Any, thread_id: str) -> list[Any]:
    return [
        (one.config["configurable"]["checkpoint_id"], one.values, sorted(one.next), one.metadata, one.parent_config)
        for one in graph.get_state_history(at(thread_id))
    ]


def test_an_imported_database_has_the_history_it_had(database: Path) -> None:
    from langgraph.checkpoint.sqlite import SqliteSaver

    saver = InMemorySaver()
    report = import_sqlite(database, saver, types=[Point])
    assert (report.threads, report.refused) == (4, {})
    with SqliteSaver.from_conn_string(str(database)) as source:
        for thread_id in ("done", "it's", "waits", "failed"):
            assert told(ours(saver), thread_id) == told(theirs(source), thread_id)
        found = list(source.list(None))
        assert (report.checkpoints, report.writes) == (len(found), sum(len(one.pending_writes or ()) for one in found))


def test_an_imported_thread_goes_on(database: Path) -> None:
    saver = InMemorySaver()
    import_sqlite(database, saver, types=[Point])
    graph = ours(saver)
    before = graph.get_state(at("done")).values
    after = graph.invoke({"log": ["more"]}, at("done"))
    assert after["log"] == [*before["log"], "more", "first", "item 1", "item 2", "beside", "last"]
    assert after["point"] == Point(1, [2])


def test_a_thread_that_waits_goes_on_where_it_is_with_its_graph(database: Path) -> None:
    from mpflow.types import Command

    saver = InMemorySaver()
    graph = ours(saver)
    import_sqlite(database, saver, types=[Point], graph=graph)
    state = graph.get_state(at("waits"))
    assert (state.next, [one.value for one in state.interrupts]) == (("last",), ["why?"])
    assert state.values["log"][-1] == "beside"
    question = state.interrupts[0].id
    assert graph.invoke(Command(resume={question: "because"}), at("waits"))["log"][-2:] == ["beside", "because"]


def test_a_thread_that_failed_keeps_what_was_done(database: Path) -> None:
    saver = InMemorySaver()
    graph = ours(saver, fails=False)
    import_sqlite(database, saver, types=[Point], graph=graph)
    before = graph.get_state(at("failed"))
    assert "no luck" in str(before.tasks[0].error)
    assert graph.invoke(None, at("failed"))["log"][-2:] == ["beside", "last"]


def test_a_graph_of_another_saver_is_refused(database: Path) -> None:
    with pytest.raises(ValueError, match=r"compile\(checkpointer=saver\)"):
        import_sqlite(database, InMemorySaver(), graph=ours(InMemorySaver()))


@pytest.mark.parametrize("lasting", [False, True])
def test_a_question_of_a_graph_within_a_graph_is_answered_after_the_import(tmp_path: Path, lasting: bool) -> None:
    from langgraph.checkpoint.sqlite import SqliteSaver

    from mpflow.types import Command
    from tests.differential.scenarios import Library
    from tests.differential.test_states import nested

    path = tmp_path / "theirs.db"
    with SqliteSaver.from_conn_string(str(path)) as source:
        graph = nested(Library("langgraph", lambda: source), lasting=lasting, depth=2)
        graph.invoke({"log": ["in"]}, at("t"))
        expected = graph.get_state(at("t"), subgraphs=True)
    saver = InMemorySaver()
    graph = nested(Library("mpflow", lambda: saver), lasting=lasting, depth=2)
    report = import_sqlite(path, saver, graph=graph)
    assert (report.threads, report.refused) == (1, {})
    found = graph.get_state(at("t"), subgraphs=True)
    while expected.tasks and found.tasks:
        assert (found.values, found.next) == (expected.values, expected.next)
        if not hasattr(expected.tasks[0].state, "tasks"):
            break
        expected, found = expected.tasks[0].state, found.tasks[0].state
    assert found.next == ("ask",)
    question = graph.get_state(at("t")).interrupts[0].id
    result = graph.invoke(Command(resume={question: "yes"}), at("t"))
    assert (result["log"][-1], result["log"].count("first")) == ("ask: yes", 1)


def test_a_chat_is_imported_and_read_by_whoever_calls_the_saver(tmp_path: Path) -> None:
    messages = pytest.importorskip("langchain_core.messages")
    from langgraph.checkpoint.sqlite import SqliteSaver as TheirSaver
    from langgraph.graph import MessagesState as TheirState
    from langgraph.graph import StateGraph as TheirGraph

    from mpflow.checkpoint.sqlite import SqliteSaver
    from mpflow.graph import START, MessagesState, StateGraph

    said = messages.HumanMessage("hello", id="1")
    thread: Any = {"configurable": {"thread_id": "chat"}}
    with TheirSaver.from_conn_string(str(tmp_path / "theirs")) as theirs:
        builder: Any = TheirGraph(TheirState).add_node("say", lambda state: {"messages": [said]}).add_edge(START, "say")
        builder.compile(checkpointer=theirs).invoke({"messages": []}, thread)
    with SqliteSaver.from_conn_string(str(tmp_path / "ours")) as saver:
        ours = StateGraph(MessagesState).add_node("say", lambda state: {}).add_edge(START, "say")
        report = import_sqlite(tmp_path / "theirs", saver, graph=ours.compile(checkpointer=saver))
        assert (report.threads, report.refused) == (1, {})
        found = saver.get_tuple(thread)
        assert found is not None and found.checkpoint["channel_values"]["messages"] == [said]
        assert [one.checkpoint["channel_values"]["messages"] for one in saver.list(thread, limit=1)] == [[said]]


def test_some_threads_of_a_database(database: Path) -> None:
    saver = InMemorySaver()
    report = import_sqlite(database, saver, thread_ids=["it's", "nobody"], types=[Point])
    assert (report.threads, report.refused) == (1, {"nobody": "the database has no thread of this id"})
    assert {one.config["configurable"]["thread_id"] for one in saver.list(None)} == {"it's"}


def test_a_thread_whose_values_cannot_be_read_is_refused_whole(database: Path) -> None:
    saver = InMemorySaver()
    report = import_sqlite(database, saver)
    assert sorted(report.refused) == ["done", "it's"]
    assert "Point, which is not known here" in report.refused["done"]
    assert saver.get_tuple(at("done")) is None
    assert report.threads == 2


def test_a_thread_that_is_there_already_stays(database: Path) -> None:
    saver = InMemorySaver()
    ours(saver).invoke({"log": ["mine"]}, at("waits"))
    before = told(ours(saver), "waits")
    report = import_sqlite(database, saver, types=[Point])
    assert report.refused == {"waits": "the saver has a thread of this id already"}
    assert told(ours(saver), "waits") == before


def test_a_damaged_row_refuses_its_thread_by_name(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with sqlite3.connect(database) as source, sqlite3.connect(copy) as target:
        source.backup(target)
        target.execute("UPDATE checkpoints SET checkpoint = substr(checkpoint, 1, 40) WHERE thread_id = 'done'")
    source.close()
    target.close()
    report = import_sqlite(copy, InMemorySaver(), types=[Point])
    assert list(report.refused) == ["done"]
    assert "cut short" in report.refused["done"]


def test_no_database_no_import(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.db"):
        import_sqlite(tmp_path / "missing.db", InMemorySaver())
    assert list(tmp_path.iterdir()) == []


def test_an_encrypted_database_is_imported_with_its_key(tmp_path: Path) -> None:
    pytest.importorskip("Crypto.Cipher.AES")
    from langgraph.checkpoint.serde.encrypted import EncryptedSerializer as Theirs
    from langgraph.checkpoint.sqlite import SqliteSaver

    key, path = b"0123456789abcdef", tmp_path / "sealed.db"
    with sqlite3.connect(path, check_same_thread=False) as connection:
        theirs(SqliteSaver(connection, serde=Theirs.from_pycryptodome_aes(key=key))).invoke({"log": ["go"]}, at("t"))
    connection.close()
    saver = InMemorySaver()
    report = import_sqlite(path, saver, serde=EncryptedSerializer.from_pycryptodome_aes(key=key))
    assert (report.threads, report.refused) == (1, {})
    assert ours(saver).get_state(at("t")).values["log"][:2] == ["go", "first"]
    wrong = import_sqlite(path, InMemorySaver(), serde=EncryptedSerializer.from_pycryptodome_aes(key=b"x" * 16))
    assert "another key" in wrong.refused["t"]


@pytest.mark.parametrize("scenario", [asks, fans_out, fails_in_part])
def test_langgraph_reads_what_we_saved_through_the_adapter(scenario: Any, caplog: pytest.LogCaptureFixture) -> None:
    from langgraph.checkpoint.memory import InMemorySaver as Theirs

    saver = Theirs()
    scenario(SyncColour(), LangGraphSaver(saver), "sync")
    for found in saver.list(None):
        kinds = {type(item).__module__ for *_, value in found.pending_writes or () for item in _items(value)}
        kinds |= {
            type(item).__module__ for value in found.checkpoint["channel_values"].values() for item in _items(value)
        }
        assert not {kind for kind in kinds if kind.startswith("mpflow")}
    assert "unregistered type" not in caplog.text


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def test_our_saver_serves_langgraphs_graphs() -> None:
    from langgraph.types import Command

    graph = theirs(to_langgraph(InMemorySaver()))
    graph.invoke({"log": ["ask"], "point": Point(1, 2)}, at("t"))
    state = graph.get_state(at("t"))
    assert (state.next, [one.value for one in state.interrupts]) == (("last",), ["why?"])
    assert type(state.interrupts[0]).__module__ == "langgraph.types"
    assert graph.invoke(Command(resume="because"), at("t"))["log"][-2:] == ["beside", "because"]
    assert len(history(SyncColour(), graph, at("t"))) == 5


def test_only_savers_of_langgraph_are_adapted() -> None:
    with pytest.raises(TypeError, match="expected a saver of langgraph-checkpoint, got InMemorySaver"):
        LangGraphSaver(InMemorySaver())


def test_without_langgraph_the_line_that_installs_it_is_named_and_databases_can_be_read(database: Path) -> None:
    program = f"""
import sys
sys.modules["langgraph"] = None
from mpflow.checkpoint.langgraph import LangGraphSaver, import_sqlite
from mpflow.checkpoint.memory import InMemorySaver
try: LangGraphSaver(None)
except ImportError as error: print(error)
print(import_sqlite({str(database)!r}, InMemorySaver(), thread_ids=["waits"]).threads)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == 'this needs LangGraph: pip install "langgraph>=1.0"\n1\n'
