"""A hostile page in a real browser, Debian's Chromium: it cannot read or change a circuit.

Each attack is also made on a target that permits everything, which must see it. So nothing here is refused
by the browser alone: all addresses are loopback ones, between which its own protection of local
networks sees no border, and the page is not of a site that it would ask for by TLS."""

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
    """A daemon with a circuit that pages are after."""

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
        """(method, path, status) of the requests since the last time, as they are logged."""
        text = self.daemon.stderr()
        text, self.read = text[self.read:text.rindex("\n") + 1], text.rindex("\n") + 1
        found = re.findall(r' http_request method=(\S+) path="([^"]*)" status=(\d+)', text)
        return [(method, route, int(status)) for method, route, status in found]

    def counted(self, status):
        """Requests that had this status."""
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
    """{name: target}: what permits everything, a daemon, and one with a token."""
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
        # The one for an icon is the browser's own, for what it shows in a window.
        self.requests = [r for r in requests if r[1] != "/favicon.ico"]

    def __repr__(self):
        return f"<{self.requests} read {self.read!r}>"


def attempts(site, loaded, target_of):
    """{target: {attack: Attempt}} from the page's reports until it is over."""
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
            if not requests:  # a beacon's page does not hear what became of it
                try:
                    until(lambda: requests.extend(target.take()) or requests, "it is asked", 5)
                except AssertionError:
                    pass  # shown below, with its name
            out.setdefault(said["target"], {})[said["attack"]] = Attempt(said["read"], requests)
        site.done()


# Probes ask by any name (and get no data), so here a name is not what a page is refused for.
PROBE = "read health"


def check(targets, done, status, may_read, probed):
    """done: {name of the target: {attack: Attempt}}; may_read(text): the page may see that;
    probed: the status that PROBE gets."""
    control = done["permissive"]
    assert len(control) > 35
    for attack, attempt in control.items():
        # What it is about comes last, behind a preflight.
        assert attempt.requests and attempt.requests[-1][0] != "other", (attack, attempt)
        assert not attack.startswith("read") or "secret" in attempt.read, (attack, attempt)
    for name in ("daemon", "token"):
        assert done[name].keys() == control.keys()
        for attack, attempt in done[name].items():
            # Among others: after a 421 the browser tries once more, by itself.
            asked = [request[:2] for request in attempt.requests]
            assert control[attack].requests[0][:2] in asked, (attack, attempt)
            want = probed if attack == PROBE else status
            assert {request[2] for request in attempt.requests} == {want}, (attack, attempt)
            assert may_read(attempt.read), (attack, attempt)
        target = targets[name]
        assert target.counted(status) >= sum(len(made.requests) for attack, made in
                                             done[name].items() if attack != PROBE)
        assert target.state() == target.before


# Page and target: another site, another port of the same one, a name that is not the daemon's.
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
    """The page's own name and port become the daemon's, so that it is of one origin with it to the
    browser, which lets it send anything and see every answer. It sees refusals."""
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
    """Typed into the address bar, the daemon's address leads to its page."""
    daemon = start(log_level="debug")
    with visiting(f"http://127.0.0.1:{daemon.address[1]}/"):
        until(lambda: 'method=GET path="/ui" status=200' in daemon.stderr(), "the page is there", 30)
