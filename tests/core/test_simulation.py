"""Whatever happens on the way, a run comes to the same state, the same tasks and the same updates (D-1)."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpflow.constants import START
from tests.core.simulation import make_world, play

QUICK = 1_000
ALL = 20_000


def simulate(seed: int) -> str:
    """One seed: what it came to. A third of the seeds each: disturbed, failing for good, given up."""
    dice = Random(seed)
    manner = ("disturbed", "failing", "stopped")[seed % 3]
    world = make_world(dice, fatal=0.05 if manner == "failing" else 0.0)
    calm = play(world)
    wild = play(world, dice, stop=manner == "stopped")
    if manner == "disturbed" or wild.end == "over":
        assert wild == calm
        assert replace(calm, versions={}) == play(world, counted=False)  # who keeps no versions misses nothing else
    else:
        assert wild.end.partition(":")[0] in ("Fatal", "KeyboardInterrupt", calm.end.partition(":")[0])
        # Up to the step that failed nothing differs, and that step left no trace.
        assert wild.steps == calm.steps[: len(wild.steps)]
        assert wild.updates == calm.updates[: len(wild.updates)]
    return f"{manner} {wild.end.partition(':')[0]}"


def ends(seeds: range) -> dict[str, int]:
    found: dict[str, int] = {}
    for seed in seeds:
        try:
            end = simulate(seed)
        except BaseException as error:
            error.args = (f"seed {seed}: {error}",)
            raise
        found[end] = found.get(end, 0) + 1
    return found


def test_any_order_of_ends_failures_and_deaths_comes_to_the_same_run() -> None:
    found = ends(range(QUICK))
    # The campaign is worth nothing if it does not get to all of these.
    assert {"disturbed over", "disturbed GraphRecursionError", "failing Fatal", "stopped KeyboardInterrupt"} <= set(
        found
    )
    assert found["disturbed over"] > QUICK / 20


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("slice", range(10))
def test_twenty_thousand_simulations_keep_every_invariant(slice: int) -> None:
    ends(range(slice * ALL // 10, (slice + 1) * ALL // 10))


@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_a_generated_schedule_comes_to_the_same_run(seed: int, dice: Random) -> None:
    world = make_world(Random(seed))
    assert play(world, dice) == play(world)


def simulate_columns(seed: int) -> str:
    """As `simulate`, with many sends to one node, which need no tasks of their own."""
    dice = Random(seed)
    manner = ("disturbed", "failing", "stopped")[seed % 3]
    world = make_world(dice, fatal=0.002 if manner == "failing" else 0.0)
    names = [name for name in world.plan.nodes if name != START]
    world = replace(world, limit=None, sent_to=dice.choice(names))
    calm = play(world)
    inside = replace(world, columns=True)
    wild = play(inside, dice, stop=manner == "stopped")
    if manner == "disturbed" or wild.end == "over":
        assert (wild.values, wild.versions, wild.end) == (calm.values, calm.versions, calm.end)
        assert play(inside).values == calm.values
    else:
        assert wild.end.partition(":")[0] in ("Fatal", "KeyboardInterrupt", calm.end.partition(":")[0])
    return f"{manner} {wild.end.partition(':')[0]}"


def test_sends_kept_as_columns_come_to_the_same_run() -> None:
    found = {simulate_columns(seed) for seed in range(QUICK // 10)}
    assert {"disturbed over", "failing Fatal", "stopped KeyboardInterrupt"} <= found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_more_sends_kept_as_columns_come_to_the_same_run() -> None:
    for seed in range(QUICK // 10, ALL // 10):
        simulate_columns(seed)
