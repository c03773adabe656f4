"""Whole programs in a fresh interpreter, which can import this project."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any


def run_script(script: str, input: str = "", code: int = 0, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program given as text; fails the test if it does not end with `code`."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        input=input, capture_output=True, text=True, timeout=60, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)}, **more,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done
