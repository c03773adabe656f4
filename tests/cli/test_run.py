"""``mpflow run``: what it loads, what it reads, what it prints, and how it ends."""

import io
import json
import os
import select
import signal
import sys

import pytest

from mpflow.cli import main


@pytest.mark.parametrize(
    "target", ["cli_graphs:graph", "cli_graphs:builder", "cli_graphs.py:graph", "cli_graphs:holder.graph"]
)
def test_a_graph_or_its_builder_from_a_module_or_file(call, graphs, target):
    called = call("run", target, "--input", '{"x": 4}')
    assert (called.code, called.err) == (0, "")
    assert json.loads(called.out)["x"] == 8


def test_a_file_in_another_directory(call, graphs, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert json.loads(call("run", str(graphs / "cli_graphs.py") + ":graph", "-i", '{"x": 4}').out)["x"] == 8


def test_input_from_a_file_and_from_stdin(call, graphs, monkeypatch):
    (graphs / "input.json").write_text('{"x": 5}')
    assert json.loads(call("run", "cli_graphs:graph", "-i", "input.json").out)["x"] == 10
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"x": 6}'))
    assert json.loads(call("run", "cli_graphs:graph", "-i", "-").out)["x"] == 12


@pytest.mark.parametrize("target", ["cli_graphs:graph", "cli_graphs:builder", "cli_graphs.py:graph"])
def test_the_executor_places_the_nodes(call, graphs, target):
    here = call("run", target, "-i", '{"x": 1}', "--executor", "thread")
    there = call("run", target, "-i", '{"x": 1}', "--executor", "process")
    assert json.loads(here.out)["pid"] == os.getpid()
    assert json.loads(there.out)["pid"] != os.getpid()


def test_chunks_are_printed_a_line_each(call, graphs):
    updates = call("run", "cli_graphs:graph", "-i", '{"x": 1}', "--stream")
    assert [list(json.loads(line)) for line in updates.out.splitlines()] == [["double"]]
    values = call("run", "cli_graphs:graph", "-i", '{"x": 1}', "--stream", "values")
    assert [json.loads(line)["x"] for line in values.out.splitlines()] == [1, 2]


@pytest.mark.parametrize(
    "target, input, says",
    [
        ("cli_graphs", "{}", "expected MODULE:GRAPH"),
        (":graph", "{}", "expected MODULE:GRAPH"),
        ("no_such_module:graph", "{}", "cannot import 'no_such_module': ModuleNotFoundError"),
        ("no_such.py:graph", "{}", "no such file: no_such.py"),
        ("failing.py:graph", "{}", "ZeroDivisionError: division by zero"),
        ("failing.py:graph", "{}", "failing.py, line 2"),
        ("json.py:graph", "{}", "rename it"),
        ("cli_graphs:graf", "{}", "has no 'graf'; its graphs: broken, builder, graph"),
        ("cli_graphs:number", "{}", "neither a graph nor its builder but int"),
        ("cli_graphs:State", "{}", "neither a graph nor its builder"),
        ("cli_graphs:broken", "{}", "does not compile"),
        ("cli_graphs:graph", "{'x': 1}", "not JSON (and no such file)"),
        ("cli_graphs:graph", "nowhere.json", "not JSON (and no such file)"),
        ("cli_graphs:graph", "cli_graphs.py", "cli_graphs.py: not JSON"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(call, graphs, target, input, says):
    (graphs / "failing.py").write_text("x = 1\nx / 0\n")
    (graphs / "json.py").write_text("graph = 1\n")
    called = call("run", target, "--input", input)
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith("mpflow: ")
    assert called.err.count("\n") == 1
    assert says in called.err


def test_a_failing_node_shows_its_traceback(graphs, spawn):
    process = spawn("-m", "mpflow.cli", "run", "cli_graphs:graph", "--input", '{"x": -1}')
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'raise ValueError("negative")' in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_ctrl_c_ends_it_with_its_workers_and_one_line(graphs, spawn):
    os.mkfifo("ready")
    (graphs / "endless.py").write_text(
        "import os, time\n"
        "from mpflow.graph import START, StateGraph\n"
        "def wait(state):\n"
        "    with open('ready', 'w') as file:\n"
        "        file.write(str(os.getpid()))\n"
        "    while True: time.sleep(60)\n"
        "builder = StateGraph(dict).add_node('wait', wait, executor='process').add_edge(START, 'wait')\n"
    )
    # Open for writing too: a reader alone would wait for a worker that may never come.
    ready = os.open("ready", os.O_RDWR)
    process = spawn("-m", "mpflow.cli", "run", "endless.py:builder", "--input", "{}")
    try:
        # stderr is readable if it complains or ends before the node has started.
        assert select.select([ready, process.stderr], [], [], 60)[0] == [ready], process.communicate()
        worker = int(os.read(ready, 20))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        os.close(ready)
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert err.strip() == "mpflow: interrupted"
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.parametrize("args", [(), ("--help",), ("run", "--help"), ("--version",)])
def test_help_needs_no_engine(args, spawn):
    script = (
        "import sys\n"
        "from mpflow.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('mpflow.graph', 'loky', 'rich', 'msgpack') if name in sys.modules])"
    )
    out, _ = spawn("-c", script, *args).communicate(timeout=60)
    assert out.splitlines()[-1] == "[]"


def test_a_timeline_is_written(call, graphs):
    called = call("run", "cli_graphs:graph", "--input", '{"x": 2}', "--trace", "trace.json")
    assert (called.code, called.err) == (0, "")
    events = json.loads((graphs / "trace.json").read_text())["traceEvents"]
    assert "double" in {event["name"] for event in events}


def test_a_timeline_is_written_of_a_run_that_fails(call, graphs):
    with pytest.raises(ValueError, match="negative"):
        main(["run", "cli_graphs:graph", "--input", '{"x": -2}', "--trace", "trace.json"])
    events = json.loads((graphs / "trace.json").read_text())["traceEvents"]
    assert "failed" in {event.get("cat") for event in events}


def test_output_that_cannot_be_written_is_one_line(call, graphs, spawn):
    with open("/dev/full", "w") as full, spawn("-m", "mpflow.cli", "draw", "cli_graphs:graph", stdout=full) as process:
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "mpflow: cannot write stdout: No space left on device\n")
    (graphs / "inputs").write_text('{"x": 1}\n')
    called = call("batch", "cli_graphs:graph", "-i", "inputs", "-o", "/dev/full")
    assert (called.code, called.err) == (1, "mpflow: cannot write /dev/full: No space left on device\n")


def test_a_nodes_own_full_disk_is_told_as_its_error(call, graphs):
    (graphs / "full.py").write_text(
        "import errno\nfrom mpflow.graph import START, StateGraph\n"
        "def node(state): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "graph = StateGraph(dict).add_node(node).add_edge(START, 'node').compile()\n"
    )
    with pytest.raises(OSError, match="No space left"):
        main(["run", "full:graph", "-i", "{}"])
