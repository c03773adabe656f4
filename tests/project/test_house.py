"""The house rules that no linter knows: every module has its place in the layers, a purpose at its top, and a bound."""

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import mpflow

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "mpflow").rglob("*.py"))

# An optional dependency is imported in its adapter alone. Paths are prefixes below mpflow/.
ADAPTERS = {
    "rich": ("demo/", "observe/progress.py", "observe/explain.py", "comparison/tables.py"),
    "matplotlib": ("comparison/plot.py",),
    "click": ("cli/",),
    "langchain_core": (
        "interop/",
        "graph/",
        "runnables/",
        "pregel/",
        "callbacks.py",
        "observe/",
        "_engine/callbacks.py",
        "_engine/messages.py",
        "_engine/telling.py",
        "_engine/tools.py",
    ),
    "langgraph": ("interop/", "checkpoint/langgraph"),
    "cryptography": ("checkpoint/serde/ciphers.py",),
    "Crypto": ("checkpoint/serde/ciphers.py",),
    "grandalf": ("pregel/",),
    "mermaidx": ("pregel/",),
    "psycopg": ("checkpoint/postgres", "store/postgres"),
    "psycopg_pool": ("checkpoint/postgres", "store/postgres"),
    "opentelemetry": ("observe/",),
    "redis": ("cache/redis",),
}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT / "mpflow").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _pyproject() -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        tomllib = pytest.importorskip("tomli")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def test_every_module_has_its_place_in_the_layers():
    contracts = _pyproject()["tool"]["importlinter"]["contracts"]
    layers = next(c for c in contracts if c["id"] == "layers")["layers"]
    placed = {name for layer in layers for name in re.findall(r"[\w.]+", layer)}

    def is_placed(name: str) -> bool:
        return any(name == place or name.startswith(place + ".") for place in placed)

    # The package of modules in several layers belongs to none of them; it only holds their names.
    holders = {place.rpartition(".")[0] for place in placed}
    assert [name for name in map(_name, MODULES) if not is_placed(name) and name not in holders] == []


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_says_what_it_owns_and_stays_short(path: Path):
    source = path.read_text()
    assert len(source.splitlines()) <= 600
    if path.name != "__init__.py" or source.strip():
        assert ast.get_docstring(ast.parse(source)), "a module opens with one to three sentences on what it owns"


def test_optional_dependencies_stay_in_their_adapters():
    astray = {
        f"{path.relative_to(ROOT)} imports {dependency}"
        for path in MODULES
        for dependency in _imports(path) & ADAPTERS.keys()
        if not str(path.relative_to(ROOT / "mpflow")).startswith(ADAPTERS[dependency])
    }
    assert astray == set()


def test_the_version_is_said_once():
    assert _pyproject()["project"]["version"] == mpflow.__version__


def test_the_root_holds_what_it_should():
    known = {"pyproject.toml", "mpflow", "tests", "bench", "docs", "README.md", "LICENSE", "tox.ini", "build", "dist"}
    assert {p.name for p in ROOT.iterdir() if not p.name.startswith(".")} - known == set()
