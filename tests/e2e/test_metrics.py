"""/metrics, and the dashboard and alerts that read it."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import yaml

from breakerd import ROOT
from contract import path
from wait import until

with_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")

NAMES = {
    "breakerd_store_operations_total": "counter",
    "breakerd_store_operation_duration_seconds": "histogram",
    "breakerd_http_requests_total": "counter",
    "breakerd_http_request_duration_seconds": "histogram",
    "breakerd_store_up": "gauge",
    "breakerd_store_degraded": "gauge",
    "breakerd_transitions_total": "counter",
    "breakerd_decisions_total": "counter",
    "breakerd_reports_total": "counter",
    "breakerd_corrupt_entries_total": "counter",
    "breakerd_circuit_open_seconds": "gauge",
    "breakerd_build_info": "gauge",
    "breakerd_redis_connects_total": "counter",
    "breakerd_redis_disconnects_total": "counter",
    "breakerd_store_degraded_seconds_total": "counter",
    "breakerd_folded_operations_total": "counter",
    "breakerd_folded_operations_lost_total": "counter",
    "breakerd_folds_pending": "gauge",
    "breakerd_store_operations_in_flight": "gauge",
    "breakerd_http_requests_in_flight": "gauge",
    "breakerd_http_connections": "gauge",
    "breakerd_evictions_total": "counter",
    "breakerd_event_loop_lag_seconds": "histogram",
    "breakerd_log_lines_suppressed_total": "counter",
    "process_cpu_seconds_total": "counter",
    "process_resident_memory_bytes": "gauge",
    "process_virtual_memory_bytes": "gauge",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
    "process_start_time_seconds": "gauge",
}


def work(daemon):
    """Requests of many kinds. The key must appear only in the metric that names circuits."""
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
    daemon.request("BREW", path(key))
    daemon.request("BREW", "/healthz")
    daemon.head(path(key))


def test_text_format(daemon, store):
    work(daemon)
    answer = daemon.get("/metrics")
    assert answer.header("Content-Type").startswith("text/plain; version=0.0.4")
    text = answer.body.decode("utf-8")
    assert text.endswith("\n")
    assert {line.split("{")[0] for line in text.splitlines() if "very-private-key" in line} <= {
        "breakerd_circuit_open_seconds"}
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
    only = {"memory": {}, "redis": {
        "breakerd_redis_link_state": "gauge", "breakerd_redis_failures_total": "counter"}}
    for name, kind in {"breakerd_circuits": "gauge", **NAMES, **only[store]}.items():
        assert types.get(name) == kind, name
    assert not set(types) & set(only["redis" if store == "memory" else "memory"])
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
    assert requests(circuit, "PUT", 405) == 1
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
        assert total > 0 if values[-1] else total == 0, f"{name}: the sum does not fit the count"
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
    until(lambda: memory_daemon.metric("breakerd_http_connections") == 1, "closed connections are not counted")


def promtool(*args, text=None):
    done = subprocess.run(["promtool", *args], input=text, capture_output=True, text=True,
                          timeout=60, check=False)
    # Mere advice is on stderr, with status 0 or 3.
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    return done.stdout


@with_promtool
def test_promtool_finds_nothing(daemon):
    work(daemon)
    promtool("check", "metrics", text=daemon.get("/metrics").body.decode())


def test_an_outage_in_metrics(private_redis, start):
    redis = private_redis()
    daemon = start(store=redis.url, store_timeout=5000).wait_ready()

    def state():
        return [dict(labels)["state"] for (name, labels), value in daemon.metrics().items()
                if name == "breakerd_redis_link_state" and value == 1]

    daemon.post(path("a", "failure"))
    assert state() == ["ready"]
    first = daemon.metrics()
    at_start = first["breakerd_store_degraded_seconds_total", frozenset()]
    assert at_start < 5, "seconds are counted after the link was up"
    assert first["breakerd_redis_connects_total", frozenset()] == 1

    began = time.monotonic()
    redis.kill()
    until(lambda: daemon.metric("breakerd_store_degraded") == 1, "the store is degraded")
    noticed = time.monotonic()
    for _ in range(3):
        daemon.post(path("a", "failure"))
    daemon.post(path("b", "success"))
    assert state() != ["ready"] and len(state()) == 1
    assert daemon.metric("breakerd_folds_pending") == 2
    early = daemon.metric("breakerd_store_degraded_seconds_total")
    until(lambda: daemon.metric("breakerd_store_degraded_seconds_total") > early, "degraded seconds are counted")
    before = time.monotonic()
    redis.start()
    until(lambda: daemon.metric("breakerd_store_degraded") == 0, "the store is not degraded any more")
    until(lambda: daemon.metric("breakerd_folds_pending") == 0, "all steps are folded")
    last = daemon.metrics()
    away = last["breakerd_store_degraded_seconds_total", frozenset()] - at_start
    assert before - noticed <= away + 0.002 and away <= time.monotonic() - began + 0.002
    assert daemon.metric("breakerd_store_degraded_seconds_total") - at_start == away, "seconds are counted after the outage"
    assert last["breakerd_redis_connects_total", frozenset()] == 2
    assert last["breakerd_redis_disconnects_total", frozenset()] == 1
    assert last["breakerd_folds_total", frozenset()] == 2
    assert last["breakerd_folded_operations_total", frozenset()] == 4
    assert last["breakerd_folded_operations_lost_total", frozenset()] == 0
    assert state() == ["ready"]


def test_event_loop_lag(start):
    """A loop that is held up, here by stopping the process, shows in the histogram."""
    daemon = start()
    name = "breakerd_event_loop_lag_seconds"

    def late():
        metrics = daemon.metrics()
        return metrics[name + "_count", frozenset()] \
            - metrics[name + "_bucket", frozenset({("le", "0.25")})]

    def held_up():
        """Stops the process for 0.5 s, and returns whether the lag was measured. The daemon measures only for 100 ms
        after a request: the stop may come later than that."""
        before, count = late(), daemon.metric(name + "_count")
        daemon.get("/healthz")
        daemon.signal(signal.SIGSTOP)
        time.sleep(0.5)
        daemon.signal(signal.SIGCONT)
        until(lambda: daemon.metric(name + "_count") > count, "a lag is measured")
        return late() > before

    until(held_up, "a lag of over 0.25 s is measured")


# --- the dashboard and the alerts

DASHBOARD = os.path.join(ROOT, "docs", "grafana-dashboard.json")
ALERTS = os.path.join(ROOT, "docs", "prometheus-alerts.yml")


def dashboard_queries():
    with open(DASHBOARD, encoding="utf-8") as f:
        dashboard = json.load(f)
    out = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    out += [variable["query"] if isinstance(variable["query"], str) else variable["query"]["query"]
            for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    assert len(out) > 10
    return out


def alert_queries():
    with open(ALERTS, encoding="utf-8") as f:
        rules = yaml.safe_load(f)
    return [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def known(daemons):
    """{metric: {label: the values seen}}"""
    out = {}
    for daemon in daemons:
        for name, labels in daemon.metrics():
            seen = out.setdefault(name, {})
            for label, value in labels:
                seen.setdefault(label, set()).add(value)
    return out


@pytest.mark.parametrize("queries", [dashboard_queries, alert_queries])
def test_what_is_asked_for_exists(start, redis, queries):
    """The metrics that the dashboard and the alerts name exist, and so do the labels by which they select."""
    daemons = [start(), start(store=redis.url).wait_ready()]
    for daemon in daemons:
        work(daemon)
    metrics = known(daemons)
    for query in queries():
        names = re.findall(r"\b((?:breakerd|process)_\w+)(?:\{([^}]*)\})?", query)
        assert names or "up{" in query, query
        for name, selector in names:
            assert name in metrics, f"{name}: {query}"
            for label, value in re.findall(r'(\w+)=~?"([^"]*)"', selector):
                if label in ("job", "instance"):
                    continue
                assert label in metrics[name], f"{name}{{{label}}}: {query}"
                if "$" not in value and "|" not in value and ".." not in value \
                        and label != "status":
                    assert value in metrics[name][label], f"{name}{{{label}={value}}}: {query}"


def test_operations_md_has_each_metric(start, redis, directory):
    """docs/operations.md has each metric by its name, or by its end (`…name`) where the metric before it has the same
    beginning."""
    daemons = [start(report_listen=f"unix:{directory}/report"), start(store=redis.url).wait_ready()]
    for daemon in daemons:
        work(daemon)
    with open(os.path.join(ROOT, "docs", "operations.md"), encoding="utf-8") as f:
        manual = f.read()
    ends = tuple(re.findall(r"`…(\w+)", manual))
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known(daemons)}
    assert len(names) > 40
    assert not [name for name in sorted(names) if not name.startswith("process_")
                and not re.search(rf"`{name}\b", manual) and not name.endswith(ends)]


@with_promtool
def test_queries_of_the_dashboard_are_sound(directory):
    """promtool accepts each query as a rule, with values in place of Grafana's variables."""
    rules = []
    for i, query in enumerate(dashboard_queries()):
        if query.startswith("label_values("):
            continue
        expr = query.replace("$__rate_interval", "5m").replace("$job", ".+") \
            .replace("$instance", ".+")
        assert "$" not in expr
        rules.append({"record": f"panel_{i}", "expr": expr})
    name = os.path.join(directory, "rules.yml")
    with open(name, "w", encoding="utf-8") as f:
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, f)
    assert f"{len(rules)} rules found" in promtool("check", "rules", name)


@with_promtool
def test_alert_rules_are_sound():
    out = promtool("check", "rules", ALERTS)
    assert "SUCCESS" in out


@with_promtool
@pytest.mark.parametrize("job", ["breakerd", "default/breakerd", "sidecars"])
def test_alerts_fire_when_they_should(directory, job):
    """The alerts fire whatever the scrape job's name is. A PodMonitor without jobLabel makes it default/breakerd."""
    with open(os.path.join(ROOT, "tests", "e2e", "prometheus-alerts.test.yml"), encoding="utf-8") as f:
        tests = f.read()
    tests = tests.replace("../../docs/prometheus-alerts.yml", ALERTS)
    tests = tests.replace('job="breakerd"', f'job="{job}"').replace("job: breakerd", f"job: {job}")
    name = os.path.join(directory, "test.yml")
    with open(name, "w", encoding="utf-8") as f:
        f.write(tests)
    promtool("test", "rules", name)


def test_the_job_of_the_manifest_is_one_of_those():
    with open(os.path.join(ROOT, "docs", "kubernetes", "breakerd.yaml"), encoding="utf-8") as f:
        monitors = [one for one in yaml.safe_load_all(f) if one["kind"] == "PodMonitor"]
    assert [one["metadata"]["name"] for one in monitors] == ["breakerd"]
    assert not any("jobLabel" in one["spec"] for one in monitors)


def test_each_alert_is_explained():
    with open(ALERTS, encoding="utf-8") as f:
        rules = [rule for group in yaml.safe_load(f)["groups"] for rule in group["rules"]]
    with open(os.path.join(ROOT, "docs", "operations.md"), encoding="utf-8") as f:
        manual = f.read()
    for rule in rules:
        assert re.search(rf"^#+ {rule['alert']}$", manual, re.MULTILINE), rule["alert"]
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("warning", "critical")
