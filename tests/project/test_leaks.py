"""The leak check sees each kind of thing that a test can leave behind, and lets what ends in time go."""

import mmap
import os
import select
import subprocess
import sys
import threading

import pytest

from tests.leaks import holdings, leaked

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_nothing_new_is_no_leak():
    assert leaked(holdings()) == []


def test_names_a_thread_and_lets_it_go_once_it_ended():
    before, go = holdings(), threading.Event()
    thread = threading.Thread(target=go.wait, name="left-over")
    thread.start()
    try:
        assert leaked(before, grace_s=0.0) == ["thread 'left-over' (runs Event.wait)"]
    finally:
        go.set()
    assert leaked(before) == []
    thread.join()


@linux
def test_names_a_child_and_its_own_child():
    before = holdings()
    script = "import subprocess, sys; subprocess.Popen(['cat'], stdin=0); print(1, flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        found = [line for line in leaked(before, grace_s=0.0) if line.startswith("process")]
        assert len(found) == 2
        assert any(line.endswith(": cat") for line in found)
    finally:
        child.communicate()
    assert leaked(before) == []


@linux
def test_names_an_unreaped_child():
    before = holdings()
    pid = os.posix_spawn("/bin/true", ["true"], {})
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert leaked(before, grace_s=0.0) == [f"process {pid}: ended, but nobody has waited for it"]
    finally:
        os.waitpid(pid, 0)


@linux
def test_names_a_descriptor_and_one_reopened_on_something_else():
    fd = os.open("/dev/null", os.O_RDONLY)
    before = holdings()
    other = os.open("/dev/zero", os.O_RDONLY)
    try:
        os.dup2(other, fd)
        assert sorted(leaked(before, grace_s=0.0)) == sorted(f"descriptor {n}: /dev/zero" for n in (fd, other))
    finally:
        os.close(other)
        os.close(fd)


@linux
def test_names_a_mapping_that_outlives_its_descriptor():
    before = holdings()
    fd = os.memfd_create("left-over")
    os.ftruncate(fd, mmap.PAGESIZE)
    mapping = mmap.mmap(fd, mmap.PAGESIZE)
    os.close(fd)
    try:
        mapping[0] = 1
        assert "shared memory mapped: /memfd:left-over (deleted)" in leaked(before, grace_s=0.0)
    finally:
        mapping.close()
    assert leaked(before) == []


@linux
@pytest.mark.parametrize("name", ["mpflow-test-{}-x", "joblib_memmapping_folder_{}_abc"])
def test_names_shared_memory_with_our_process_id_and_no_other(name):
    before = holdings()
    ours, theirs = (f"/dev/shm/{name.format(pid)}" for pid in (os.getpid(), 1))
    for path in (ours, theirs):
        open(path, "w").close()
    try:
        assert leaked(before, grace_s=0.0) == [f"shared memory {ours}"]
    finally:
        os.unlink(ours)
        os.unlink(theirs)


@linux
def test_anonymous_shared_memory_is_ours_unless_another_process_maps_it():
    script = (
        "import mmap, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)\n"
        "os.ftruncate(fd, 4096); mapping = mmap.mmap(fd, 4096)\n"
        "pid = os.fork()\n"
        "print(pid, flush=True) if pid else (os.setsid(), sys.stdin.read())\n"
    )
    path = f"/dev/shm/psm_{os.urandom(4).hex()}x"
    before = holdings()
    # The one that maps it is a grandchild whose parent has ended: not ours any more.
    child = subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        grandchild = os.pidfd_open(int(child.stdout.readline()))
        child.wait()
        assert not [line for line in leaked(before, grace_s=0.0) if "shared memory" in line]
        child.stdin.close()
        select.select([grandchild], [], [], 30)
        assert f"shared memory {path}" in leaked(before, grace_s=0.0)
    finally:
        os.close(grandchild)
        child.stdin.close()
        child.stdout.close()
        os.unlink(path)


def test_cycles_that_hold_descriptors_are_collected_first():
    class Holder:
        def __init__(self):
            self.me = self
            self.file = open(os.devnull, "rb", buffering=0)

        def __del__(self):
            self.file.close()

    before = holdings()
    Holder()
    assert leaked(before) == []
