"""The programs of the page about savers are run as they stand, in the order of their blocks."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.test_pages import DOCS, blocks_of


def test_the_page_about_savers_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("Crypto.Cipher.AES")
    monkeypatch.chdir(tmp_path)
    script = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", script)
    page = DOCS / "persistence.md"
    for line, source in blocks_of(page):
        exec(compile("\n" * line + source, str(page), "exec"), vars(script))
