"""acquire and report, with the checks that hold for each of their answers."""

import re

from contract import STATES, path

ALLOWED = {"closed", "probe", "observed", "forced-closed"}
REFUSED = {"open", "probing", "forced-open"}


def acquire(client, key, degraded=False, body=None):
    answer = client.post(path(key, "acquire"), body)
    assert answer.status == 200 and answer.type == "application/json", answer
    assert answer.header("Breakerd-Degraded") == ("true" if degraded else None), answer
    decision = answer.json()
    assert decision["state"] in STATES
    wait = decision["retryAfterMs"]
    if decision["allowed"]:
        assert set(decision) == {"allowed", "permit", "state", "reason", "retryAfterMs"}
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", decision["permit"])
        assert decision["reason"] in ALLOWED and wait == 0
        assert answer.header("Retry-After") is None
    else:
        assert set(decision) == {"allowed", "state", "reason", "retryAfterMs"}
        assert decision["reason"] in REFUSED and wait >= 1
        assert answer.header("Retry-After") == str(-(-wait // 1000))
    return decision


def report(client, key, permit=None, outcome="success", degraded=False, **members):
    """With `status` in members, no outcome is sent."""
    body = dict(members) if "status" in members else {"outcome": outcome, **members}
    if permit is not None:
        body["permit"] = permit
    answer = client.post(path(key, "report"), body)
    assert answer.status == 200 and answer.type == "application/json", answer
    assert answer.header("Breakerd-Degraded") == ("true" if degraded else None), answer
    said = answer.json()
    assert said["was"] in STATES and said["state"] in STATES
    if said["counted"]:
        assert set(said) == {"counted", "was", "state"}
    else:
        assert set(said) == {"counted", "was", "state", "reason"}
        assert said["reason"] in ("stale", "spent", "ignored", "overridden")
    return said


def fails(client, key, count, **kw):
    for _ in range(count):
        said = report(client, key, outcome="failure", **kw)
    return said
