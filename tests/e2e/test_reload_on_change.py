"""reload_on_change: files are read again when they change, also when Kubernetes changes them."""

import os
import subprocess
import time

import pytest

from breakerd import run
from volume import Volume, write
from wait import until

TOKEN_A, TOKEN_B, TOKEN_C = "a" * 20, "b" * 20, "c" * 20


def works(daemon, token):
    return daemon.get("/v1/circuits", headers={"Authorization": f"Bearer {token}"}).status == 200


def reloads(daemon):
    return daemon.stderr().count(" reloaded ")


@pytest.fixture
def volume(directory):
    return Volume(os.path.join(directory, "volume"))


def has_inotify(daemon):
    fds = f"/proc/{daemon.process.pid}/fd"
    for name in os.listdir(fds):
        try:
            if "inotify" in os.readlink(f"{fds}/{name}"):
                return True
        except FileNotFoundError:
            pass  # closed since
    return False


def test_a_rotated_secret_is_obeyed_within_two_seconds(start, volume):
    volume.put(token=TOKEN_A, conf=f"token_file = {volume / 'token'}\nreload_on_change = yes\n")
    daemon = start(config=volume / "conf")
    assert works(daemon, TOKEN_A) and not works(daemon, TOKEN_B)
    for turn, token in enumerate((TOKEN_B, TOKEN_C, TOKEN_A), 1):
        volume.put(token=token, conf=f"token_file = {volume / 'token'}\nreload_on_change = yes\n")
        began = time.monotonic()
        until(lambda t=token: works(daemon, t), "the new token is valid", 10)
        assert time.monotonic() - began < 2
        assert reloads(daemon) == turn
    assert "reloaded file=%s why=change" % (volume / "conf") in daemon.stderr()
    assert not works(daemon, TOKEN_B)


def test_off_by_default(start, volume):
    volume.put(token=TOKEN_A)
    daemon = start(token_file=volume / "token")
    assert not has_inotify(daemon)
    volume.put(token=TOKEN_B)
    daemon.hangup()
    until(lambda: works(daemon, TOKEN_B), "SIGHUP reads the new token")
    assert "why=SIGHUP" in daemon.stderr()


def replace(path, text):
    write(path + ".new", text)
    os.rename(path + ".new", path)


def overwrite(path, text):
    write(path, text)


def unlink_and_write(path, text):
    os.unlink(path)
    write(path, text)


def link_elsewhere(path, text):
    other = f"{path}-{text[0]}"
    write(other, text)
    os.symlink(other, path + ".new")
    os.rename(path + ".new", path)


@pytest.mark.parametrize("change", [replace, overwrite, unlink_and_write, link_elsewhere])
def test_each_way_to_change_a_file(start, directory, change):
    token = f"{directory}/token"
    write(token, TOKEN_A)
    daemon = start(token_file=token, reload_on_change="yes")
    for text in (TOKEN_B, TOKEN_C):
        change(token, text)
        until(lambda t=text: works(daemon, t), "the new token is valid")


def test_a_directory_on_the_way_is_replaced(start, directory):
    os.makedirs(f"{directory}/one/two")
    write(f"{directory}/one/two/token", TOKEN_A)
    os.symlink("one/two", f"{directory}/way")
    daemon = start(token_file=f"{directory}/way/token", reload_on_change="yes")
    os.mkdir(f"{directory}/other")
    write(f"{directory}/other/token", TOKEN_B)
    os.symlink("other", f"{directory}/way.new")
    os.rename(f"{directory}/way.new", f"{directory}/way")
    until(lambda: works(daemon, TOKEN_B), "the token in the other directory is valid")
    os.rename(f"{directory}/other", f"{directory}/gone")
    until(lambda: "reload_refused" in daemon.stderr(), "a reload without the file is refused")
    assert works(daemon, TOKEN_B), "the old token is not valid any more"
    os.makedirs(f"{directory}/other")
    write(f"{directory}/other/token", TOKEN_C)
    until(lambda: works(daemon, TOKEN_C), "the token is valid when the file is there again")


@pytest.mark.parametrize("moved", ["one", "one/two", "one/two/three"])
def test_a_directory_on_the_way_is_moved(start, directory, moved):
    """Another directory takes its place, then the first one is put back."""
    token = f"{directory}/one/two/three/token"
    os.makedirs(os.path.dirname(token))
    write(token, TOKEN_A)
    daemon = start(token_file=token, reload_on_change="yes")
    os.rename(f"{directory}/{moved}", f"{directory}/aside")
    os.makedirs(os.path.dirname(token))
    write(token, TOKEN_B)
    until(lambda: works(daemon, TOKEN_B), "the token in the new directory is valid")
    os.rename(f"{directory}/{moved}", f"{directory}/other")
    os.rename(f"{directory}/aside", f"{directory}/{moved}")
    until(lambda: works(daemon, TOKEN_A), "the token in the first directory is valid")
    replace(token, TOKEN_C)
    until(lambda: works(daemon, TOKEN_C), "the first directory is watched")


def test_a_bad_file_is_refused_once_and_the_next_good_one_taken(start, directory):
    conf = f"{directory}/conf"
    write(conf, "reload_on_change = yes\nmax_body = 1000\n")
    daemon = start(config=conf)
    replace(conf, "nonsense\n")
    until(lambda: "reload_refused" in daemon.stderr(), "the bad file is refused")
    replace(conf, "reload_on_change = yes\nmax_body = 2000\n")
    until(lambda: reloads(daemon) == 1, "the good file is loaded")
    assert daemon.stderr().count("reload_refused") == 1
    assert has_inotify(daemon)
    replace(conf, "reload_on_change = no\n")
    until(lambda: reloads(daemon) == 2, "reload_on_change = no is loaded")
    assert not has_inotify(daemon), "files are still watched"


def test_watches_follow_the_settings(start, directory):
    conf, first, second = (f"{directory}/{name}" for name in ("conf", "first", "second"))
    write(first, TOKEN_A)
    os.mkdir(f"{directory}/elsewhere")
    second = f"{directory}/elsewhere/second"
    write(second, TOKEN_B)
    write(conf, f"reload_on_change = yes\ntoken_file = {first}\n")
    daemon = start(config=conf)
    replace(conf, f"reload_on_change = yes\ntoken_file = {second}\n")
    until(lambda: works(daemon, TOKEN_B), "the second file's token is valid")
    replace(second, TOKEN_C)
    until(lambda: works(daemon, TOKEN_C), "the second file is watched")
    count = reloads(daemon)
    replace(first, TOKEN_C)
    replace(second, TOKEN_A)
    until(lambda: works(daemon, TOKEN_A), "the second file is still watched")
    assert reloads(daemon) == count + 1, "the first file is still watched"


def test_a_flood_of_changes_is_a_handful_of_reloads(start, directory):
    """In one directory other files come and go, and the token changes all the time."""
    token = f"{directory}/token"
    write(token, TOKEN_A)
    daemon = start(token_file=token, reload_on_change="yes")

    def used():
        with open(f"/proc/{daemon.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, began, changes = used(), time.monotonic(), 0
    while time.monotonic() - began < 3:
        for i in range(100):
            write(f"{directory}/other-{i}", "x")
            os.unlink(f"{directory}/other-{i}")
        changes += 200
        replace(token, TOKEN_A if changes % 400 else TOKEN_B)
    assert daemon.get("/healthz").status == 200
    took = time.monotonic() - began
    assert changes > 1000
    assert used() - before < 0.1 * took, "more than a tenth of a core"
    assert reloads(daemon) >= 1, "no reload before the flood's end"
    replace(token, TOKEN_C)
    until(lambda: works(daemon, TOKEN_C), "the last token is valid")
    assert 1 <= reloads(daemon) <= took + 4, "more than one reload a second"


def test_other_files_of_the_directory_reload_nothing(start, directory):
    token = f"{directory}/token"
    write(token, TOKEN_A)
    daemon = start(token_file=token, reload_on_change="yes")
    replace(token, TOKEN_B)
    until(lambda: works(daemon, TOKEN_B), "the new token is valid")
    # Long enough for five checks (FILE_WATCH_CHECK_MS).
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        write(f"{directory}/other", "x")
        assert reloads(daemon) == 1, daemon.stderr()


def test_without_inotify_files_are_looked_at(start, directory):
    """inotify fails, as if the user had all instances in use. Then the files are checked every second."""
    forbid = ["unshare", "--user", "--map-root-user", "sh", "-c",
              'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"', "sh"]
    if subprocess.run([*forbid, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    token = f"{directory}/token"
    write(token, TOKEN_A)
    daemon = start(token_file=token, reload_on_change="yes", under=forbid)
    until(lambda: "watch_failed reason=" in daemon.stderr(), "watch_failed is logged")
    replace(token, TOKEN_B)
    until(lambda: works(daemon, TOKEN_B), "the new token is valid")


def whole(directory):
    write(f"{directory}/token", TOKEN_A)
    return f"reload_on_change = yes\ntoken_file = {directory}/token\n[policy pay]\nkeys = pay*\n"


def test_a_file_amid_its_writing_is_left(start, directory):
    """A file is not read while a program is writing it, although other files in the directory change and the writer
    pauses for longer than FILE_WATCH_BOUND_MS."""
    conf = f"{directory}/conf"
    write(conf, whole(directory))
    daemon = start(config=conf)
    with open(conf, "w", encoding="ascii") as file:
        file.write("reload_on_change = yes\nmax_body = 2000\n")
        file.flush()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            write(f"{directory}/other", "x")
            assert daemon.get("/v1/policies").status == 401
        file.write(whole(directory).partition("\n")[2])
    until(lambda: reloads(daemon) == 1, "the file is loaded once it is closed")
    assert daemon.get("/v1/policies").status == 401 and works(daemon, TOKEN_A)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "[breakerd]\n"])
def test_a_file_that_becomes_empty_is_refused(start, directory, text):
    conf = f"{directory}/conf"
    write(conf, whole(directory))
    daemon = start(config=conf)
    with open(conf, "w", encoding="ascii") as file:
        file.write(text)
    until(lambda: "it sets nothing any more" in daemon.stderr(), "the empty file is refused")
    assert daemon.get("/v1/policies").status == 401 and reloads(daemon) == 0
    with open(conf, "w", encoding="ascii") as file:
        file.write(whole(directory) + "open_time = 5s\n")
    until(lambda: reloads(daemon) == 1, "the whole file is loaded")
    assert daemon.get("/v1/policies").status == 401 and works(daemon, TOKEN_A)
    with open(conf, "w", encoding="ascii") as file:
        file.write(text)
    until(lambda: daemon.stderr().count("it sets nothing any more") == 2, "the empty file is refused again")
    daemon.hangup()
    until(lambda: reloads(daemon) == 2, "SIGHUP loads the empty file")
    assert daemon.get("/v1/policies").status == 200


def test_what_a_reload_takes_away_is_said(start, directory):
    conf = f"{directory}/conf"
    write(conf, whole(directory))
    daemon = start(config=conf)
    write(conf, "max_body = 2000\n")
    until(lambda: reloads(daemon) == 1, "the shorter file is loaded")
    assert "warning token_gone " in daemon.stderr() and "warning watch_ended " in daemon.stderr()
    write(conf, whole(directory))
    daemon.hangup()
    until(lambda: reloads(daemon) == 2, "the whole file is loaded")
    assert daemon.stderr().count(" token_gone ") == 1


def test_check_config_knows_it():
    done = run("--check-config", "--reload-on-change=maybe")
    assert done.returncode == 1 and "yes" in done.stderr and "no" in done.stderr
