"""Profiles that outlive a program: what is kept, and what is ignored."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path
from typing import Any

import pytest

import mpflow
from mpflow._exec.placement.keeping import Keeper
from mpflow._exec.placement.profile import Profile
from mpflow.graph import START, StateGraph
from tests.exec.placement import corpus


def graph_of(node: Any) -> Any:
    return StateGraph(dict).add_node("w", node).add_edge(START, "w").compile()


def profile_of(graph: Any) -> Profile:
    return graph._plan.nodes["w"].meter


def learn(path: Path, node: Any, calls: int = 3) -> dict[str, Any]:
    """Run a node and give the entries of the file."""
    with mpflow.profile(path):
        graph = graph_of(node)
        for _ in range(calls):
            graph.invoke({})
    return json.loads(path.read_text())["nodes"]


def test_what_was_learnt_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "profile.json"
    (entry,) = learn(path, corpus.computes).values()
    assert entry["seen"] in (2, 3)  # of three calls; quick ones are not all measured
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with mpflow.profile(path):
        graph = graph_of(corpus.computes)
        graph.invoke({})
    assert profile_of(graph).seen == entry["seen"] + 1
    assert graph_of(corpus.computes)._plan.nodes["w"].meter is None


def test_entries_of_others_are_kept_and_those_of_other_code_ignored(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    learn(path, corpus.computes)
    assert len(learn(path, corpus.parses)) == 2
    data = json.loads(path.read_text())
    data["nodes"] = {key[:-4] + "0000": value for key, value in data["nodes"].items()}
    path.write_text(json.dumps(data))
    with mpflow.profile(path):
        graph = graph_of(corpus.computes)
        graph.invoke({})
    assert profile_of(graph).seen == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"version": 99}',
        '{"version": 1, "made_on": "a PDP-11", "nodes": {}}',
        "[" * 100_000,
    ],
)
def test_a_file_that_says_nothing_usable_is_ignored_with_a_word(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with caplog.at_level(logging.WARNING, "mpflow"):
        assert len(learn(path, corpus.computes)) == 1
    assert [record for record in caplog.records if "is ignored" in record.message]


@pytest.mark.parametrize("damage", [{"cpu_s": "fast"}, {"seen": -1}, {"wall_s": None}, {"last_lanes": float("inf")}])
def test_a_damaged_entry_is_measured_anew(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = tmp_path / "profile.json"
    learn(path, corpus.computes)
    data = json.loads(path.read_text())
    for entry in data["nodes"].values():
        entry.update(damage)
    path.write_text(json.dumps(data))
    with mpflow.profile(path):
        graph = graph_of(corpus.computes)
        graph.invoke({})
    assert profile_of(graph).seen == 1


def test_a_trial_is_remembered_for_the_same_code_alone(tmp_path: Path) -> None:
    from mpflow._exec.placement.standing import Standing

    profile = Profile("w")
    standing = Standing(profile)
    program = graph_of(corpus.computes)._plan.nodes["w"].program
    assert standing.reason_to_stay(program) is None
    assert not standing.proven
    profile.proven_as = standing.digest
    again, other = Standing(profile), Standing(profile)
    assert again.reason_to_stay(program) is None and again.proven
    assert other.reason_to_stay(graph_of(corpus.parses)._plan.nodes["w"].program) is None and not other.proven


def test_what_was_found_out_is_kept_over_a_run_too_short_to_use_it(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    node = graph_of(corpus.computes)._plan.nodes["w"]
    for proven in ("a digest", None):
        keeper = Keeper(path)
        profile = Profile("w")
        keeper.recall(profile, node.program.callables.source)
        if proven is not None:
            profile.proven_as = proven
        for _ in range(3):
            profile.note(0.01, 0.01)
        keeper.save()
    again = Profile("w")
    Keeper(path).recall(again, node.program.callables.source)
    assert again.proven_as == "a digest"
