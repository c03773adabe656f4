"""What every test gets: a check that it left nothing behind, and the two colours of a run.

Leaks are compared around each test, and once more around each module for what its wider fixtures hold. Tests that share
the default pool because starting one for each would take too long are marked `warm_pool`: they are checked by module.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import mpflow._exec.thread
from tests.colours import AsyncRun, Run, SyncRun
from tests.leaks import Holdings, holdings, leaked

# Generated cases take the time they take, and the leak check is a function-scoped fixture that no example depends on.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
settings.register_profile("default", max_examples=50, **_COMMON)
settings.register_profile("ci", max_examples=100, derandomize=True, print_blob=True, **_COMMON)
settings.register_profile("thorough", max_examples=5_000, **_COMMON)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Thousands of processes are started here, and each would compile all that it imports if nobody wrote it down.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Idle threads wait for more work before they end; at two seconds the wait for them would outlast most tests.
mpflow._exec.thread.IDLE_S = 0.02


# Shells have what they start in the background ignore it, and then nothing of what Ctrl-C does would happen.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What importing all tests has made is no garbage: left out of collections, each of them is some twenty times shorter."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    before = holdings()
    yield
    _check(before, f"the tests of {request.node.name}")


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest, _module_leaves_nothing: None) -> Iterator[None]:
    if request.node.get_closest_marker("warm_pool"):
        yield
        return
    before = holdings()
    yield
    _check(before, "the test")


def _check(before: Holdings, who: str) -> None:
    if not leaked(before, grace_s=0.0):
        return
    # The default pool lives on by design; closing it here shows whether it gives everything back.
    pools = sys.modules.get("mpflow._exec.pools")
    if pools is not None:
        pools.shutdown_default_pool()
    lines = leaked(before)
    if lines:
        pytest.fail(f"{who} left behind:\n  " + "\n  ".join(lines), pytrace=False)


@pytest.fixture(params=[SyncRun, AsyncRun], ids=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    """Calls on a graph in either colour: ``run.invoke(graph, input)``, ``run.stream(...)``: see `tests.colours.Run`."""
    return request.param()
