"""The analysis of one file against sources small enough to count by hand."""

import math
import os
import subprocess
import sys
import tokenize
from textwrap import dedent

import pytest

from mpflow.demo.analysis import MAX_SIZE_BYTES, analyse, analyse_file, analyse_source


def of(source: str) -> dict[str, int]:
    """Complexity by function name."""
    analysis = analyse_source("m.py", dedent(source).encode())
    return {f["name"]: f["complexity"] for f in analysis["most_complex"]}


@pytest.mark.parametrize(
    "body, complexity",
    [
        ("pass", 1),
        ("if a: pass", 2),
        ("if a: pass\n    elif b: pass\n    else: pass", 3),
        ("for x in a: pass\n    else: pass", 2),
        ("while a: pass", 2),
        ("try: pass\n    except A: pass\n    except B: pass\n    finally: pass", 3),
        ("with a: pass", 1),
        ("return a and b and c or d", 4),
        ("return a if b else c", 2),
        ("return [x for x in a if x if y]", 4),
        ("return lambda: a or b", 2),
        ("match a:\n        case 1: pass\n        case _: pass", 3),
    ],
)
def test_complexity_is_one_more_than_the_decisions(body, complexity):
    assert of(f"def f():\n    {body}\n") == {"f": complexity}


def test_nested_functions_count_for_themselves():
    source = """
        class A:
            def method(self, x=1 if flag else 2):
                if self: pass
                async def inner():
                    async for _ in x:
                        while x: pass
            y = 1 if flag else 2
    """
    assert of(source) == {"A.method": 2, "A.method.inner": 3}


def test_only_the_most_complex_functions_are_kept_but_all_are_counted():
    source = "".join(f"def f{n}():\n" + "    if a: pass\n" * n + "    pass\n" for n in range(8))
    analysis = analyse_source("m.py", source.encode())
    assert [f["name"] for f in analysis["most_complex"]] == ["f7", "f6", "f5", "f4", "f3"]
    assert analysis["functions"] == 8
    assert analysis["complexity"] == sum(range(1, 9))


def test_halstead_measures():
    # Operators: return + + = ( ) def : , ; operands counted below.
    analysis = analyse_source("m.py", b"x = a + b + a\n")
    operators, operands = {"=": 1, "+": 2}, {"x": 1, "a": 2, "b": 1}
    length, vocabulary = 3 + 4, len(operators) + len(operands)
    assert analysis["tokens"] == length
    assert analysis["volume"] == round(length * math.log2(vocabulary), 1)
    assert analysis["difficulty"] == round(len(operators) / 2 * 4 / len(operands), 1)


def test_an_empty_module_has_nothing_to_measure():
    analysis = analyse_source("m.py", b"")
    assert (analysis["lines"], analysis["tokens"], analysis["volume"], analysis["signature"]) == (0, 0, 0.0, None)


@pytest.mark.parametrize("source, lines", [(b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2)])
def test_lines_are_counted_with_or_without_a_last_newline(source, lines):
    assert analyse_source("m.py", source)["lines"] == lines


def test_the_declared_encoding_is_used():
    source = "# -*- coding: latin-1 -*-\nprice = '£'\n"
    assert analyse_source("m.py", source.encode("latin-1"))["tokens"] == 3


BROKEN = {
    "syntax.py": (b"def f(:\n", "does not parse"),
    "encoding.py": (b"x = '\xff'\n", "does not parse"),
    "unknown.py": (b"# coding: no-such-thing\n", "does not parse"),
    "binary.py": (b"\x7fELF\x02\x01\x01\0\0\0", "does not parse"),
    "unfinished.py": (b"x = (1,\n", "does not parse"),
    "dedent.py": (b"if a:\n        b\n    c\n", "does not parse"),
    "deep.py": (b"x = " + b"(" * 5_000 + b")" * 5_000, "does not parse"),
    "minus.py": (b"x = " + b"-" * 50_000 + b"1", "does not parse"),
    "huge.py": (b"x = 1\n" * (MAX_SIZE_BYTES // 6 + 1), "larger than"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_does_not_parse_is_a_record(tmp_path, name):
    content, reason = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    analysis = analyse_file(str(tmp_path), name)
    assert reason in analysis["problem"]
    assert "\n" not in analysis["problem"]
    assert analysis["path"] == name
    assert analysis["signature"] is None


def test_what_cannot_be_read_is_a_record(tmp_path):
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "dangling.py").symlink_to("nowhere")
    (tmp_path / "directory.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    for name in ("loop.py", "dangling.py", "directory.py", "pipe.py", "absent.py"):
        assert "cannot be read" in analyse_file(str(tmp_path), name)["problem"]


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path):
    name = os.fsdecode(b"caf\xe9.py")
    (tmp_path / name).write_text("x = 1\n")
    assert analyse_file(str(tmp_path), name)["path"] == "caf\\xe9.py"


def test_warnings_about_the_analysed_code_are_not_ours(tmp_path):
    (tmp_path / "m.py").write_text("x = '\\d'\nassert (x, 'always true')\n")
    program = (
        f"from mpflow.demo.analysis import analyse_file; print(analyse_file({str(tmp_path)!r}, 'm.py')['problem'])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_the_node_adds_one_analysis(tmp_path):
    (tmp_path / "m.py").write_text("x = 1\n")
    update = analyse({"root": str(tmp_path), "path": "m.py"})
    assert update == {"analyses": [analyse_file(str(tmp_path), "m.py")]}


def test_equal_in_another_process_with_another_hash_seed():
    script = (
        "import json, sys; from mpflow.demo.analysis import analyse_file;print(json.dumps(analyse_file(*sys.argv[1:])))"
    )
    root, name = os.path.split(tokenize.__file__)
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script, root, name],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert '"problem": null' in outputs.pop()
