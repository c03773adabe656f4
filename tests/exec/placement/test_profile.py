"""How often a node's calls are measured, by what was found."""

from __future__ import annotations

import pytest

from mpflow._exec.placement.profile import Profile


def measured(wall_s: float, cpu_s: float, calls: int) -> tuple[list[int], Profile]:
    """Which of so many calls are measured."""
    profile = Profile("w")
    found = []
    for call in range(calls):
        profile.left -= 1
        if profile.left < 0:
            found.append(call)
            profile.note(wall_s, cpu_s, 0.0)
    return found, profile


def test_a_quick_node_is_measured_ever_more_rarely() -> None:
    found, profile = measured(1e-6, 1e-6, 96)
    assert found == [0, 2, 6, 14, 30, 62, 94]
    assert profile.calls == 95


@pytest.mark.parametrize(("cpu_s", "apart"), [(1e-3, 1), (2e-4, 4), (1e-6, 32)])
def test_a_node_that_takes_a_while_is_measured_for_what_it_computes(cpu_s: float, apart: int) -> None:
    found, _ = measured(2e-3, cpu_s, 100)
    assert found == [*range(7), *range(7, 100, apart)]
