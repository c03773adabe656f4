"""From the figures of a run to a table, a plot of all ratios and one page that needs nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.race import HEADER, Row

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: left }
td.n { text-align: right; font-variant-numeric: tabular-nums }
tr.missed td.met { color: #b00020; font-weight: 600 }
svg { max-width: 100%; height: auto; background: #fff }
"""


def write_report(saved: Path, out: Path) -> Iterator[Path]:
    """Write the files of the report into `out`, yielding each. Raises OSError, ValueError if `saved` is none of a run's."""
    document = json.loads(saved.read_text())
    try:
        figures = [one for each in document["benchmarks"] for one in each["extra_info"].get("figures", ())]
        rows = [Row(**figure) for figure in figures]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the figures of a run: {type(error).__name__}: {error}") from error
    if not rows:
        raise ValueError("there are no figures in it")
    plot = _plot([row for row in rows if row.ratio is not None])
    svg = _drawn(plot, "svg")
    for name, data in (
        ("table.md", _markdown(rows).encode()),
        ("ratios.svg", svg),
        ("ratios.png", _drawn(plot, "png")),
        ("index.html", _page(document, rows, svg.decode()).encode()),
    ):
        path = out / name
        path.write_bytes(data)
        yield path


def _markdown(rows: list[Row]) -> str:
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _plot(rows: list[Row]) -> Figure:
    """How many times our time each other's is, on a logarithmic scale; what is wanted as a mark."""
    figure = Figure(figsize=(11, 1.5 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows), 0, -1)
    colours = ["tab:red" if row.met is False else "tab:blue" if (row.ratio or 0) >= 1 else "tab:gray" for row in rows]
    axes.barh(list(places), [row.ratio for row in rows], color=colours, left=0)
    for place, row in zip(places, rows, strict=True):
        if row.wanted:
            axes.plot(float(row.wanted.removeprefix(">= ")), place, "k|", markersize=10)
        axes.annotate(f" {row.ratio:.3g}", (row.ratio or 0, place), va="center", fontsize=7)
    axes.axvline(1, color="0.3", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(list(places), [f"{row.name} / {row.against}" for row in rows], fontsize=7)
    axes.set_xlabel("times our time; the line is what is wanted, red what missed it, gray a floor")
    return figure


def _drawn(figure: Figure, format: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=format)
    return file.getvalue()


def _page(document: dict[str, Any], rows: list[Row], svg: str) -> str:
    machine = document["machine_info"]
    cpu = machine.get("cpu", {})
    facts = (
        f"{cpu.get('brand_raw', machine.get('processor', ''))}, {cpu.get('count', '?')} processors, "
        f"{machine['system']} {machine['release']}, {machine['python_implementation']} {machine['python_version']}; "
        f"{document['datetime'][:16].replace('T', ' ')}"
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in (*HEADER, "our median", "its median"))
    body = "\n".join(_table_row(row) for row in rows)
    wanted = [row for row in rows if row.met is not None]
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>mpflow: benchmarks</title><style>{STYLE}</style>
<h1>mpflow: benchmarks</h1>
<p>{escape(facts)}. {sum(row.met is True for row in wanted)} of {len(wanted)} wanted ratios reached.</p>
<p>Each line sets our best time beside that of a floor or a peer, taken in turn in the same run. Medians are given as
multiples of the best; "others" is the share of the machine that other programs took meanwhile.</p>
{svg[svg.index("<svg") :]}
<table><tr>{head}</tr>
{body}</table>
</html>
"""


def _table_row(row: Row) -> str:
    spreads = ["" if spread is None else f"{spread:.2f}" for spread in (row.ours_spread, row.other_spread)]
    cells = [*row.cells(), *spreads]
    kinds = ["", "n", "", "n", "n", "n", "met", "n", "n", "n"]
    joined = "".join(
        f"<td{f' class={kind}' if kind else ''}>{escape(cell.strip('*'))}</td>"
        for kind, cell in zip(kinds, cells, strict=True)
    )
    return f'<tr class="{"missed" if row.met is False else ""}">{joined}</tr>'
