"""The programs of the pages are run as they stand, in the order of their blocks, in threads and in processes."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "parallel").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = 'PLACE = "process"\n'

pytestmark = pytest.mark.warm_pool


def blocks_of(page: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the number of its first line."""
    text = page.read_text()
    return [(text.count("\n", 0, match.start(1)), match.group(1)) for match in BLOCK.finditer(text)]


@pytest.mark.parametrize("place", ["thread", "process"])
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.stem)
def test_page_runs(page: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = blocks_of(page)
    assert blocks[0][1].startswith(PLACE)
    # A script of the user's own, as far as functions, classes and their annotations can tell.
    script = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", script)
    names = vars(script)
    for line, source in blocks:
        tree = ast.parse(source.replace(PLACE, f"PLACE = {place!r}\n"), str(page))
        exec(compile(ast.increment_lineno(tree, line), str(page), "exec"), names)


def test_every_page_is_in_the_table() -> None:
    table = (DOCS / "parallel" / "README.md").read_text()
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in table] == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
