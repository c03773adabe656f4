"""A Postgres server of the tests' own: on a temporary folder and socket, with no network, under an unprivileged user."""

from __future__ import annotations

import glob
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

import pytest

_FOLDER = "MPFLOW_TEST_POSTGRES"
"""The environment variable that tells child processes where the server is."""


class Server:
    """A running server. Each place has a schema of its own in its one database."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self._programs = programs

    def conninfo(self, place: Path | str) -> str:
        """How to connect to the schema of a place, which is made."""
        import psycopg

        schema = "place_" + blake2b(str(place).encode(), digest_size=8).hexdigest()
        base = f"host={self.folder} dbname=postgres user=tests"
        with psycopg.connect(base, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        return f"{base} options='-c search_path={schema}'"

    def start(self) -> None:
        settings = (
            f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off -c max_connections=50"
        )
        self._run("pg_ctl", "start", "-w", "-s", "-D", self._data, "-l", f"{self.folder}/log", "-o", settings)

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "-s", "-D", self._data, "-m", mode)

    def make(self) -> None:
        self._run("initdb", "-D", self._data, "-U", "tests", "-A", "trust", "-E", "UTF8", "--no-sync")

    def end_with(self, pid: int) -> None:
        """Stop the server and remove its folder once a process is gone, in whatever way: no test can be relied on to."""
        stop = shlex.join(self._command("pg_ctl", "stop", "-s", "-D", self._data, "-m", "immediate"))
        script = (
            f"while kill -0 {pid} 2>/dev/null; do sleep 1; done; cd /; {stop}; rm -rf {shlex.quote(str(self.folder))}"
        )
        # In a session of its own and nobody's child, so that it outlives the tests and is no leak of theirs.
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["setsid", "-f", "sh", "-c", script], check=True, **quiet)

    def _command(self, program: str, *arguments: str) -> list[str]:
        # initdb and postgres refuse to run as root.
        become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        return [*become, str(self._programs / program), *arguments]

    @property
    def _data(self) -> str:
        return f"{self.folder}/data"

    def _run(self, program: str, *arguments: str) -> None:
        command = self._command(program, *arguments)
        ran = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, close_fds=True)
        if ran.returncode:
            raise RuntimeError(f"{program} ended with {ran.returncode}: {ran.stderr or ran.stdout}")


_running: Server | None = None


def _missing() -> str:
    if _programs() is None:
        return "no Postgres server is installed: apt-get install postgresql (as .ci/run does)"
    for module in ("psycopg", "psycopg_pool"):
        if find_spec(module) is None:
            return f'{module} is not installed: pip install "mpflow-engine[postgres]"'
    if not shutil.which("setsid"):
        return "there is no setsid to start the server's end with"
    if os.geteuid() == 0 and not shutil.which("runuser"):
        return "Postgres does not run as root, and there is no runuser to become somebody else"
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        return "Postgres does not run as root, and there is no user 'postgres' to become"
    return ""


def _programs() -> Path | None:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    where = found[-1] if found else shutil.which("initdb")
    return None if where is None else Path(where).parent


def server() -> Server:
    """The server of this run of the tests, started at its first use; skips the test where there can be none."""
    global _running
    if _running is None:
        why = _missing()
        if why:
            pytest.skip(why)
        programs = _programs()
        assert programs is not None
        known = os.environ.get(_FOLDER)
        if known is not None:  # a child process of the tests
            _running = Server(Path(known), programs)
            return _running
        folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        _running = Server(folder, programs)
        _running.end_with(os.getpid())
        _running.make()
        _running.start()
        os.environ[_FOLDER] = str(folder)
    return _running
