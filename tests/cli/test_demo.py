"""``mpflow demo``: both places report the same over good and bad files, and it says so if they don't."""

import json
import os

import pytest

from mpflow import WorkerPool
from mpflow.demo.files import standard_library
from mpflow.demo.race import race


@pytest.fixture
def tree(tmp_path):
    """A few good files, near-duplicates among them, and every kind of bad one."""
    (tmp_path / "pkg").mkdir()
    body = "".join(f"def f{n}(a, b):\n    return a + b * {n} if a else b - {n}\n" for n in range(30))
    for name in ("one.py", "two.py"):
        (tmp_path / "pkg" / name).write_text(f"# {name}\n{body}")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "binary.py").write_bytes(bytes(range(256)))
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / os.fsdecode(b"caf\xe9.py")).write_text("x = 1\n")
    return tmp_path


def test_threads_and_processes_report_the_same_over_bad_files_too(call, tree):
    called = call("demo", str(tree), "--workers", "2", "--json", "-")
    assert (called.code, called.err) == (0, "")
    done = json.loads(called.out)
    report = done["report"]
    assert done["differences"] == []
    assert [p["path"] for p in report["problems"]] == ["binary.py", "broken.py", "loop.py"]
    assert report["closest"] == [{"similarity": 1.0, "one": "pkg/one.py", "other": "pkg/two.py"}]
    assert (report["files"], report["functions"]) == (6, 60)


def test_tables_and_a_file_of_json(call, tree, tmp_path_factory):
    file = tmp_path_factory.mktemp("out") / "report.json"
    called = call("demo", str(tree), "--json", str(file))
    assert called.code == 0
    for shown in ("Most complex functions", "f0", "pkg/one.py", "3 files could not be analysed", "the same report"):
        assert shown in called.out
    assert json.loads(file.read_text())["report"]["files"] == 6


def test_quiet_is_one_line(call, tree):
    called = call("demo", str(tree), "--quiet")
    assert (called.code, called.out.count("\n"), called.err) == (0, 1, "")


def test_an_empty_tree(call, tmp_path):
    called = call("demo", str(tmp_path), "-q")
    assert called.code == 0
    assert called.out.startswith("0 files")


def test_a_path_that_is_no_directory(call, tmp_path):
    called = call("demo", str(tmp_path / "absent"))
    assert called.code == 2
    assert "absent" in called.err


def test_different_reports_are_an_error_that_names_the_part(call, tree, monkeypatch):
    def unequal(*args, **kwargs):
        done = race(*args, **kwargs)
        return {**done, "differences": ["lines: 1 is not 2"]}

    monkeypatch.setattr("mpflow.demo.race.race", unequal)
    called = call("demo", str(tree))
    assert (called.code, called.out) == (1, "")
    assert "lines: 1 is not 2" in called.err


def test_as_many_processes_as_were_asked_for(tree, monkeypatch):
    made = []
    monkeypatch.setattr("mpflow.demo.race.WorkerPool", lambda workers: made.append(WorkerPool(workers)) or made[0])
    assert race(str(tree), limit=0, workers=1, show=False)["differences"] == []
    [pool] = made
    assert pool.max_workers == pool.stats()["started"] == 1


def test_some_of_the_standard_library():
    done = race(standard_library(), limit=40, workers=2, show=False)
    assert done["differences"] == []
    assert done["report"]["files"] == 40
    assert done["report"]["functions"] > 100
