"""Locks: one holder at a time, and none that is dead."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from layerkit.errors import BusyError, DataError, LayerkitError
from layerkit.system import locks

HOLD = """
import sys, time
from layerkit.system import locks
with locks.lock(sys.argv[1], "a patient test"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a folder."""
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"held\n"
            yield child
        finally:
            child.kill()


def test_another_process_is_refused_and_told_who(tmp_path, holder):
    with pytest.raises(BusyError) as caught, locks.lock(tmp_path, "this test"):
        pass
    message = str(caught.value)
    assert isinstance(caught.value, LayerkitError)
    assert "\n" not in message
    for word in (str(tmp_path), "a patient test", f"process {holder.pid}", "another folder"):
        assert word in message


def test_a_killed_holder_blocks_nobody(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").exists()
    with locks.lock(tmp_path, "this test"):
        pass
    assert not list(tmp_path.iterdir())


def test_the_folder_is_made_and_left_clean(tmp_path):
    folder = tmp_path / "a" / "b"
    with locks.lock(folder, "this test"):
        assert [p.name for p in folder.iterdir()] == [".lock"]
    assert not list(folder.iterdir())


def test_an_error_in_the_block_ends_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), locks.lock(tmp_path, "this test"):
        raise ZeroDivisionError
    with locks.lock(tmp_path, "this test"):
        pass


def test_the_holder_is_named_when_the_lock_file_is_foreign(tmp_path):
    with locks.lock(tmp_path, "this test"):
        for content in (b"", b"{", b"[1]", b"\xff\xfe", b"3", b'{"what": 1}'):
            (tmp_path / ".lock").write_bytes(content)
            with pytest.raises(BusyError, match="in use by another process"):
                locks._take(tmp_path / ".lock", tmp_path)


def test_threads_take_turns(tmp_path):
    """Never two at once, though the lock file comes and goes."""
    inside, most, turns, refused = 0, 0, 0, 0
    counting = threading.Lock()

    def work():
        nonlocal inside, most, turns, refused
        for _ in range(200):
            try:
                with locks.lock(tmp_path, "a thread"):
                    with counting:
                        inside += 1
                        most = max(most, inside)
                        turns += 1
                    with counting:
                        inside -= 1
            except BusyError:
                with counting:
                    refused += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert turns + refused == 800
    assert turns >= 1
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "_lock_now", refuse)
    ran = False
    with pytest.warns(UserWarning, match="no locks"), locks.lock(tmp_path, "this test"):
        ran = True
    assert ran


def test_a_folder_that_cannot_be_made_or_locked(tmp_path):
    def refused(folder, reason):
        with pytest.raises(DataError, match=reason) as caught, locks.lock(folder, "this test"):
            pass
        assert "\n" not in str(caught.value)

    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "cannot write to .*file: File exists")
    (tmp_path / "folder" / ".lock").mkdir(parents=True)
    refused(tmp_path / "folder", "cannot write to .*folder: Is a directory")
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".lock").symlink_to(tmp_path / "precious")
    refused(tmp_path / "linked", "cannot write to .*linked: ")
    assert (tmp_path / "precious").read_text() == "kept"
    refused("a\0b", "null")
