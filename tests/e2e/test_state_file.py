"""state_file: the embedded store is kept across restarts."""

import os
import stat
import time

import pytest

from breakerd import run
from contract import expect, path
from ports import free_port
from wait import until

KEYS = ("/api/users", "a b", "ключ", "100%", "..", "k" * 1024)

# A save is due 5 s after the first change since the last one.
SAVED_WITHIN = 12


@pytest.fixture
def state(directory):
    """The path of a state file in an empty directory."""
    os.mkdir(os.path.join(directory, "state"))
    return os.path.join(directory, "state", "s")


def listing(daemon):
    return sorted((c["key"], c) for c in daemon.get("/v1/circuits?limit=1000").json()["circuits"])


def files(state):
    return sorted(os.listdir(os.path.dirname(state)))


def saves(daemon):
    return daemon.metric("breakerd_state_saves_total")


def refused(state, under=(), **settings):
    """Checks that a start is refused with one line of error, and returns the line."""
    done = run(f"--listen=127.0.0.1:{free_port()}", f"--state-file={state}",
               *(f"--{k}={v}" for k, v in settings.items()), under=under)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if " error " in line]
    assert len(lines) == 1 and "start_failed" in lines[0], done.stderr
    return lines[0]


def test_a_restart_keeps_every_circuit(start, state):
    daemon = start(state_file=state)
    for n, key in enumerate(KEYS):
        for _ in range(n + 1):
            daemon.post(path(key, "failure"))
        daemon.post(path(key, "success"))
    daemon.post(path("a b", "transition"), {"to": "open"})
    daemon.post(path("..", "transition"), {"to": "half-open"})
    daemon.post(path("gone", "failure"))
    daemon.delete(path("gone"))
    before = listing(daemon)
    assert len(before) == len(KEYS)
    daemon.stop()
    assert stat.S_IMODE(os.stat(state).st_mode) == 0o600
    assert files(state) == ["s", "s.lock"]

    daemon = start(state_file=state)
    assert listing(daemon) == before
    assert "state_restored" in daemon.stderr()
    assert daemon.metric("breakerd_circuits", state="open") == 1
    assert daemon.metric("breakerd_circuits", state="closed") == len(KEYS) - 2
    expect(daemon.post(path("ключ", "failure")), failureCount=4)


def test_without_a_change_nothing_is_written(start, state):
    daemon = start(state_file=state)
    daemon.get(path("a"))
    daemon.delete(path("a"))
    daemon.post(path("a", "transition"), {"to": "open", "from": "open"})  # refused
    daemon.stop()
    assert files(state) == ["s.lock"]


@pytest.mark.slow
def test_a_killed_daemon_loses_seconds_only(start, state):
    daemon = start(state_file=state).wait_ready()  # the daemon has checked the directory
    os.mkdir(state + ".tmp")  # makes the first save fail, for root too
    daemon.post(path("kept", "transition"), {"to": "open"})
    until(lambda: daemon.metric("breakerd_state_save_errors_total") == 1, "a save fails",
          deadline=SAVED_WITHIN, step=0.05)
    assert daemon.stderr().count("state_save_failed") == 1
    expect(daemon.post(path("kept", "failure")), failureCount=1)
    os.rmdir(state + ".tmp")
    until(lambda: saves(daemon) == 1, "the file is saved", deadline=SAVED_WITHIN, step=0.05)
    assert daemon.metric("breakerd_state_last_save_timestamp_seconds") == pytest.approx(
        os.stat(state).st_mtime, abs=2)
    daemon.post(path("lost", "failure"))
    daemon.process.kill()
    daemon.expect_exit(-9)

    daemon = start(state_file=state)
    expect(daemon.get(path("kept")), state="open", failureCount=1)
    expect(daemon.get(path("lost")), failureCount=0)
    assert files(state) == ["s", "s.lock"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "later"])
def test_a_damaged_file_is_kept_aside(start, state, damage):
    daemon = start(state_file=state)
    daemon.post(path("a", "failure"))
    daemon.stop()
    with open(state, "rb") as f:
        sound = f.read()
    damaged = {
        "cut": sound[:-10],
        "flipped": sound.replace(b'"failureCount":1', b'"failureCount":3'),
        "empty": b"",
        "foreign": b"\x7fELF" + bytes(range(256)) * 100,
        "later": sound.replace(b"breakerd-state 1", b"breakerd-state 3"),
    }[damage]
    assert damaged != sound
    with open(state, "wb") as f:
        f.write(damaged)

    daemon = start(state_file=state)
    assert listing(daemon) == []
    lines = [line for line in daemon.stderr().splitlines() if " warning " in line]
    assert len(lines) == 1 and "state_damaged" in lines[0] and ".damaged" in lines[0]
    assert damage != "later" or "version is 3" in lines[0]
    with open(state + ".damaged", "rb") as f:
        assert f.read() == damaged
    assert files(state) == ["s.damaged", "s.lock"]
    daemon.post(path("b", "failure"))
    daemon.stop()
    assert [key for key, _ in listing(start(state_file=state))] == ["b"]


def test_the_time_to_live_goes_on(start, state):
    daemon = start(state_file=state)
    daemon.post(path("a", "failure"))
    written = daemon.get(path("a")).json()["lastFailureTime"] / 1000
    daemon.stop()
    until(lambda: time.time() > written + 1, "a second has passed")
    daemon = start(state_file=state, ttl=1)
    assert listing(daemon) == []
    assert "circuits=0 expired=1" in daemon.stderr()


def test_what_cannot_be_kept_is_refused_at_the_start(directory, state):
    line = refused(os.path.join(directory, "none", "s"))
    assert "none/s" in line and "No such file or directory" in line
    assert "regular file" in refused(os.path.dirname(state))
    assert os.path.isdir(os.path.dirname(state))
    os.mkfifo(state)
    assert "regular file" in refused(state)
    assert stat.S_ISFIFO(os.stat(state).st_mode)


def test_check_config_tries_the_place_as_a_start_does(directory, state):
    def check(path, **settings):
        done = run("--check-config", f"--state-file={path}",
                   *(f"--{k}={v}" for k, v in settings.items()))
        assert done.stdout == ""
        return done.returncode, done.stderr

    assert check(state) == (0, "")
    assert files(state) == []
    status, line = check(os.path.join(directory, "none", "s"))
    assert status == 1 and "none/s" in line and "No such file or directory" in line
    status, line = check(os.path.dirname(state))
    assert status == 1 and "regular file" in line
    os.mkfifo(state)
    status, line = check(state)
    assert status == 1 and "regular file" in line
    loop = os.path.join(directory, "loop")
    os.symlink(loop, loop)
    status, line = check(loop)
    assert status == 1 and "symbolic links" in line
    assert check(state, store="redis://h", **{"on-store-failure": "error"})[0] == 0


def test_check_config_beside_the_daemon_that_keeps_the_file(start, state):
    daemon = start(state_file=state)
    daemon.post(path("a", "failure"))
    daemon.stop()
    daemon = start(state_file=state)
    assert run("--check-config", f"--state-file={state}").returncode == 0
    assert [key for key, _ in listing(daemon)] == ["a"]


# Runs a program for which the modes of files hold, also as root.
BY_THE_MODES = () if os.geteuid() else ("setpriv", "--inh-caps=-dac_override,-dac_read_search",
                                        "--bounding-set=-dac_override,-dac_read_search")


def test_permissions_are_checked_at_the_start(state):
    os.chmod(os.path.dirname(state), 0o500)
    try:
        assert "Permission denied" in refused(state, BY_THE_MODES)
        done = run("--check-config", f"--state-file={state}", under=BY_THE_MODES)
        assert done.returncode == 1 and "Permission denied" in done.stderr
    finally:
        os.chmod(os.path.dirname(state), 0o700)
    with open(state, "w", encoding="utf-8"):
        os.chmod(state, 0)
    assert "Permission denied" in refused(state, BY_THE_MODES)


def test_a_lock_file_of_another_user_is_named_at_the_start_and_by_check_config(state):
    """A daemon run once as root, by hand, leaves such a lock file. --check-config makes no lock file."""
    lock = state + ".lock"
    with open(lock, "w", encoding="ascii"):
        os.chmod(lock, 0)
    done = run("--check-config", f"--state-file={state}", under=BY_THE_MODES)
    assert done.returncode == 1
    for words in (refused(state, BY_THE_MODES), done.stderr):
        assert f"{lock}: Permission denied" in words and f"user {os.getuid()}" in words
    os.unlink(lock)
    assert run("--check-config", f"--state-file={state}", under=BY_THE_MODES).returncode == 0
    assert not os.path.exists(lock)


def test_with_errors_in_place_of_a_fallback_nothing_is_kept(start, state):
    daemon = start(state_file=state, store=f"redis://127.0.0.1:{free_port()}",
                   on_store_failure="error")
    assert daemon.post(path("a", "failure")).status == 503
    daemon.stop()
    assert files(state) == []
    assert "setting_unused" in daemon.stderr()


def test_too_many_circuits_for_the_bound(start, state):
    daemon = start(state_file=state)
    daemon.post(path("open", "transition"), {"to": "open"})
    for key in "abcd":
        daemon.post(path(key, "failure"))
    daemon.post(path("a", "success"))
    daemon.stop()
    daemon = start(state_file=state, max_circuits=3)
    assert [key for key, _ in listing(daemon)] == ["a", "d", "open"]
    assert "dropped=2" in daemon.stderr()
