"""A hostile page in a real browser, Debian's Chromium, cannot read or change a circuit.

Each attack is also made on a target that permits everything, and must reach it. This shows that the browser
itself does not stop it: all addresses are loopback, so that the browser's protection of local networks does
not apply, and the page's site is not one that the browser insists on reaching over TLS."""

import os
import re

import pytest

from browser import CHROMIUM, Permissive, Resolver, Site, visiting
from contract import expect, path
from wait import until

pytestmark = pytest.mark.skipif(not CHROMIUM and not os.environ.get("ALL_CLIENTS"),
                                reason="no chromium on this machine")
TOKEN = "s3cret-Token"


class Target:
    """A daemon with a circuit that the page attacks."""

    def __init__(self, daemon, headers):
        self.daemon = daemon
        self.port = daemon.address[1]
        self.headers = headers
        self.read = 0
        for _ in range(3):
            self.ask("POST", path("victim", "failure"))
        expect(self.ask("POST", path("victim", "transition"), {"to": "open"}), state="open")
        self.before = self.state()
        self.take()

    def ask(self, method, route, body=b""):
        return self.daemon.request(method, route, headers=self.headers, body=body)

    def state(self):
        answer = self.ask("GET", "/v1/circuits")
        assert answer.status == 200 and b"victim" in answer.body
        return answer.body

    def take(self):
        """(method, path, status) of the requests logged since the last call."""
        text = self.daemon.stderr()
        text, self.read = text[self.read:text.rindex("\n") + 1], text.rindex("\n") + 1
        found = re.findall(r' http_request method=(\S+) path="([^"]*)" status=(\d+)', text)
        return [(method, route, int(status)) for method, route, status in found]

    def counted(self, status):
        """How many requests were answered with this status."""
        answer = self.ask("GET", "/metrics").body.decode("utf-8")
        return sum(int(n) for n in re.findall(
            rf'^breakerd_http_requests_total{{.*status="{status}".*}} (\d+)$', answer, re.MULTILINE))


@pytest.fixture
def permissive():
    target = Permissive()
    with target.served() as target.port:
        yield target


@pytest.fixture
def targets(start, directory, permissive):
    """{name: target}: a server that permits everything, a daemon, and a daemon with a token."""
    with open(f"{directory}/token", "w", encoding="ascii") as file:
        file.write(TOKEN)
    return {
        "permissive": permissive,
        "daemon": Target(start(log_level="debug"), {}),
        "token": Target(start(log_level="debug", token_file=f"{directory}/token"),
                        {"Authorization": f"Bearer {TOKEN}"}),
    }


class Attempt:
    def __init__(self, read, requests):
        self.read = read
        # The browser itself asks for an icon of what it shows in a window.
        self.requests = [r for r in requests if r[1] != "/favicon.ico"]

    def __repr__(self):
        return f"<{self.requests} read {self.read!r}>"


def attempts(site, loaded, target_of):
    """{target: {attack: Attempt}} from the page's reports, until the page reports "over"."""
    out = {}
    while True:
        said = site.reports.get(timeout=60)
        if said["attack"] == "over":
            site.done()
            return out
        if said["attack"] == "loaded":
            loaded()
        else:
            target = target_of(said["target"])
            requests = target.take()
            if not requests:  # a page does not learn when its beacon has arrived
                try:
                    until(lambda: requests.extend(target.take()) or requests, "the target is asked", 5)
                except AssertionError:
                    pass  # check() fails, and names the attack
            out.setdefault(said["target"], {})[said["attack"]] = Attempt(said["read"], requests)
        site.done()


# /healthz accepts any Host, so this attack is not refused for a foreign name.
PROBE = "read health"


def check(targets, done, status, may_read, probed):
    """done: {name of the target: {attack: Attempt}}; status: of every answer, but for PROBE;
    may_read(text): whether the page may see this text; probed: the status that PROBE gets."""
    control = done["permissive"]
    assert len(control) > 35
    for attack, attempt in control.items():
        assert attempt.requests and attempt.requests[-1][0] != "other", (attack, attempt)
        assert not attack.startswith("read") or "secret" in attempt.read, (attack, attempt)
    for name in ("daemon", "token"):
        assert done[name].keys() == control.keys()
        for attack, attempt in done[name].items():
            # There may be more requests: after a 421 the browser tries once more.
            asked = [request[:2] for request in attempt.requests]
            assert control[attack].requests[0][:2] in asked, (attack, attempt)
            want = probed if attack == PROBE else status
            assert {request[2] for request in attempt.requests} == {want}, (attack, attempt)
            assert may_read(attempt.read), (attack, attempt)
        target = targets[name]
        assert target.counted(status) >= sum(len(made.requests) for attack, made in
                                             done[name].items() if attack != PROBE)
        assert target.state() == target.before


# The hosts of page and target, and the status: another site, another port of the same site, and a name that is
# not the daemon's.
ORIGINS = {
    "cross-site": ("evil.test", "127.0.0.1", 403),
    "cross-site-name": ("evil.test", "localhost", 403),
    "same-site": ("localhost", "localhost", 403),
    "same-site-address": ("127.0.0.1", "127.0.0.1", 403),
    "other-name": ("evil.test", "daemon.evil.test", 421),
}


@pytest.mark.parametrize("page,host,status", ORIGINS.values(), ids=ORIGINS)
def test_a_page_of_another_origin(targets, page, host, status):
    site = Site()
    urls = {f"http://{host}:{target.port}": name for name, target in targets.items()}
    with site.served() as port:
        url = f"http://{page}:{port}"
        with visiting(f"{url}/?report={url}&targets={','.join(urls)}",
                      "--host-resolver-rules=MAP *.test 127.0.0.1"):
            done = attempts(site, lambda: None, lambda url: targets[urls[url]])
    check(targets, {urls[url]: made for url, made in done.items()}, status, lambda text: text == "",
          403)


def test_a_rebound_name(targets):
    """The page's own name and port lead to the daemon, so that for the browser both have one origin: the
    page may send anything and read every answer. It reads only refusals."""
    done = {}
    for name, target in targets.items():
        site, resolver = Site(), Resolver()
        with resolver.served() as proxy, site.served() as port, \
                site.served("127.0.0.2", target.port):
            resolver.move("evil.test", target.port, "127.0.0.2")
            with visiting(f"http://evil.test:{target.port}/?report=http://evil.test:{port}",
                          f"--proxy-server=socks5://127.0.0.1:{proxy}"):
                done |= {name: made for made in attempts(
                    site, lambda: resolver.move("evil.test", target.port, "127.0.0.1"),
                    lambda _: target).values()}
    check(targets, done, 421, lambda text: "open" not in text and "failureCount" not in text,
          200)
    assert "misdirected_request" in done["daemon"]["read"].read


def test_a_person_may_look(start):
    """The daemon's address, typed into the address bar, leads to /ui."""
    daemon = start(log_level="debug")
    with visiting(f"http://127.0.0.1:{daemon.address[1]}/"):
        until(lambda: 'method=GET path="/ui" status=200' in daemon.stderr(), "/ui is answered", 30)
