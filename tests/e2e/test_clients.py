"""The clients in docs/clients (client_drivers.py) have the behaviours in clients/behaviours.yaml, tested against a server
that misbehaves (clients/scripted.py). summary.py prints the results as a table."""

import json
import os
import re
import time
from urllib.parse import quote

import pytest
import yaml

from client_drivers import Driver
from languages import CLIENTS, DRIVERS, EXAMPLES, LANGUAGES, sh, version
from ports import free_port
from wait import until

with open(os.path.join(DRIVERS, "behaviours.yaml"), encoding="utf-8") as table:
    BEHAVIOURS = yaml.safe_load(table)


def until_said(driver, words, expected):
    until(lambda: driver.say(*words) == expected, f"{' '.join(words)}: {expected}")


def made(driver, scripted, client):
    """Makes the client of a behaviour, with the placeholders in its URL filled in."""
    client = dict(client)
    names = {"url": scripted.url, "socket": scripted.path, "socket_encoded": quote(scripted.path, safe="")}
    url = client.pop("url", "{url}")
    url = f"http://127.0.0.1:{free_port()}" if url == "nobody" else url.format(**names)
    return driver.new(url, **client)


def same(sent, expected):
    """Checks that a request's body is the expected one; `durationMs: any` stands for any duration."""
    sent = json.loads(sent)
    if expected.get("durationMs") == "any":
        assert 0 <= sent.pop("durationMs") < 10_000
        expected = {name: value for name, value in expected.items() if name != "durationMs"}
    assert sent == expected


@pytest.mark.parametrize("language, behaviour", [
    pytest.param(name, b, id=f"{name}-{b['name'].replace(' ', '_')}")
    for b in BEHAVIOURS for name in sorted(LANGUAGES) if name not in b.get("not_for", {})], indirect=["language"])
def test_behaviour(driver, scripted, behaviour):
    for settings in behaviour.get("make", []):
        refused = driver.new(**{"url": scripted.url, **{n: v for n, v in settings.items() if "says" not in n}})
        assert refused.startswith("refused: "), settings
        assert settings.get("says", "") in refused and settings.get("not_says", "\0") not in refused
    if "do" not in behaviour:
        return
    client = behaviour.get("client", {})
    # The first call is slow where the language has a virtual machine: made here, it is not measured.
    scripted.script({"json": {"allowed": True, "counted": True}, "then": "close"})
    assert driver.new(scripted.url) == "made"
    driver.say("acquire", "warm")
    before = scripted.connections
    scripted.requests.clear()
    scripted.script(*behaviour.get("script", [{}]))
    assert made(driver, scripted, client) == "made"
    began = time.monotonic()
    for step, expected in behaviour["do"]:
        if step == "closed":
            until(lambda: scripted.closed == scripted.connections, "the server has closed all connections")
            continue
        command, _, rest = step.partition(" ")
        if command == "until":
            until_said(driver, rest.split(" "), expected)
            continue
        words = [command, *rest.split(" ")] + (["1"] if command == "many" else [])
        assert re.sub(r" \(\d+ waited\)$", "", driver.say(*words)) == expected, step
    assert time.monotonic() - began < behaviour.get("within", 60)
    check_server(scripted, behaviour, scripted.connections - before)
    check_log(driver, behaviour)


def check_server(scripted, behaviour, connections):
    expected = behaviour.get("sent")
    if expected is not None:
        assert [r.line() for r in scripted.requests] == [e if isinstance(e, str) else e[0] for e in expected]
        for request, one in zip(scripted.requests, expected):
            if isinstance(one, str):
                assert request.body == "" or "/report" in one
            else:
                same(request.body, one[1])
    for name, value in behaviour.get("headers", {}).items():
        assert all(r.headers[name] == value for r in scripted.requests)
    if "token" not in behaviour.get("client", {}):
        assert all("authorization" not in r.headers for r in scripted.requests)
    assert len(scripted.requests) == behaviour.get("requests", len(scripted.requests))
    assert connections == behaviour.get("connections", connections)


def check_log(driver, behaviour):
    count, last = driver.log()
    if isinstance(behaviour.get("log"), int):
        assert count == behaviour["log"], last
    elif "log" in behaviour:
        assert count == 1 and behaviour["log"] in last
    assert behaviour.get("not_in_log", "\0") not in last


# The acceptance test of failing open, with the default settings.
@pytest.mark.parametrize("threads", [1, 8])
def test_a_thousand_requests_while_breakerd_hangs(driver, scripted, threads, record_property):
    scripted.script({"json": {"allowed": True, "counted": True}, "then": "close"})
    assert driver.new(scripted.url) == "made"
    driver.say("many", 50, "warm", threads)
    scripted.script({"hang": True})
    scripted.requests.clear()
    assert driver.new(scripted.url, timeout_ms="-") == "made"
    if threads > 1:  # one call finds the trouble first: each of several at once would wait for its own timeout
        assert driver.say("acquire", "orders") == "allowed - - unreachable 0 unreachable"
    began = time.monotonic()
    answer = driver.say("many", 1000, "orders", threads)
    # After each pause of a second one call tries again. More than two try only if the thousand take over two seconds.
    most = max(2, 1 + int(time.monotonic() - began))
    passed, waited = map(int, re.fullmatch(r"(\d+) passed \((\d+) waited\)", answer).groups())
    record_property("waited", waited)
    assert passed == 1000
    assert waited <= most
    assert len(scripted.requests) <= most + 1
    assert driver.log()[0] == 1


def test_threads_share_a_client(driver, language, scripted):
    """No thread gets the answer to another's request: each permit is reported exactly once."""
    scripted.script({"json": {"allowed": True, "state": "closed", "reason": "closed", "counted": True}, "numbered": True})
    assert driver.new(scripted.url) == "made"
    assert driver.say("many", 240, "orders", 8).startswith("240 passed")
    given = [n for n, r in enumerate(scripted.requests, 1) if r.target.endswith("/acquire")]
    reported = [json.loads(r.body)["permit"] for r in scripted.requests if r.target.endswith("/report")]
    assert sorted(reported) == sorted(f"p{n}" for n in given) and len(given) == 240
    assert driver.log()[0] == 0
    if language[0] != "shell":
        assert scripted.connections <= 24  # Go opens more than one a thread


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"PHP", "shell"}), indirect=True)
def test_one_of_many_tries_when_the_pause_is_over(driver, scripted):
    scripted.script({"raw": ""}, {"hang": True})
    assert driver.new(scripted.url, timeout_ms=2000, retry_ms=0) == "made"
    assert driver.say("acquire", "orders") == "allowed - - unreachable 0 unreachable"
    # C's shortest pause is a millisecond: eight threads may have finished before it is over.
    until(lambda: driver.say("many", 8, "orders", 8) == "8 passed (1 waited)" or len(scripted.requests) > 1, "the pause is over")
    assert len(scripted.requests) == 2


@pytest.mark.parametrize("language", ["Node"], indirect=True)
def test_node_finds_a_connection_that_was_closed_while_its_loop_stood_still(driver, scripted):
    scripted.script({"json": {"allowed": True, "permit": "p", "state": "closed", "reason": "closed"}, "then": "close"})
    assert driver.new(scripted.url) == "made"

    def server_has_closed():
        until(lambda: scripted.closed == scripted.connections, "the server has closed all connections")

    for _ in range(10):
        assert driver.say("busy", "orders") == "busy"
        server_has_closed()
        assert driver.say("go on") == "allowed p closed closed 0 answered"
        # Without this the next request could cross the close on its way: any client would lose it.
        server_has_closed()


@pytest.mark.parametrize("language", ["PHP"], indirect=True)
def test_php_shares_the_pause_through_apcu(language, scripted):
    """Under PHP-FPM a client object lives for one request. Here several objects of one process share the pause."""
    if "apcu" not in sh("php", "-m").split():
        assert not os.environ.get("ALL_CLIENTS"), "no APCu: scripts/install-packages clients"
        pytest.skip("no APCu")
    scripted.script({"raw": ""}, {"json": {"allowed": False, "state": "open", "reason": "open", "retryAfterMs": 5}})
    driver = Driver([language[2][0], "-d", "apc.enable_cli=1", *language[2][1:]])
    try:
        unreachable, refused = "allowed - - unreachable 0 unreachable", "refused - open open 5 answered"
        for _ in range(2):
            assert driver.new(scripted.url, retry_ms=60_000) == "made"
            assert driver.say("acquire", "orders") == unreachable
        assert len(scripted.requests) == 1
        # Another address has a pause of its own. When a pause has ended, it has for all objects.
        assert driver.new(scripted.url + "/", retry_ms=1) == "made"
        assert driver.say("acquire", "orders") == refused
        assert driver.new("unix:" + scripted.path, retry_ms=1) == "made"
        scripted.script({"raw": ""}, {"json": {"allowed": False, "state": "open", "reason": "open", "retryAfterMs": 5}})
        assert driver.say("acquire", "orders") == unreachable
        assert driver.new("unix:" + scripted.path, retry_ms=60_000) == "made"
        until_said(driver, ("acquire", "orders"), refused)
        assert driver.say("acquire", "orders") == refused
    finally:
        driver.end()


def test_the_example_in_the_readme(language, scripted, directory):
    folder, mark, name, run = EXAMPLES[language[0]]
    with open(os.path.join(CLIENTS, folder, "README.md"), encoding="utf-8") as readme:
        examples = re.findall(rf"^```{mark}\n(.*?)^```$", readme.read(), re.DOTALL | re.MULTILINE)
    source = os.path.join(directory, name)
    with open(source, "w", encoding="utf-8") as file:
        file.write(examples[-1].replace("http://127.0.0.1:8747", scripted.url))
    scripted.script({"json": {"allowed": True, "permit": "p", "state": "closed", "reason": "closed"}}, {"json": {"counted": True}})
    assert run(language[3], source) == "passed\n"
    assert [r.line() for r in scripted.requests] == ["POST /v1/circuits/orders/acquire", "POST /v1/circuits/orders/report"]
    scripted.script({"json": {"allowed": False, "state": "open", "reason": "open", "retryAfterMs": 12345}})
    assert run(language[3], source) == "refused for 12345 ms\n"


VERSIONS = {
    "c/breakerd-client.pc.in": r"^Version: (.*)$",
    "c/breakerd.h": r'^#define BREAKER_VERSION\s+"(.*)"$',
    "go/breakerd.go": r'^const Version = "(.*)"$',
    "go/README.md": r"breakerd@v([0-9.]+)",
    "java/pom.xml": r"^  <version>(.*)</version>$",
    "java/README.md": r"breakerd-client:([0-9.]+)",
    "java/src/main/java/breakerd/Client.java": r'String VERSION = "(.*)";',
    "node/package.json": r'^  "version": "(.*)",$',
    "php/composer.json": r'^    "version": "(.*)",$',
    "php/README.md": r'"breakerd/client": "(.*)"',
    "python/pyproject.toml": r'^version = "(.*)"$',
    "python/breakerd/__init__.py": r'^__version__ = "(.*)"$',
    "shell/breakerd.sh": r"^BREAKER_VERSION=(.*)$",
    "stoma/package.json": r'^  "version": "(.*)",$',
}


@pytest.mark.parametrize("file", sorted(VERSIONS))
def test_packages_bear_the_version_of_the_daemon(file):
    with open(os.path.join(CLIENTS, file), encoding="utf-8") as text:
        assert re.findall(VERSIONS[file], text.read(), re.MULTILINE) == [version()]


def test_every_package_is_tested_for_its_version():
    packages = {name for name in os.listdir(CLIENTS) if os.path.isdir(os.path.join(CLIENTS, name))}
    assert packages - {"demo", "five-operations"} == {file.split("/")[0] for file in VERSIONS}
