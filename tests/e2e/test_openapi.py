"""proto/openapi.yaml describes the daemon: each documented answer can be had, and no answer is undocumented."""

import itertools
import os
import re

import pytest

import openapi
from breakerd import ROOT
from contract import path
from ports import free_port
from preload import preload
from wait import until
from wire import request_bytes

DOCUMENT = openapi.Document()
OPERATIONS = [(p, m) for p, m, _ in DOCUMENT.operations()]
# (path, method, status) of every documented answer.
ANSWERS = [(p, m, s) for p, m in OPERATIONS for s in DOCUMENT.responses(p, m)]


def concrete(template):
    return template.replace("{key}", "a")


def body_of(template):
    return {"transition": b'{"to":"open"}',
            "override": b'{"mode":"forced-open","reason":"why"}',
            "report": b'{"outcome":"success"}'}.get(template.rsplit("/", 1)[-1], b"")


def table():
    """proto/problem.h: {code: (status, title)}"""
    with open(os.path.join(ROOT, "proto", "problem.h"), encoding="utf-8") as file:
        found = re.findall(r'\bX\(\w+,\s*"(\w+)",\s*(\d+),\s*"([^"]+)"\)', file.read())
    assert len(found) > 10
    return {code: (int(status), title) for code, status, title in found}


def test_it_is_openapi_3_1():
    root = DOCUMENT.root
    assert root["openapi"].startswith("3.1.")
    assert root["info"]["title"] and root["info"]["version"]
    ids = [o["operationId"] for _, _, o in DOCUMENT.operations()]
    assert len(set(ids)) == len(ids)
    for template, item in root["paths"].items():
        names = set(re.findall(r"\{(\w+)\}", template))
        given = [DOCUMENT.resolve(p) for p in item.get("parameters", [])]
        assert {p["name"] for p in given if p["in"] == "path"} == names
        assert all(p["required"] for p in given if p["in"] == "path")
    for template, method, operation in DOCUMENT.operations():
        assert operation["summary"], (template, method)
        for response in DOCUMENT.responses(template, method).values():
            assert response["description"]


def test_references_lead_somewhere_and_nothing_is_left_over():
    document = openapi.Document()
    references = document.references()
    for reference in references:
        document.resolve({"$ref": reference})
    defined = {f"#/components/{kind}/{name}" for kind, members in document.root["components"].items()
               for name in members if kind != "securitySchemes"}
    assert defined == references


def test_objects_are_closed():
    def walk(node, where):
        if isinstance(node, dict):
            if node.get("type") == "object":
                assert node["additionalProperties"] is False, where
                assert set(node["required"]) <= set(node["properties"])
            for name, child in node.items():
                walk(child, f"{where}/{name}")
        elif isinstance(node, list):
            for n, child in enumerate(node):
                walk(child, f"{where}/{n}")

    walk(DOCUMENT.root["components"], "#/components")


def documented_codes():
    """{code: {statuses}} from the documented responses."""
    codes = {}

    def walk(schema, status):
        schema = DOCUMENT.resolve(schema)
        for branch in schema.get("allOf", []) + schema.get("oneOf", []):
            walk(branch, status)
        code = schema.get("properties", {}).get("code", {})
        if "$ref" in code:
            return  # the schema of all codes
        for name in code.get("enum", [code["const"]] if "const" in code else []):
            codes.setdefault(name, set()).add(status)

    holders = [o["responses"] for _, _, o in DOCUMENT.operations()]
    holders += [item["x-other-methods"]["responses"] for item in DOCUMENT.root["paths"].values()]
    holders.append(DOCUMENT.root["x-other-routes"]["responses"])
    for responses in holders:
        for status, response in responses.items():
            content = DOCUMENT.resolve(response).get("content", {})
            if "application/problem+json" in content:
                walk(content["application/problem+json"]["schema"], int(status))
    return codes


def test_codes_and_statuses_are_those_of_problem_h():
    expected = {code: {status} for code, (status, _) in table().items()}
    assert documented_codes() == expected
    assert DOCUMENT.root["components"]["schemas"]["ProblemCode"]["enum"] == list(expected)


def test_titles_are_those_of_problem_h(memory_daemon):
    document = memory_daemon.get("/nowhere").json()
    assert document["title"] == table()["not_found"][1]


# --- every documented answer, provoked ---


def without_memory_for_pages(directory):
    """An environment in which the daemon cannot allocate a buffer for a page."""
    return preload(directory, "struct evbuffer *evbuffer_new(void) { return 0; }")


@pytest.fixture
def provoke(start, private_redis, directory):
    """provoke(path, method, status) returns an answer with this status."""

    def on_redis(**settings):
        redis = private_redis()
        settings.setdefault("on_store_failure", "error")
        return redis, start(store=redis.url, **settings).wait_ready()

    def away():
        return start(store=f"redis://127.0.0.1:{free_port()}", on_store_failure="error")

    def with_token():
        with open(f"{directory}/token", "w", encoding="ascii") as file:
            file.write("t0ken\n")
        return start(token_file=f"{directory}/token")

    def ask(daemon, template, method, **kw):
        kw.setdefault("body", body_of(template) if method in ("POST", "PUT") else None)
        kw.setdefault("route", concrete(template))
        return daemon.request(method, kw.pop("route"), **kw)

    def success(template, method):
        daemon = start()
        if (template, method) == ("/v1/events", "GET"):  # the stream ends when the daemon stops
            with daemon.wire() as wire:
                wire.send(request_bytes(method, template))
                until(lambda: daemon.metric("breakerd_event_streams") == 1, "the stream is open")
                daemon.signal(15)
                answer = wire.receive()
            daemon.expect_exit(0)
            return answer
        if template.endswith("/override"):
            daemon.request("PUT", concrete(template), body=body_of(template))
        return ask(daemon, template, method)

    def bad_request(template, method):
        if "{key}" not in template:
            return ask(start(), template, method, route=template + "?limit=0")
        return ask(start(), template, method, route=template.replace("{key}", "%zz"))

    def conflict(template, method):
        return ask(start(), template, method, body=b'{"to":"open","from":"open"}')

    def unprocessable(template, method):
        body = b'{"outcome":"fine"}' if template.endswith("/report") else b'{"to":"ajar"}'
        return ask(start(), template, method, body=body)

    def store_error(template, method):
        redis, daemon = on_redis()
        redis.call("RPUSH", "stoma:cb:a", "x")
        if template == "/v1/circuits":
            # A listing leaves out values of other types, so the server must refuse SCAN.
            redis.call("ACL", "SETUSER", "default", "-scan")
        return ask(daemon, template, method)

    def refused(template, method):
        daemon = start()
        daemon.post(path("a", "transition"), {"to": "open"})
        return ask(daemon, template, method)

    def unavailable(template, method):
        if template.startswith("/v1/check"):
            return refused(template, method)
        if template in ("/metrics", "/v1/policies", "/", "/ui", "/v1/events", "/v1/circuits/{key}/changes"):
            return ask(start(env=without_memory_for_pages(directory)), template, method)
        daemon = away()
        if template == "/readyz":
            until(lambda: daemon.get("/readyz").status == 503, "Redis is away")
        return ask(daemon, template, method)

    def timeout(template, method):
        redis, daemon = on_redis(store_timeout=100)
        redis.freeze()
        return ask(daemon, template, method)

    def too_large(template, method):
        return ask(start(), template, method, body=b"x" * 65537)

    status_of = {
        200: success, 204: success, 303: lambda t, m: ask(start(), t, m, headers={"Accept": "text/html"}), 400: bad_request, 409: conflict, 413: too_large,
        401: lambda t, m: ask(with_token(), t, m), 404: lambda t, m: ask(start(), t, m),
        403: lambda t, m: ask(start(), t, m, headers={"Origin": "https://evil.example"}),
        421: lambda t, m: ask(start(), t, m, headers={"Host": "evil.example"}),
        422: unprocessable, 429: refused, 502: store_error, 503: unavailable, 504: timeout,
    }
    return lambda template, method, status: status_of[status](template, method)


@pytest.mark.parametrize("template,method,status", ANSWERS,
                         ids=[f"{m} {p} {s}" for p, m, s in ANSWERS])
def test_documented_answer(provoke, record_property, template, method, status):
    record_property("documented", (len(OPERATIONS), len(ANSWERS)))
    answer = provoke(template, method, status)
    assert answer.status == status, answer
    DOCUMENT.check(template, method, answer)
    if answer.type == "application/problem+json" and method != "HEAD":
        document = answer.json()
        assert (document["status"], document["title"]) == table()[document["code"]]
    record_property("covered", (template, method, status))


def test_the_other_503s(start, private_redis):
    full = start(max_circuits=1)
    full.post(path("open", "transition"), {"to": "open"})
    for verb in ("success", "failure", "transition", "report"):
        template = "/v1/circuits/{key}/" + verb
        answer = full.post(concrete(template), body_of(template))
        assert answer.json()["code"] == "store_full"
        DOCUMENT.check(template, "POST", answer)
    redis = private_redis()
    busy = start(store=redis.url, max_in_flight=1, store_timeout=5000).wait_ready()
    redis.freeze()
    with busy.wire() as wire:
        wire.send(request_bytes("GET", path("x")))
        until(lambda: busy.metric("breakerd_store_operations_in_flight") == 1, "an operation is in flight")
        for template, method in OPERATIONS:
            if not template.startswith("/v1/circuits") or template.endswith("/changes"):
                continue
            answer = busy.request(method, concrete(template), body=body_of(template))
            assert answer.status == 503, (template, method, answer)
            DOCUMENT.check(template, method, answer)
        redis.thaw()
        assert wire.receive().status == 200


def test_degraded_answers(start):
    """With on_store_failure = local and no Redis each answer of the store has Breakerd-Degraded."""
    daemon = start(store=f"redis://127.0.0.1:{free_port()}", on_store_failure="local")
    for template, method in OPERATIONS:
        if template in ("/v1/events", "/v1/circuits/{key}/changes"):
            continue  # not answers of the store
        if template.startswith("/v1/check"):
            daemon.delete(path("a"))  # open by now, so it would be refused
        answer = daemon.request(method, concrete(template), body=body_of(template))
        if template.endswith("/override"):  # PUT and DELETE are refused without Redis
            refuses = method in ("PUT", "DELETE")
            assert answer.status == (503 if refuses else 404)
            assert answer.header("Breakerd-Degraded") == (None if refuses else "true"), (method, answer)
            DOCUMENT.check(template, method, answer)
            continue
        assert answer.status == (204 if method == "DELETE" else 200), (template, method, answer)
        DOCUMENT.check(template, method, answer)
        if template == "/" or template.startswith(("/v1/circuits", "/v1/check")):
            assert answer.header("Breakerd-Degraded") == "true", (template, method, answer)
    conflict = daemon.post(path("b", "transition"), {"to": "open", "from": "open"})
    assert conflict.status == 409 and conflict.header("Breakerd-Degraded") == "true"
    DOCUMENT.check("/v1/circuits/{key}/transition", "POST", conflict)
    assert daemon.get("/readyz").json()["status"] == "degraded"


def test_no_room_without_redis(private_redis, start):
    """max_circuits circuits have been written since Redis went away, so an operation that would write one more is
    refused."""
    redis = private_redis()
    redis.call("SET", "stoma:cb:a", '{"state":"open","failureCount":5,"successCount":0,'
               '"lastFailureTime":1,"lastStateChange":1}')
    daemon = start(store=redis.url, max_circuits=2).wait_ready()
    assert daemon.get(path("a")).json()["state"] == "open"
    redis.kill()
    until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss")
    for key in ("b", "c"):
        assert daemon.post(path(key, "failure")).status == 200
    for template, method in OPERATIONS:
        if not template.startswith("/v1/circuits/{key}") or method not in ("POST", "DELETE") \
                or template.endswith("/override"):
            continue
        body = b'{"to":"closed"}' if template.endswith("/transition") else body_of(template)
        answer = daemon.request(method, concrete(template), body=body)
        if template.endswith("/report"):  # a report without a permit on an open circuit writes nothing
            assert answer.json()["reason"] == "stale"
        else:
            assert answer.status == 503 and answer.json()["code"] == "store_full", (template, method, answer)
        assert answer.header("Breakerd-Degraded") == "true"
        DOCUMENT.check(template, method, answer)


# --- nothing that is not documented ---

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")
QUERIES = ("", "?", "?limit=5", "?limit=0", "?x=1")
BODIES = (b"", b'{"outcome":"failure","durationMs":1}', b'{"status":99}', b'{"to":"open"}', b'{"to":"open","from":"half-open"}', b'{"to":"ajar"}', b"x",
          b"x" * 65537)
HEADERS = ({}, {"Origin": "null"}, {"Host": "evil.example"}, {"Authorization": "Bearer x"})


def test_whatever_is_asked_the_answer_is_documented(daemon):
    count = 0
    for template in DOCUMENT.root["paths"]:
        routes = {template.replace("{key}", key) for key in ("a", "%zz", "%00", "k" * 1025)}
        for route, method, query in itertools.product(sorted(routes), METHODS, QUERIES):
            for body, headers in [*((b, {}) for b in BODIES), *((b"", h) for h in HEADERS)]:
                if method not in ("GET", "POST", "DELETE") and (body or headers):
                    continue
                if (route, method) == ("/v1/events", "GET") and query in ("", "?"):
                    continue  # a stream has no end
                answer = daemon.request(method, route + query, headers=headers, body=body)
                if method not in DOCUMENT.methods(template) and answer.status in (403, 421):
                    continue  # access comes before the method
                DOCUMENT.check(template, method, answer)
                count += 1
    assert count > 1000
    assert daemon.lives()


def test_other_routes(daemon):
    responses = {int(s): DOCUMENT.resolve(r)
                 for s, r in DOCUMENT.root["x-other-routes"]["responses"].items()}
    for route, method in itertools.product(
            ("/nowhere", "/v1", "/v1/circuits/a/b", "/v1/circuits/a/success/x"), METHODS):
        for body in (b"", b"x" * 65537):
            answer = daemon.request(method, route, body=body)
            assert answer.status in responses, (method, route, len(body), answer)
            DOCUMENT.check_response(responses[answer.status], method, answer)


def test_allow_lists_what_is_documented(memory_daemon):
    for template in DOCUMENT.root["paths"]:
        answer = memory_daemon.request("BREW", concrete(template))
        if 405 in DOCUMENT.responses(template, "BREW"):
            assert set(answer.header("Allow").split(", ")) == DOCUMENT.methods(template)
        else:
            assert answer.status == 200


def test_parameters_are_those_documented(memory_daemon):
    """The listing accepts the documented parameters, within the bounds of their schemas."""
    given = {p["name"]: p["schema"] for p in map(
        DOCUMENT.resolve, DOCUMENT.root["paths"]["/v1/circuits"]["parameters"])}
    assert set(given) == {"state", "prefix", "limit", "cursor"}
    for state in DOCUMENT.resolve(given["state"])["enum"]:
        assert memory_daemon.get(f"/v1/circuits?state={state}").status == 200
    low, high = given["limit"]["minimum"], given["limit"]["maximum"]
    for limit, status in ((low, 200), (high, 200), (low - 1, 400), (high + 1, 400)):
        assert memory_daemon.get(f"/v1/circuits?limit={limit}").status == status
    longest = given["prefix"]["maxLength"]
    assert memory_daemon.get("/v1/circuits?prefix=" + "k" * longest).status == 200
    assert memory_daemon.get("/v1/circuits?prefix=" + "k" * (longest + 1)).status == 400


# --- the validator itself ---


@pytest.mark.parametrize("schema,good,bad", [
    ({"type": "integer"}, [0, 5], ["5", 1.5, True, None]),
    ({"type": ["string", "null"]}, ["", None], [0, [], False]),
    ({"enum": ["a", "b"]}, ["a"], ["c", None]),
    ({"const": 400}, [400], [401, "400"]),
    ({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}},
      "additionalProperties": False}, [{"a": ""}], [{}, {"a": 1}, {"a": "", "b": 1}]),
    ({"type": "array", "items": {"minimum": 1, "maximum": 2}, "maxItems": 2}, [[], [1, 2]],
     [[0], [3], [1, 1, 1]]),
    ({"oneOf": [{"const": 1}, {"minimum": 1}]}, [2], [0, 1]),
    ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1, 2], [0, 3]),
    ({"type": "string", "minLength": 1, "maxLength": 2, "pattern": "^a"}, ["a", "ab"],
     ["", "abc", "b"]),
])
def test_the_validator(schema, good, bad):
    for value in good:
        DOCUMENT.fits(value, schema, "value")
    for value in bad:
        with pytest.raises(openapi.Mismatch):
            DOCUMENT.fits(value, schema, "value")
