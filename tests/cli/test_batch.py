"""``mpflow batch``: one line in, one line out, in the same order, whatever fails."""

import json
import subprocess


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_results_come_in_the_order_of_the_inputs(call, graphs):
    (graphs / "in.jsonl").write_text("".join(f'{{"x": {n}}}\n\n' for n in range(50)))
    called = call("batch", "cli_graphs:graph", "--input", "in.jsonl", "--output", "out.jsonl", "--workers", "4")
    assert (called.code, called.out, called.err) == (0, "", "")
    assert [line["x"] for line in lines(graphs / "out.jsonl")] == [2 * n for n in range(50)]


def test_a_failed_input_is_a_record_in_its_place(call, graphs):
    (graphs / "in.jsonl").write_text('{"x": 1}\n{"x": -1}\n{"x": 3}')
    called = call("batch", "cli_graphs:graph", "--input", "in.jsonl")
    assert called.code == 1
    assert called.err == "mpflow: 1 of 3 inputs failed: 2\n"
    first, second, third = map(json.loads, called.out.splitlines())
    assert (first["x"], third["x"]) == (2, 6)
    assert second == {"__error__": {"type": "ValueError", "message": "negative"}}


def test_nothing_runs_if_a_line_is_no_json(call, graphs):
    (graphs / "in.jsonl").write_text('{"x": 1}\n{"x": \n')
    called = call("batch", "cli_graphs:graph", "--input", "in.jsonl", "--output", "out.jsonl")
    assert called.code == 2
    assert called.err.startswith("mpflow: in.jsonl, line 2: not JSON")
    assert not (graphs / "out.jsonl").exists()


def test_files_that_cannot_be_opened(call, graphs):
    missing = call("batch", "cli_graphs:graph", "--input", "nowhere.jsonl")
    assert (missing.code, missing.err.count("\n")) == (2, 1)
    (graphs / "in.jsonl").write_text("")
    nowhere = call("batch", "cli_graphs:graph", "--input", "in.jsonl", "--output", "no/such/out.jsonl")
    assert (nowhere.code, nowhere.err) == (2, "mpflow: cannot write no/such/out.jsonl: No such file or directory\n")


def test_no_inputs_no_results(call, graphs):
    (graphs / "in.jsonl").write_text("\n")
    called = call("batch", "cli_graphs:graph", "--input", "in.jsonl")
    assert (called.code, called.out) == (0, "")


def test_runs_that_are_kept_are_not_run_again(call, graphs):
    (graphs / "in.jsonl").write_text("".join(f'{{"x": {n}}}\n' for n in (1, -2, 3)))
    arguments = ("batch", "cli_graphs:builder", "--input", "in.jsonl", "--output", "out.jsonl", "--save", "runs.db")
    first = call(*arguments, "--parallel", "items")
    kept = lines(graphs / "out.jsonl")
    assert (first.code, first.err) == (1, "mpflow: 1 of 3 inputs failed: 2\n")
    assert [line.get("x") for line in kept] == [2, None, 6]
    (graphs / "out.jsonl").unlink()
    assert call(*arguments, "--parallel", "nodes").code == 1
    # The very processes of the first time: what they returned was read back.
    assert lines(graphs / "out.jsonl") == kept


def test_other_inputs_are_other_runs(call, graphs):
    for x in (1, 2):
        (graphs / "in.jsonl").write_text(f'{{"x": {x}}}\n')
        called = call("batch", "cli_graphs:builder", "--input", "in.jsonl", "--save", "runs.db")
        assert (called.code, json.loads(called.out)["x"]) == (0, 2 * x)


def test_what_cannot_be_kept_is_said_before_anything_runs(call, graphs):
    (graphs / "in.jsonl").write_text('{"x": 1}\n')
    own = call("batch", "cli_graphs:saved", "--input", "in.jsonl", "--save", "runs.db")
    pipe = call("batch", "cli_graphs:graph", "--input", "-", "--save", "runs.db")
    folder = call("batch", "cli_graphs:graph", "--input", "in.jsonl", "--save", ".")
    assert (own.code, own.err) == (
        2,
        "mpflow: --save keeps runs in a file, but this graph has a checkpointer of its own\n",
    )
    assert (pipe.code, pipe.err.count("\n")) == (2, 1)
    assert (folder.code, folder.err.count("\n")) == (1, 1)
    assert (own.out, pipe.out, folder.out) == ("", "", "")


def test_a_pipe_is_read_as_it_comes(graphs, spawn):
    process = spawn("-m", "mpflow.cli", "batch", "cli_graphs:graph", "-i", "-", "-w", "1", stdin=subprocess.PIPE)
    process.stdin.write('{"x": 1}\n{"x": 2}\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["x"] == 2
    process.stdin.write('{"x": \n')
    process.stdin.close()
    with process:  # not communicate(), which passes over what readline() has read beyond its line
        out, err = process.stdout.read(), process.stderr.read()
    assert json.loads(out)["x"] == 4
    assert (process.returncode, err.count("\n")) == (2, 1)
    assert err.startswith("mpflow: stdin, line 3: not JSON")


def test_a_killed_batch_goes_on_with_the_same_command(graphs, spawn):
    (graphs / "in.jsonl").write_text("".join(f'{{"x": {n}}}\n' for n in range(60)))
    arguments = ("-m", "mpflow.cli", "batch", "cli_graphs:builder", "-i", "in.jsonl", "-p", "items", "-s", "runs.db")
    first = spawn(*arguments)
    told = [json.loads(first.stdout.readline()) for _ in range(10)]
    first.kill()
    first.communicate(timeout=60)
    out, err = spawn(*arguments).communicate(timeout=60)
    again = [json.loads(line) for line in out.splitlines()]
    assert ([line["x"] for line in again], err) == ([2 * n for n in range(60)], "")
    assert again[:10] == told
