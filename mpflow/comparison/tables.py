"""Shows a comparison as tables on a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mpflow.comparison.records import Comparison
from mpflow.comparison.rows import LEGEND, NODES, SETTINGS, TEXTS, break_even, node_rows, settings_rows

BAR = 10
"""The length of the longest bar, in characters."""


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print the settings with a bar for each speed-up, the nodes, and the answer last."""
    console = console or Console()
    console.print(_settings(comparison), _nodes(comparison))
    console.print(Text(LEGEND, style="dim"), Text(break_even(comparison)), soft_wrap=True)
    console.print(Text(comparison.summary, style="bold"), soft_wrap=True)


def _settings(comparison: Comparison) -> Table:
    facts = comparison.machine
    gil = "" if comparison.has_gil else " without a GIL"
    title = f"{comparison.graph}: {facts['processors']} processors, {facts['python']}{gil}"
    table = _table(title, *SETTINGS, "")
    most = max(map(comparison.speed_up, comparison.settings))
    for measurement, row in zip(comparison.settings, settings_rows(comparison), strict=True):
        bar = "\N{FULL BLOCK}" * max(1, round(BAR * comparison.speed_up(measurement) / most))
        table.add_row(*map(Text, row), Text(bar), style="bold" if measurement is comparison.fastest else None)
    return table


def _nodes(comparison: Comparison) -> Table:
    table = _table("Nodes, by what worker processes save", *NODES)
    for verdict, row in zip(comparison.verdicts, node_rows(comparison), strict=True):
        table.add_row(*map(Text, row), style="green" if verdict.gains else None)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        wraps = column in ("node", "in processes", "auto")
        table.add_column(
            column, justify="left" if column in (*TEXTS, "") else "right", overflow="fold", no_wrap=not wraps
        )
    return table
