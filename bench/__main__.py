"""``python -m bench [--out DIR] [PYTEST ARGUMENTS]``: runs every measurement, then writes table, plots and page into DIR.

DIR (default ``build/bench``, which git ignores) then holds ``figures.json`` as pytest-benchmark saves it, ``table.md``,
``ratios.svg``, ``ratios.png`` and ``index.html``. With ``--from FILE`` nothing runs: the report is made from an old file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from bench.report import write_report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="the folder of the report")
    parser.add_argument("--from", dest="saved", type=Path, help="a saved figures.json; nothing is run")
    options, rest = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    saved, code = options.saved, 0
    if saved is None:
        saved = options.out / "figures.json"
        chosen = [argument for argument in rest if not argument.startswith("-")]
        code = int(pytest.main([*([] if chosen else ["bench"]), *rest, f"--benchmark-json={saved}"]))
    try:
        for path in write_report(saved, options.out):
            print(path)
    except (OSError, ValueError) as error:
        print(f"no report of {saved}: {error}", file=sys.stderr)
        return code or 1
    return code


if __name__ == "__main__":
    sys.exit(main())
