"""The report is a function of the set of analyses."""

import random

from mpflow.demo.analysis import analyse_file, analyse_source
from mpflow.demo.report import KEPT, differences, summarise


def some_analyses(tmp_path):
    found = [
        analyse_source(f"p{n % 3}/m{n}.py", f"def f{n}():\n    return {' or '.join('ab' * (n + 1))}\n".encode())
        for n in range(15)
    ]
    found.append(analyse_source("top.py", b"x = 1\n"))
    found.append(analyse_file(str(tmp_path), "absent.py"))
    return found


def test_order_does_not_matter(tmp_path):
    analyses = some_analyses(tmp_path)
    expected = summarise(analyses, [])
    for seed in range(5):
        random.Random(seed).shuffle(analyses)
        assert summarise(analyses, []) == expected


def test_totals_extremes_and_problems(tmp_path):
    report = summarise(some_analyses(tmp_path), [(0.75, "a.py", "b.py")])
    assert (report["files"], report["lines"], report["functions"]) == (17, 31, 15)
    assert report["most_complex"][0] == {"where": "p2/m14.py:1", "name": "f14", "complexity": 30}
    assert len(report["most_complex"]) == KEPT
    assert [(p["name"], p["files"], p["lines"]) for p in report["packages"]] == [
        ("p0", 5, 10),
        ("p1", 5, 10),
        ("p2", 5, 10),
        (".", 1, 1),
    ]
    assert report["closest"] == [{"similarity": 0.75, "one": "a.py", "other": "b.py"}]
    assert [p["path"] for p in report["problems"]] == ["absent.py"]


def test_nothing_found_is_a_report_too():
    report = summarise([], [])
    assert (report["files"], report["complexity"], report["packages"], report["problems"]) == (0, 0.0, [], [])


def test_differences_name_the_part(tmp_path):
    report = summarise(some_analyses(tmp_path), [])
    assert differences(report, report) == []
    assert differences(report, {**report, "lines": 30}) == ["lines: 31 is not 30"]
