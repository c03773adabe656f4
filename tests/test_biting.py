"""The tests bite: planted bugs are caught by those that guard against them."""

from __future__ import annotations

import pytest

from tests.biting import BUGS, Bug, is_caught


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    caught, said = is_caught(bug)
    assert caught, said
