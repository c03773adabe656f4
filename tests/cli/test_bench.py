"""``mpflow bench``: threads and processes compared on the user's own graph."""

import json

import pytest


def test_it_prints_both_tables_and_the_answer(call, graphs):
    called = call("bench", "cli_graphs:pure", "--input", '{"x": 2}', "--workers", "1,2", "--repeat", "1")
    assert called.code == 0
    for expected in ("1 thread", "2 processes", "Nodes, by what worker processes save", "Fastest: "):
        assert expected in called.out


def test_page_plot_and_figures_are_files(call, graphs):
    pytest.importorskip("matplotlib")
    files = ["--html", "out.html", "--plot", "out.png", "--json", "out.json"]
    called = call("bench", "cli_graphs:pure", "--input", '{"x": 2}', "-w", "1", "-r", "1", "--quiet", *files)
    assert (called.code, called.out.count("\n")) == (0, 1)
    page = (graphs / "out.html").read_text()
    assert "<svg" in page
    assert "http-equiv" not in page and "src=" not in page
    assert (graphs / "out.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((graphs / "out.json").read_text())
    assert figures["summary"] == called.out.strip()


def test_what_cannot_be_is_refused(call, graphs):
    for options in (["--workers", "0"], ["--workers", "two"]):
        called = call("bench", "cli_graphs:pure", "--input", '{"x": 2}', "--quiet", *options)
        assert called.code == 2
        assert called.err.startswith("mpflow: ")


@pytest.mark.parametrize("option", ["--html", "--plot", "--json"])
@pytest.mark.parametrize("path", ["nowhere/out.svg", "."])
def test_what_could_not_be_written_is_refused_before_anything_runs(call, monkeypatch, graphs, option, path):
    monkeypatch.setattr("mpflow.comparison.measure.compare", pytest.fail)
    called = call("bench", "cli_graphs:pure", "--input", '{"x": 2}', "--quiet", option, path)
    assert called.code == 2
    assert path in called.err


def test_a_plot_that_could_not_be_drawn_is_refused_before_anything_runs(call, monkeypatch, graphs):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("mpflow.comparison.measure.compare", pytest.fail)
    called = call("bench", "cli_graphs:pure", "--input", '{"x": 2}', "--quiet", "--plot", "out.nothing")
    assert (called.code, called.err.startswith("mpflow: a plot cannot be a 'nothing' file; expected")) == (2, True)


def test_results_that_differ_are_an_error(call, graphs):
    # It tells the process id.
    called = call("bench", "cli_graphs:graph", "--input", '{"x": 2}', "-w", "1", "-r", "1", "--quiet")
    assert called.code == 1
    assert "did not all give the same result" in called.out
