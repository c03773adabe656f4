"""``mpflow batch``: one line in, one line out, in the same order, whatever fails."""

import json


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
