"""The progress bar counts, draws only on a terminal, and leaves stdout to the user."""

import subprocess
import sys

import pytest

from mpflow.observe.progress import Progress


def test_counts_what_is_expected_and_finished():
    with Progress("tasks", show=False) as progress:
        progress.expect(3)
        progress.expect(2)
        progress.advance()
        progress.advance(2)
    assert (progress.expected, progress.finished) == (5, 3)


def test_draws_on_stderr_and_closes_twice(capfd):
    pytest.importorskip("rich")
    with Progress("some tasks", show=True) as progress:
        progress.expect(2)
        progress.advance(2)
        print("the user's own line")
    progress.close()
    out, err = capfd.readouterr()
    assert out == "the user's own line\n"
    assert "some tasks" in err
    assert "2/2" in err


def test_silent_and_without_rich_if_stderr_is_no_terminal():
    script = (
        "import sys\n"
        "from mpflow.observe.progress import Progress\n"
        "with Progress('tasks') as progress:\n"
        "    progress.expect(1); progress.advance()\n"
        "print('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
