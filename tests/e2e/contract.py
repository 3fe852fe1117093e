"""Checks of answers against the contract."""

from urllib.parse import quote

STATES = ("closed", "open", "half-open")
FIELDS = {"state", "failureCount", "successCount", "lastFailureTime", "lastStateChange"}
INT_MAX = 2**53 - 1

STATUS = {
    "invalid_key": 400,
    "invalid_body": 400,
    "invalid_query": 400,
    "unauthorized": 401,
    "forbidden_origin": 403,
    "not_found": 404,
    "no_override": 404,
    "method_not_allowed": 405,
    "state_conflict": 409,
    "body_too_large": 413,
    "misdirected_request": 421,
    "invalid_state": 422,
    "invalid_outcome": 422,
    "invalid_permit": 422,
    "store_error": 502,
    "store_unavailable": 503,
    "store_full": 503,
    "overloaded": 503,
    "store_timeout": 504,
}

# Keys that must come through unchanged.
KEYS = {
    "plain": "payments",
    "path": "/api/users",
    "space": "a b",
    "cyrillic": "ключ",
    "percent": "100%",
    "dots": "..",
    "dot": ".",
    "plus": "a+b",
    "escape-in-key": "a%2Fb",
    "query-like": "a?b=c&d#e",
    "quotes": "a\"b\\c'd",
    "braces": "{a}:*?[b]",
    "noncharacter": "\ufffe\U0010ffff",
    "1024-ascii": "k" * 1024,
    "1024-utf8": "ключ" * 128,
}


def path(key, verb=None):
    """The path of a circuit's route. Escapes all of the key but letters, digits, `_`, `-` and `~`."""
    escaped = quote(key, safe="").replace(".", "%2E")
    return f"/v1/circuits/{escaped}" + (f"/{verb}" if verb else "")


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INT_MAX


def check_fields(circuit):
    assert isinstance(circuit, dict) and set(circuit) == FIELDS, circuit
    assert circuit["state"] in STATES
    for name in FIELDS - {"state"}:
        assert is_count(circuit[name]), f"{name}: {circuit}"
    return circuit


def snapshot(answer):
    """Checks that the answer is a snapshot, and returns it."""
    assert answer.status == 200, answer
    assert answer.type == "application/json", answer
    return check_fields(answer.json())


def expect(answer, **expected):
    """Checks that the answer is a snapshot with the members in `expected`, and returns the snapshot."""
    got = snapshot(answer)
    assert {name: got[name] for name in expected} == expected, got
    return got


def problem(answer, code, applied=None, contains=()):
    """Checks that the answer is the problem document for `code`, and returns it. `applied`: "no",
    "unknown", or None for a request that writes nothing."""
    assert answer.status == STATUS[code], answer
    assert answer.type == "application/problem+json", answer
    document = answer.json()
    assert document["code"] == code, document
    assert document["type"] == f"urn:breakerd:problem:{code}"
    assert document["status"] == answer.status
    assert document["title"] and isinstance(document["title"], str)
    assert document.get("applied") == applied, document
    members = {"type", "title", "status", "detail", "code"}
    members |= {"applied"} if applied else set()
    members |= {"circuit"} if code == "state_conflict" else set()
    assert set(document) == members
    if code == "state_conflict":
        check_fields(document["circuit"])
    detail = document["detail"]
    assert isinstance(detail, str) and len(detail) > 10 and detail[-1] == ".", detail
    assert "\n" not in detail
    for text in [contains] if isinstance(contains, str) else contains:
        assert text in detail, detail
    if code in ("store_unavailable", "overloaded"):
        assert int(answer.header("Retry-After")) >= 1
    if code == "unauthorized":
        assert answer.header("WWW-Authenticate").startswith("Bearer")
    if code == "method_not_allowed":
        assert answer.header("Allow")
    return document
