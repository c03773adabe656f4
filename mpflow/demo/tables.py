"""Shows a race and its report as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from mpflow.demo.race import Race
from mpflow.demo.report import Report

PROBLEMS_SHOWN = 10


def print_race(race: Race, console: Console | None = None) -> None:
    """Print all tables, the verdict last."""
    console = console or Console()
    report = race["report"]
    console.print(_totals(report), soft_wrap=True)
    console.print(_packages(report), _complex(report), _closest(report), _problems(report))
    console.print(verdict(race), markup=False, highlight=False, soft_wrap=True)


def verdict(race: Race) -> str:
    """One line: the times, the speed-up, and that the reports are equal."""
    return (
        f"{race['report']['files']} files, {race['workers']} workers: threads {race['thread_s']:.1f} s, "
        f"processes {race['process_s']:.1f} s: {race['speed_up']:.2f} times as fast, the same report"
    )


def _totals(report: Report) -> Text:
    return Text(
        f"{report['files']:,} files, {report['lines']:,} lines, {report['tokens']:,} tokens, "
        f"{report['functions']:,} functions of a mean complexity of {report['complexity']}\n"
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        # A leading ">" sets numbers to the right.
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table


def _row(table: Table, *cells: Any) -> None:
    # Text, because a file's name or a syntax error may look like markup.
    table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in cells))


def _packages(report: Report) -> Table:
    table = _table("Largest packages", "package", ">files", ">lines", ">functions", ">mean complexity")
    for package in report["packages"]:
        _row(table, *package.values())
    return table


def _complex(report: Report) -> Table:
    table = _table("Most complex functions", "function", "where", ">complexity")
    for function in report["most_complex"]:
        _row(table, function["name"], function["where"], function["complexity"])
    return table


def _closest(report: Report) -> Table | Group:
    if not report["closest"]:
        return Group()
    table = _table(f"Closest of {report['similar_pairs']:,} similar pairs", ">similarity", "file", "file")
    for pair in report["closest"]:
        _row(table, f"{pair['similarity']:.0%}", pair["one"], pair["other"])
    return table


def _problems(report: Report) -> Table | Group:
    problems = report["problems"]
    if not problems:
        return Group()
    table = _table(f"{len(problems):,} files could not be analysed", "file", "reason")
    for problem in problems[:PROBLEMS_SHOWN]:
        _row(table, problem["path"], problem["reason"])
    if len(problems) > PROBLEMS_SHOWN:
        _row(table, f"and {len(problems) - PROBLEMS_SHOWN:,} more", "")
    return table
