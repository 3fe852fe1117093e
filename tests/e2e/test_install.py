"""make install, make uninstall, and the installed units."""

import os
import shutil
import subprocess

import pytest

from breakerd import BINARY, ROOT
from manager import built_with_systemd


def make(target, directory, **variables):
    """Runs make with a target. -o makes it install the binary under test instead of building another."""
    binary = os.path.relpath(BINARY, ROOT)
    done = subprocess.run(
        ["make", "-s", "-o", binary, f"BUILD={os.path.dirname(binary)}", f"DESTDIR={directory}",
         *([] if built_with_systemd() else ["SYSTEMD="]),
         *(f"{name}={value}" for name, value in variables.items()), target],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def files(directory):
    return {os.path.relpath(os.path.join(path, name), directory)
            for path, _, names in os.walk(directory) for name in names}


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


with_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None,
                                  reason="no systemd-analyze here")


def test_install_and_uninstall(directory):
    make("install", directory, PREFIX="/usr")
    assert files(directory) == {
        "etc/breakerd/breakerd.conf",
        "usr/bin/breakerd",
        "usr/lib/systemd/system/breakerd.service",
        *(["usr/lib/systemd/system/breakerd.socket"] if built_with_systemd() else []),
        "usr/lib/sysusers.d/breakerd.conf",
        "usr/lib/tmpfiles.d/breakerd.conf",
        "usr/share/man/man5/breakerd.conf.5",
        "usr/share/man/man8/breakerd.8",
    }
    service = read(directory, "usr/lib/systemd/system/breakerd.service")
    assert "ExecStart=/usr/bin/breakerd --config=/etc/breakerd/breakerd.conf\n" in service
    assert "@" not in service.replace("@system-service", "").replace("@privileged", "") \
        .replace("@resources", "")
    said = {line for line in service.splitlines() if not line.startswith("#")}
    assert ("Type=notify" in said) == built_with_systemd()
    assert any(line.startswith("WatchdogSec=") for line in said) == built_with_systemd()
    # The installed binary runs and accepts the installed configuration.
    subprocess.run([os.path.join(directory, "usr/bin/breakerd"), "--check-config",
                    "--config=" + os.path.join(directory, "etc/breakerd/breakerd.conf")],
                   check=True, timeout=20)

    make("uninstall", directory, PREFIX="/usr")
    assert files(directory) == {"etc/breakerd/breakerd.conf"}


def test_an_existing_configuration_stays(directory):
    conf = os.path.join(directory, "etc/breakerd/breakerd.conf")
    os.makedirs(os.path.dirname(conf))
    with open(conf, "w", encoding="utf-8") as f:
        f.write("ttl = 60\n")
    make("install", directory)
    assert read(conf) == "ttl = 60\n"
    assert "usr/local/bin/breakerd" in files(directory)


def units(directory):
    """Installs, and returns the paths of the units. Their program's path is changed to the installed one,
    because `systemd-analyze verify` looks for the program."""
    make("install", directory, PREFIX="/usr")
    where = os.path.join(directory, "usr/lib/systemd/system")
    service = os.path.join(where, "breakerd.service")
    write(service, read(service).replace("/usr/bin/breakerd",
                                         os.path.join(directory, "usr/bin/breakerd")))
    return [os.path.join(where, name) for name in sorted(os.listdir(where))]


def analyze(*args, manuals):
    env = dict(os.environ, MANPATH=os.path.join(manuals, "usr/share/man") + ":")
    return subprocess.run(["systemd-analyze", *args], env=env, capture_output=True, text=True,
                          timeout=60, check=False)


def complaints(done):
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "breakerd" in line]
    if shutil.which("man") is None:
        lines = [line for line in lines if "Command 'man " not in line]
    return lines


@with_analyze
def test_units_are_sound(directory):
    paths = units(directory)
    assert complaints(analyze("verify", *paths, manuals=directory)) == []
    # The units are sound, too, with the settings for secrets that are commented out.
    service = next(p for p in paths if p.endswith(".service"))
    text, shown = read(service), 0
    for name in ("LoadCredential", "Environment"):
        shown += text.count(f"\n#{name}=")
        text = text.replace(f"\n#{name}=", f"\n{name}=")
    assert shown == 4
    write(service, text)
    assert complaints(analyze("verify", *paths, manuals=directory)) == []
    # systemd-analyze does find mistakes.
    write(service, text.replace("WatchdogSec=", "WatchdogSecs=").replace("Restart=", "Restrat="))
    assert complaints(analyze("verify", *paths, manuals=directory)) != []


@with_analyze
def test_the_service_is_shut_in(directory):
    """systemd-analyze rates the service's exposure at 1.5 or less."""
    service = next(p for p in units(directory) if p.endswith(".service"))
    done = analyze("security", "--offline=true", "--threshold=15", service, manuals=directory)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="no systemd-sysusers here")
def test_user_and_directories(directory):
    """sysusers.d and tmpfiles.d create the user and the directory that the units name."""
    make("install", directory, PREFIX="/usr")
    for name in ("passwd", "group"):
        write(os.path.join(directory, "etc", name), "root:x:0:0:root:/root:/bin/sh\n"
              if name == "passwd" else "root:x:0:\n")
    subprocess.run(["systemd-sysusers", f"--root={directory}"], check=True, timeout=60,
                   capture_output=True)
    user = [line.split(":") for line in read(directory, "etc/passwd").splitlines()
            if line.startswith("breakerd:")][0]
    assert user[5] == "/var/lib/breakerd" and user[6].endswith("/nologin")
    service = read(directory, "usr/lib/systemd/system/breakerd.service")
    assert "\nUser=breakerd\nGroup=breakerd\n" in service
    if os.geteuid() != 0:
        return  # chown needs root
    done = subprocess.run(["systemd-tmpfiles", f"--root={directory}", "--create"], timeout=60,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = os.stat(os.path.join(directory, "run/breakerd"))
    assert str(run.st_uid) == user[2] and run.st_mode & 0o7777 == 0o755
