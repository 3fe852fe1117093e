"""make install and make uninstall, and what the units say."""

import os
import shutil
import subprocess

import pytest

from breakerd import BINARY, ROOT


def make(target, directory, **variables):
    """The binary under test is what gets installed: -o keeps make from building another."""
    binary = os.path.relpath(BINARY, ROOT)
    done = subprocess.run(
        ["make", "-s", "-o", binary, f"BUILD={os.path.dirname(binary)}", f"DESTDIR={directory}",
         *(f"{name}={value}" for name, value in variables.items()), target],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def files(directory):
    return {os.path.relpath(os.path.join(path, name), directory)
            for path, _, names in os.walk(directory) for name in names}


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def test_install_and_uninstall(directory):
    make("install", directory, PREFIX="/usr")
    assert files(directory) == {
        "etc/breakerd/breakerd.conf",
        "usr/bin/breakerd",
        "usr/lib/systemd/system/breakerd.service",
        "usr/lib/systemd/system/breakerd.socket",
        "usr/lib/sysusers.d/breakerd.conf",
        "usr/lib/tmpfiles.d/breakerd.conf",
        "usr/share/man/man5/breakerd.conf.5",
        "usr/share/man/man8/breakerd.8",
    }
    service = read(directory, "usr/lib/systemd/system/breakerd.service")
    assert "ExecStart=/usr/bin/breakerd --config=/etc/breakerd/breakerd.conf\n" in service
    assert "@" not in service.replace("@system-service", "").replace("@privileged", "") \
        .replace("@resources", "")
    # What was installed starts: with the configuration that was installed, too.
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


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_units_are_sound_and_shut_in(directory):
    make("install", directory, PREFIX="/usr")
    units = os.path.join(directory, "usr/lib/systemd/system")
    path = os.path.join(units, "breakerd.service")
    # verify looks for the program where the unit says it is.
    with open(path, "r+", encoding="utf-8") as f:
        text = f.read().replace("/usr/bin/breakerd", os.path.join(directory, "usr/bin/breakerd"))
        f.seek(0)
        f.write(text)
    env = dict(os.environ, MANPATH=os.path.join(directory, "usr/share/man") + ":")
    done = subprocess.run(["systemd-analyze", "verify", path,
                           os.path.join(units, "breakerd.socket")], env=env,
                          capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "breakerd" in line]
    assert complaints == []
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=15", path],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
