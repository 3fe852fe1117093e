"""A pytest plugin for the clients in docs/clients. Each is installed from its package and driven by a small program in its
own language (clients/driver.*). A language whose tools are missing fails; those in HEAVY are skipped instead, unless
ALL_CLIENTS is set."""

import fcntl
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading

import pytest

from breakerd import environment

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "clients"))
# pylint: disable=wrong-import-position
from languages import HEAVY, LANGUAGES, sh  # noqa: E402
from scripted import Scripted  # noqa: E402

DEADLINE = 60  # seconds for a driver's answer


class Driver:
    """A driver program. clients/driver.py describes the commands and the answers."""

    def __init__(self, command):
        # Nobody listens at the proxy: a client that uses one fails. Keys need a locale in UTF-8.
        env = {"http_proxy": "http://127.0.0.1:9", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=environment(env), encoding="utf-8")
        self.complaints, self.answers = [], queue.SimpleQueue()
        self.readers = [threading.Thread(target=lambda: self.complaints.extend(self.process.stderr)),
                        threading.Thread(target=self._read)]
        for reader in self.readers:
            reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.answers.put(line.rstrip("\n"))
        self.answers.put("")

    def say(self, *words):
        self.process.stdin.write("\t".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        try:
            answer = self.answers.get(timeout=DEADLINE)
        except queue.Empty:
            self.process.kill()
            raise AssertionError(f"no answer to {words} within {DEADLINE} s") from None
        assert answer, f"the driver died: {''.join(self.complaints)}"
        return answer

    def new(self, url="-", token="-", timeout_ms=9000, retry_ms="-"):
        return self.say("new", url, token, timeout_ms, retry_ms)

    def log(self):
        count, _, last = self.say("log").partition(" ")
        return int(count), last

    def end(self):
        self.process.stdin.close()
        try:
            status = self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            for reader in self.readers:
                reader.join()
        assert status == 0, "".join(self.complaints)
        assert not self.complaints


@pytest.fixture(scope="session", params=sorted(LANGUAGES))
def language(request, tmp_path_factory):
    """(name, version, command of the driver, where the package is installed)"""
    name = request.param
    tool, ask, build = LANGUAGES[name]
    if shutil.which(tool) is None:
        if name in HEAVY and not os.environ.get("ALL_CLIENTS"):
            pytest.skip(f"no {tool} on this machine")
        pytest.fail(f"no {tool} on this machine: scripts/install-packages test clients")
    # Several pytest processes may want the package: the lock lets only the first one build it.
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    to = os.path.join(root, f"client-{name}")
    with open(f"{to}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(f"{to}.json"):
            shutil.rmtree(to, ignore_errors=True)
            os.mkdir(to)
            with open(f"{to}.new", "w", encoding="utf-8") as command:
                json.dump(build(to), command)
            os.rename(f"{to}.new", f"{to}.json")
    with open(f"{to}.json", encoding="utf-8") as command:
        return name, re.search(r"\d+(\.\d+)+", sh(*ask)).group(), json.load(command), to


@pytest.fixture
def start_driver(language, record_property):
    """start_driver(): a driver program of the language; all of them end with the test."""
    record_property("version", language[1])
    drivers = []

    def start_one():
        drivers.append(Driver(language[2]))
        return drivers[-1]

    yield start_one
    for driver in drivers:
        driver.end()


@pytest.fixture
def driver(start_driver):
    return start_driver()


@pytest.fixture
def scripted(directory):
    server = Scripted(directory)
    yield server
    server.stop()
