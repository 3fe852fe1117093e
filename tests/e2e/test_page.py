"""The operator's page, GET /ui, without a browser: its headers, its policy, and who gets it."""

import base64
import hashlib
import os
import re

import pytest

from breakerd import ROOT
from contract import problem

# Values of Accept with which browsers ask for a page, and others.
BROWSERS = ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
            "text/html, application/xhtml+xml", "text/html;q=0.9", "text/html", "TEXT/HTML,*/*")
OTHERS = (None, "*/*", "", "text/plain", "application/json, text/html", "text/htmlx", "text/*, text/html")


def hash_of(page, tag):
    text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL).group(1)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_it_is_one_small_file():
    size = os.path.getsize(f"{ROOT}/daemon/api/page.html")
    assert size < 40_000, size


def test_one_response_and_its_policy(memory_daemon):
    answer = memory_daemon.get("/ui")
    assert answer.status == 200
    assert answer.header("Content-Type") == "text/html; charset=utf-8"
    page = answer.body.decode("utf-8")
    policy = dict(part.strip().split(" ", 1)
                  for part in answer.header("Content-Security-Policy").split(";"))
    assert policy == {
        "default-src": "'none'", "script-src": hash_of(page, "script"),
        "style-src": hash_of(page, "style"), "img-src": "data:", "connect-src": "'self'",
        "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
    assert answer.header("X-Frame-Options") == "DENY"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Cache-Control") == "no-store"
    assert not re.search(r"@[A-Z]+@", page)
    # The page loads nothing from elsewhere, and never makes markup out of text.
    assert re.findall(r'\b(?:src|href|action)="(?!data:)', page) == []
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="):
        assert word not in page
    problem(memory_daemon.get("/ui?x=1"), "invalid_query")
    problem(memory_daemon.get("/ui/"), "not_found")


@pytest.mark.parametrize("accept", BROWSERS)
def test_the_index_leads_a_browser_there(daemon, accept):
    for method in ("GET", "HEAD"):
        answer = daemon.request(method, "/", headers={"Accept": accept})
        assert answer.status == 303 and answer.header("Location") == "/ui"
        assert answer.body == b""


@pytest.mark.parametrize("accept", OTHERS)
def test_others_get_the_text(memory_daemon, accept):
    answer = memory_daemon.request("GET", "/", headers={"Accept": accept})
    assert answer.status == 200 and answer.type == "text/plain"
    assert answer.body.startswith(b"breakerd ")


def test_access(start, directory):
    """The page contains no data, so it needs no token. Host and origin are checked as everywhere."""
    with open(f"{directory}/token", "w", encoding="ascii") as file:
        file.write("t0ken")
    daemon = start(token_file=f"{directory}/token")
    html = {"Accept": BROWSERS[0]}
    assert daemon.get("/ui").status == 200
    assert daemon.request("GET", "/", headers=html).status == 303
    problem(daemon.get("/"), "unauthorized")
    problem(daemon.request("POST", "/", headers=html), "unauthorized", "no")
    problem(daemon.request("GET", "/v1/circuits", headers=html), "unauthorized")
    for route in ("/ui", "/"):
        for name, value, code in (("Host", "evil.example", "misdirected_request"),
                                  ("Origin", "https://evil.example", "forbidden_origin"),
                                  ("Origin", "null", "forbidden_origin"),
                                  ("Sec-Fetch-Site", "cross-site", "forbidden_origin"),
                                  ("Sec-Fetch-Site", "same-site", "forbidden_origin")):
            problem(daemon.request("GET", route, headers={**html, name: value}), code)
