"""log_format = json: each line on stderr is one JSON object, whatever it contains."""

import json
import os

from breakerd import Breakerd, run
from contract import path
from wait import until


def objects(daemon):
    """All complete lines so far, parsed."""
    text = daemon.stderr()
    return [parse(line) for line in text[:text.rfind("\n") + 1].splitlines()]


def parse(line):
    def once(pairs):
        assert len({name for name, _ in pairs}) == len(pairs), f"a member twice: {line}"
        return dict(pairs)

    one = json.loads(line, object_pairs_hook=once)
    assert list(one)[:3] == ["time", "level", "event"], line
    assert one["level"] in ("error", "warning", "info", "debug") and one["time"].endswith("Z")
    return one


def of(daemon, event):
    return [one for one in objects(daemon) if one["event"] == event]


def test_every_line_of_a_life_on_redis_is_an_object(directory, start, private_redis):
    """A start with warnings, a change of state, an override, an outage of Redis, a reload, a refused reload,
    the access log, and a stop."""
    conf = f"{directory}/conf"
    with open(conf, "w", encoding="ascii") as file:
        file.write("log_format = json\nlog_level = debug\n")
    server = private_redis()
    daemon = start(config=conf, store=server.url, report_listen=f"unix:{directory}/reports",
                   state_file=f"{directory}/state", env={"BREAKERD_NONE": "1"}).wait_ready()
    daemon.post(path("a", "transition"), {"to": "open"})
    daemon.request("PUT", path("a", "override"),
                   body={"mode": "forced-open", "reason": 'a "bad" deploy = no'})
    server.kill()
    until(lambda: daemon.readyz() == "degraded", "Redis is away")
    daemon.post(path("b", "failure"))
    server.start()
    daemon.wait_ready()
    until(lambda: of(daemon, "folded"), "the steps are folded")
    daemon.hangup()
    until(lambda: of(daemon, "reloaded"), "the settings are reloaded")
    with open(conf, "a", encoding="ascii") as file:
        file.write("nonsense\n")
    daemon.hangup()
    until(lambda: of(daemon, "reload_refused"), "the reload is refused")
    daemon.stop()
    lines = objects(daemon)
    events = {one["event"] for one in lines}
    assert {"unknown_variable", "listening", "reading_reports", "started", "redis_ready", "state_change",
            "override_set", "redis_away", "folding", "folded", "reloaded", "reload_refused",
            "http_request", "redis_link", "stopping", "stopped"} <= events
    assert of(daemon, "override_set")[0]["reason"] == 'a "bad" deploy = no'
    assert of(daemon, "started")[0]["pid"] == daemon.process.pid, "the pid is not a JSON number"
    assert of(daemon, "reload_refused")[0]["reason"].startswith(conf + ":3")


def test_hostile_keys_are_strings(start):
    daemon = start(log_format="json")
    keys = ['a"b\\c é', '","level":"error', "x to=forged", "\\x41 \\u0041", "\u0085\u009b\u2028",
            "\U0001f600" * 100, "=", "a=1 b=2", "'", "\u007f".replace("\u007f", "~")]
    for key in keys:
        daemon.post(path(key, "transition"), {"to": "open"})
    until(lambda: len(of(daemon, "state_change")) == len(keys), "all changes are logged")
    for one, key in zip(of(daemon, "state_change"), keys):
        assert (one["from"], one["to"], one["level"]) == ("closed", "open", "info")
        if len(key.encode()) < 300:
            assert one["key"] == key
        else:
            assert one["key"].endswith("...") and key.startswith(one["key"][:-3])


def test_a_reload_changes_the_format(directory, start):
    conf = f"{directory}/conf"

    def reload(form, count):
        with open(conf, "w", encoding="ascii") as file:
            file.write(f"log_format = {form}\n")
        daemon.hangup()
        until(lambda: daemon.stderr().count("reloaded") == count, "the settings are reloaded")
        return daemon.stderr().splitlines()[-1]

    with open(conf, "w", encoding="ascii") as file:
        file.write("log_format = text\n")
    daemon = start(config=conf)
    assert daemon.stderr().splitlines()[-1].startswith("20")
    assert parse(reload("json", 1))["event"] == "reloaded"
    assert " info reloaded file=" in reload("text", 2)
    daemon.post(path("a", "transition"), {"to": "open"})
    until(lambda: " info state_change key=" in daemon.stderr(), "the change is logged as text")


def test_warnings_of_the_start_have_the_format(directory):
    done = run("--check-config", "--log-format=json", "--state-file=/x", "--store=redis://h",
               "--on-store-failure=error", env={"BREAKERD_X": "y"})
    assert [parse(line)["event"] for line in done.stderr.splitlines()] == [
        "unknown_variable", "setting_unused"]
    done = run("--log-format=json", f"--listen=unix:{directory}/none/socket")
    assert done.returncode == 1
    assert parse(done.stderr.splitlines()[-1])["event"] == "start_failed"


def test_what_stderr_did_not_take_is_told_in_an_object(directory):
    """stderr is a pipe that nobody reads for a while, so that lines are suppressed."""
    reader, writer = os.pipe()
    daemon = Breakerd(directory, log_format="json", log_level="debug")
    got = b""
    try:
        daemon.start(stderr=writer)
        for _ in range(1000):
            daemon.get("/healthz")
        assert daemon.metric("breakerd_log_lines_suppressed_total") > 0
        os.set_blocking(reader, False)
        while b'"kind":"stderr"' not in got:
            got += os.read(reader, 1 << 16)
            daemon.get("/healthz")
    finally:
        daemon.stop()
        os.close(reader)
        os.close(writer)
    lines = [parse(line) for line in got[:got.rfind(b"\n")].decode().splitlines()]
    assert any(one["event"] == "suppressed" and one["lines"] > 0 for one in lines)
