"""Which files are read, and in which order."""

import os

from mpflow.demo.files import python_files, standard_library


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_python_files_below_the_root_sorted(tmp_path):
    make(tmp_path, "b.py", "a/z.py", "a/b/c.py", "a.txt", "a/__pycache__/x.py", ".git/x.py", "site-packages/x.py")
    assert python_files(str(tmp_path)) == ["a/b/c.py", "a/z.py", "b.py"]


def test_a_limit_spreads_evenly(tmp_path):
    make(tmp_path, *(f"{n}.py" for n in range(9)))
    assert python_files(str(tmp_path), 3) == ["0.py", "3.py", "6.py"]
    assert python_files(str(tmp_path), 100) == python_files(str(tmp_path), 0)


def test_a_loop_of_links_is_not_walked(tmp_path):
    make(tmp_path, "a/m.py")
    os.symlink(tmp_path, tmp_path / "a" / "again", target_is_directory=True)
    assert python_files(str(tmp_path)) == ["a/m.py"]


def test_an_empty_directory_has_none(tmp_path):
    assert python_files(str(tmp_path)) == []


def test_the_standard_library_has_its_source():
    assert {"os.py", "json/decoder.py"} <= set(python_files(standard_library()))
