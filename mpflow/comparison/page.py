"""A comparison as one HTML file that needs nothing else: tables, plot, machine, and the figures as JSON."""

from __future__ import annotations

import json
from html import escape

from mpflow.comparison.plot import draw
from mpflow.comparison.records import Comparison
from mpflow.comparison.rows import LEGEND, NODES, SETTINGS, TEXTS, break_even, node_rows, settings_rows

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; width: 100% }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
tr.best { font-weight: 600 }
.gains { color: #176f2c }
svg { max-width: 100%; height: auto }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } th, td { border-color: #444 }
  svg { background: #fff } .gains { color: #6fcf83 } }
"""


def page(comparison: Comparison) -> str:
    """The document. Raises ImportError with the install line where no plot can be drawn."""
    svg = draw(comparison, "svg").decode()
    figures = json.dumps(comparison.to_json(), default=str).replace("</", "<\\/")
    best = ["best" if measurement is comparison.fastest else "" for measurement in comparison.settings]
    gains = ["gains" if verdict.gains else "" for verdict in comparison.verdicts]
    title = escape(comparison.graph)
    facts = ", ".join(f"{escape(key)}: {escape(str(value))}" for key, value in comparison.machine.items())
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}: threads and processes</title><style>{STYLE}</style>
<h1>{title}: threads and processes</h1>
<p><strong>{escape(comparison.summary)}</strong></p>
{svg[svg.index("<svg") :]}
<h2>Settings</h2>
{_table(SETTINGS, settings_rows(comparison), best)}
<h2>Nodes</h2>
{_table(NODES, node_rows(comparison), gains)}
<p>{escape(LEGEND)} {escape(break_even(comparison))} Times are of the fastest run of each setting; the dots in the plot are all runs.</p>
<p><small>{facts}</small></p>
<script type="application/json" id="figures">{figures}</script>
</html>
"""


def _table(names: tuple[str, ...], rows: list[tuple[str, ...]], kinds: list[str]) -> str:
    def cells(tag: str, texts: tuple[str, ...]) -> str:
        return "".join(
            f"<{tag}{'' if name in TEXTS else ' class=n'}>{escape(text)}</{tag}>"
            for name, text in zip(names, texts, strict=True)
        )

    body = "\n".join(f'<tr class="{kind}">{cells("td", row)}</tr>' for kind, row in zip(kinds, rows, strict=True))
    return f"<table><tr>{cells('th', names)}</tr>\n{body}</table>"
