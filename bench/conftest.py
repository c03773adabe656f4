"""The `race` fixture, and the table of figures at the end of the run."""

from __future__ import annotations

import faulthandler
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench.race import HEADER, Race, Row

_rows = pytest.StashKey[list[Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--patience",
        type=float,
        default=1.0,
        help="seconds that each measurement waits for other programs to leave the processors alone",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_rows] = []
    if all(Path(arg.partition("::")[0]).resolve().is_relative_to(Path(__file__).parent) for arg in config.args):
        config.pluginmanager.unregister(name="warnings")  # which records them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            # Peers warn as they like, and the slowest take minutes.
            item.add_marker(pytest.mark.filterwarnings("ignore"))
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture
def race(request: pytest.FixtureRequest, benchmark: Any) -> Iterator[Race]:
    marker = request.node.get_closest_marker("benchmark")
    clock = time.perf_counter if marker is None else marker.kwargs.get("timer", time.perf_counter)
    patience_s = request.config.getoption("--patience")
    faulthandler.cancel_dump_traceback_later()  # slow is not hanging, here
    with ExitStack() as stack:
        # As in a program of the user's: where warnings are errors or recorded, what warns must stay in its thread.
        stack.enter_context(warnings.catch_warnings())
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        yield Race(benchmark, request.config.stash[_rows], clock, stack, patience_s)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash[_rows]
    if not rows:
        return
    cells = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    wanted = [row for row in rows if row.met is not None]
    terminalreporter.section("figures")
    for line in lines:
        terminalreporter.write_line(line)
    terminalreporter.write_line(
        f"{sum(row.met is True for row in wanted)} of {len(wanted)} figures met; {len(os.sched_getaffinity(0))} cores, "
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
