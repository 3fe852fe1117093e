"""/metrics: section 6 of the contract."""

import re

from contract import path
from wait import until

NAMES = {
    "breakerd_store_operations_total": "counter",
    "breakerd_store_operation_duration_seconds": "histogram",
    "breakerd_http_requests_total": "counter",
    "breakerd_http_request_duration_seconds": "histogram",
    "breakerd_store_up": "gauge",
    "breakerd_store_degraded": "gauge",
    "breakerd_transitions_total": "counter",
    "breakerd_corrupt_entries_total": "counter",
    "breakerd_build_info": "gauge",
    "process_cpu_seconds_total": "counter",
    "process_resident_memory_bytes": "gauge",
    "process_virtual_memory_bytes": "gauge",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
    "process_start_time_seconds": "gauge",
}


def work(daemon):
    """One of everything; a key that must not be seen in the metrics."""
    key = "very-private-key"
    daemon.get(path(key))
    daemon.post(path(key, "failure"))
    daemon.post(path(key, "failure"))
    daemon.post(path(key, "success"))
    daemon.post(path(key, "transition"), {"to": "open", "from": "closed"})
    daemon.post(path(key, "transition"), {"to": "open", "from": "closed"})  # 409
    daemon.post(path(key, "transition"), {"to": "half-open"})
    daemon.post(path(key, "transition"), {"to": "half-open"})
    daemon.get("/v1/circuits")
    daemon.get("/v1/circuits/%zz")
    daemon.get("/nowhere")
    daemon.request("PUT", path(key))
    daemon.request("BREW", "/healthz")
    daemon.head(path(key))


def test_text_format(daemon):
    work(daemon)
    answer = daemon.get("/metrics")
    assert answer.header("Content-Type").startswith("text/plain; version=0.0.4")
    text = answer.body.decode("utf-8")
    assert text.endswith("\n")
    assert "very-private-key" not in text
    types, helps, current = {}, {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, words = line[7:].split(" ", 1)
            assert name not in helps and words
            helps[name] = words
            continue
        if line.startswith("# TYPE "):
            current, kind = line[7:].split(" ")
            assert current not in types, f"{current} is declared twice"
            types[current] = kind
            continue
        match = re.fullmatch(r'([a-z_:]+)(\{\w+="[^"]*"(?:,\w+="[^"]*")*\})? (-?[0-9.e+-]+|\+Inf|NaN)', line)
        assert match, line
        base = match.group(1)
        if types[current] == "histogram":
            base = re.sub(r"_(bucket|sum|count)$", "", base)
        assert base == current, f"{line} stands under {current}"
    assert set(types) == set(helps)
    for name, kind in NAMES.items():
        assert types.get(name) == kind, name
    for name, kind in types.items():
        assert name.endswith("_total") == (kind == "counter"), name


def test_counters_agree_with_the_requests(daemon, store):
    before = daemon.metrics()
    work(daemon)
    after = daemon.metrics()

    def grew(name, **labels):
        key = (name, frozenset(labels.items()))
        return after.get(key, 0) - before.get(key, 0)

    def operations(operation, result):
        return grew("breakerd_store_operations_total", operation=operation, result=result)

    assert operations("get_state", "ok") == 2
    assert operations("record_failure", "ok") == 2
    assert operations("record_success", "ok") == 1
    assert operations("transition", "ok") == 3
    assert operations("transition", "conflict") == 1
    assert operations("list", "ok") == 1
    assert operations("reset", "ok") == 0

    def requests(route, method, status):
        return grew("breakerd_http_requests_total", route=route, method=method, status=str(status))

    circuit = "/v1/circuits/{key}"
    assert requests(circuit, "GET", 200) == 1
    assert requests(circuit, "HEAD", 200) == 1
    assert requests(circuit, "GET", 400) == 1
    assert requests(circuit, "other", 405) == 1
    assert requests("/healthz", "other", 405) == 1
    assert requests(circuit + "/failure", "POST", 200) == 2
    assert requests(circuit + "/transition", "POST", 200) == 3
    assert requests(circuit + "/transition", "POST", 409) == 1
    assert requests("/v1/circuits", "GET", 200) == 1
    assert requests("none", "GET", 404) == 1

    assert grew("breakerd_transitions_total", **{"from": "closed", "to": "open"}) == 1
    assert grew("breakerd_transitions_total", **{"from": "open", "to": "half-open"}) == 1
    assert grew("breakerd_transitions_total", **{"from": "half-open", "to": "half-open"}) == 1
    assert after["breakerd_store_up", frozenset()] == 1
    assert after["breakerd_store_degraded", frozenset()] == 0
    if store == "memory":
        for state, count in (("closed", 0), ("open", 0), ("half-open", 1)):
            assert after["breakerd_circuits", frozenset({("state", state)})] == count


def test_histograms_are_cumulative_and_complete(daemon):
    work(daemon)
    metrics = daemon.metrics()
    series = {}
    for (name, labels), value in metrics.items():
        if name.endswith("_bucket"):
            rest = frozenset(p for p in labels if p[0] != "le")
            le = dict(labels)["le"]
            series.setdefault((name[:-7], rest), []).append((float(le.replace("+Inf", "inf")), value))
    assert {name for name, _ in series} >= {"breakerd_store_operation_duration_seconds",
                                            "breakerd_http_request_duration_seconds"}
    for (name, labels), buckets in series.items():
        buckets.sort()
        values = [value for _, value in buckets]
        assert values == sorted(values), (name, labels)
        assert buckets[-1][0] == float("inf")
        assert values[-1] == metrics[name + "_count", labels]
        total = metrics[name + "_sum", labels]
        assert total > 0 if values[-1] else total == 0, "an instant has no length"
    done = metrics["breakerd_store_operation_duration_seconds_count",
                   frozenset({("operation", "record_failure")})]
    assert done == 2


def test_circuits_by_state(start):
    daemon = start()
    for n, state in enumerate(("closed", "open", "half-open"), 1):
        for i in range(n):
            daemon.post(path(f"{state}-{i}", "transition"), {"to": state})
    assert [daemon.metric("breakerd_circuits", state=s)
            for s in ("closed", "open", "half-open")] == [1, 2, 3]
    daemon.post(path("open-0", "transition"), {"to": "closed"})
    daemon.delete(path("half-open-0"))
    assert [daemon.metric("breakerd_circuits", state=s)
            for s in ("closed", "open", "half-open")] == [2, 1, 2]


def test_build_info_and_process(daemon):
    metrics = daemon.metrics()
    builds = [dict(labels) for name, labels in metrics if name == "breakerd_build_info"]
    assert len(builds) == 1 and re.fullmatch(r"\d+\.\d+\.\d+\S*", builds[0]["version"])
    assert metrics["process_open_fds", frozenset()] > 3
    assert metrics["process_resident_memory_bytes", frozenset()] > 100_000


def test_errors_of_the_store_are_counted(redis, redis_daemon):
    redis.call("RPUSH", "stoma:cb:a", "x")
    redis_daemon.post(path("a", "failure"))
    redis_daemon.get(path("a"))
    assert redis_daemon.metric("breakerd_store_operations_total", operation="record_failure",
                               result="error") == 1
    assert redis_daemon.metric("breakerd_store_operations_total", operation="get_state",
                               result="error") == 1


def test_connections_are_counted_down_again(memory_daemon):
    wires = [memory_daemon.wire() for _ in range(10)]
    for wire in wires:
        assert wire.ask("GET", "/healthz").status == 200
    assert memory_daemon.metric("breakerd_http_connections") == 11
    for wire in wires:
        wire.close()
    until(lambda: memory_daemon.metric("breakerd_http_connections") == 1, "they are gone")
