"""Settings from file, environment and command line."""

import os
import re
import threading

import pytest

from breakerd import Breakerd, run
from contract import expect, path, problem
from wait import until

DEFAULTS = {
    "listen": "127.0.0.1:8747",
    "socket_mode": "0660",
    "store": "memory",
    "prefix": "stoma:",
    "ttl": "86400",
    "store_timeout": "250",
    "on_store_failure": "local",
    "max_in_flight": "10000",
    "max_connections": "1000",
    "max_circuits": "1000000",
    "metrics_circuits": "100",
    "max_head": "8192",
    "max_body": "65536",
    "max_unsent": "67108864",
    "idle_timeout": "60",
    "request_timeout": "10",
    "log_level": "info",
    "log_format": "text",
    "reload_on_change": "no",
    "consecutive_failures": "5",
    "failure_rate": "50",
    "slow_time": "0",
    "slow_rate": "100",
    "window": "30s",
    "min_calls": "20",
    "min_reporters": "1",
    "open_time": "30s",
    "open_growth": "2",
    "open_time_max": "5m",
    "probes": "1",
    "probe_successes": "1",
    "probe_timeout": "30s",
    "failure_status": "500-599",
    "enforce": "yes",
}
UNSET = ("redis_password_file", "state_file", "token_file", "allowed_hosts", "ignore_status",
         "metrics_listen", "report_listen")


@pytest.fixture
def conf(directory):
    """conf(text) writes a settings file and returns its path."""

    def write(text, name="test.conf"):
        full = os.path.join(directory, name)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)
        return full

    return write


def printed(*args, env=None):
    """({setting: value}, text) from --print-config."""
    done = run("--print-config", *args, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done
    values = {}
    for line in done.stdout.splitlines():
        line = re.split(r"(?:^|\s)[#;]", line)[0].strip()
        if line and not line.startswith("["):
            name, value = (part.strip() for part in line.split("=", 1))
            assert name not in values or name in ("listen", "allowed_hosts")
            values[name] = f"{values[name]} {value}" if name in values else value
    return values, done.stdout


def refused(*args, env=None, status=1, contains=()):
    """Checks that a start fails with this status and one line, and returns the line."""
    done = run(*args, env=env)
    assert done.returncode == status, done
    assert done.stdout == ""
    assert done.stderr.endswith("\n")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in [contains] if isinstance(contains, str) else contains:
        assert word in done.stderr, done.stderr
    return done.stderr


def test_help():
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name in (*DEFAULTS, *UNSET, "config"):
        assert f"--{name.replace('_', '-')}=" in done.stdout, name
    for option in ("--help", "--version", "--check-config", "--print-config"):
        assert option in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_version():
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"breakerd \d+\.\d+\.\d+.*\n", done.stdout.splitlines(True)[0])


def test_defaults():
    values, text = printed()
    for name, value in DEFAULTS.items():
        assert values[name] == value, name
    for name in UNSET:
        assert values.get(name, "") == "", name
        assert name in text
    assert "default" in text


def test_file_environment_flag_the_later_stands(conf):
    file = conf("ttl = 11\nstore_timeout = 11\nmax_body = 1111\n")
    env = {"BREAKERD_STORE_TIMEOUT": "22", "BREAKERD_MAX_BODY": "2222", "BREAKERD_IDLE_TIMEOUT": "22"}
    values, text = printed(f"--config={file}", "--max-body=3333", "--request-timeout=33", env=env)
    assert values["ttl"] == "11"
    assert values["store_timeout"] == "22"
    assert values["max_body"] == "3333"
    assert values["idle_timeout"] == "22"
    assert values["request_timeout"] == "33"
    assert values["log_level"] == "info"
    # The output tells where each value came from.
    assert f"{file}:1" in text
    assert "BREAKERD_STORE_TIMEOUT" in text
    assert "command line" in text


def test_the_file_may_be_named_in_the_environment(conf):
    file = conf("ttl = 12\n")
    assert printed(env={"BREAKERD_CONFIG": file})[0]["ttl"] == "12"
    other = conf("ttl = 13\n", "other.conf")
    assert printed(f"--config={other}", env={"BREAKERD_CONFIG": file})[0]["ttl"] == "13"


def test_lists_are_replaced_not_joined(conf):
    file = conf("listen = 127.0.0.1:1001\nlisten = unix:/tmp/x\n")
    assert printed(f"--config={file}")[0]["listen"].split() == ["127.0.0.1:1001", "unix:/tmp/x"]
    values, _ = printed(f"--config={file}", "--listen=127.0.0.1:1002", "--listen=[::1]:1003")
    assert values["listen"].split() == ["127.0.0.1:1002", "[::1]:1003"]


def test_print_config_round_trip(conf):
    args = ["--listen=127.0.0.1:1234", "--listen=unix:/tmp/b;c.sock", "--socket-mode=0600",
            "--store=redis://somebody@example.org:6380/5", "--ttl=77",
            "--store-timeout=99", "--on-store-failure=error", "--prefix=my#1 = \"x\":", "--max-in-flight=5",
            "--max-connections=6", "--max-circuits=7", "--max-body=88", "--max-unsent=2000000", "--idle-timeout=9",
            "--request-timeout=3", "--allowed-hosts=a.example,b.example",
            "--log-level=debug"]
    _, text = printed(*args)
    again = run("--print-config", f"--config={conf(text)}")
    assert again.returncode == 0, again.stderr

    def settings(output):
        lines = [re.split(r"(?:^|\s)[#;]", line)[0].strip() for line in output.splitlines()]
        return [line for line in lines if line]

    assert settings(again.stdout) == settings(text)


def test_defaults_round_trip(conf):
    _, text = printed()
    assert printed(f"--config={conf(text)}")[0] == printed()[0]


def test_secrets_are_masked(conf, directory):
    with open(f"{directory}/token", "w", encoding="ascii") as file:
        file.write("the-t0ken\n")
    with open(f"{directory}/pw", "w", encoding="ascii") as file:
        file.write("the-passw0rd\n")
    for args, env in ([["--store=redis://u:url-s3cret@h/1", f"--token-file={directory}/token"], {}],
                      [[f"--config={conf('store = redis://:url-s3cret@h')}"], {}],
                      [["--store=redis://h", f"--redis-password-file={directory}/pw"], {}],
                      [[], {"BREAKERD_STORE": "redis://u:url-s3cret@h"}]):
        done = run("--print-config", *args, env=env)
        assert done.returncode == 0
        for secret in ("url-s3cret", "the-t0ken", "the-passw0rd"):
            assert secret not in done.stdout + done.stderr


def test_check_config(conf):
    done = run("--check-config", f"--config={conf('ttl = 5')}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    refused("--check-config", f"--config={conf('ttl = 0')}", contains="ttl")
    refused("--check-config", "--ttl=x", contains="ttl")
    refused("--check-config", f"--config={conf('')}.none", contains="none")


def test_shipped_configuration_is_the_defaults():
    from breakerd import ROOT
    shipped = os.path.join(ROOT, "conf", "breakerd.conf")
    assert printed(f"--config={shipped}")[0] == printed()[0]
    with open(shipped, encoding="utf-8") as file:
        text = file.read()
    for name in (*DEFAULTS, *UNSET):
        assert re.search(rf"^[#;]? ?{name} *=", text, re.MULTILINE), name


BAD_FILES = {
    "unknown": ("# a comment\n\nttll = 5\n", 3, ["ttll", "ttl"]),
    "unknown-case": ("TTL = 5\n", 1, ["TTL"]),
    "dashes": ("store-timeout = 5\n", 1, ["store-timeout", "store_timeout"]),
    "range-low": ("ttl = 0\n", 1, ["ttl"]),
    "range-high": ("\n\n\nstore_timeout = 99999999999\n", 4, ["store_timeout", "60000"]),
    "no-number": ("max_body = 64k\n", 1, ["max_body"]),
    "negative": ("max_connections = -1\n", 1, ["max_connections"]),
    "hex": ("ttl = 0x10\n", 1, ["ttl"]),
    "empty": ("ttl =\n", 1, ["ttl"]),
    "choice": ("on_store_failure = ignore\n", 1, ["on_store_failure", "local", "error"]),
    "format": ("log_format = xml\n", 1, ["log_format", "text", "json"]),
    "level": ("log_level = verbose\n", 1, ["log_level", "debug"]),
    "mode": ("socket_mode = 0999\n", 1, ["socket_mode"]),
    "store": ("store = mysql://x\n", 1, ["store", "redis://"]),
    "store-port": ("store = redis://h:99999\n", 1, ["store"]),
    "listen": ("listen = 127.0.0.1\n", 1, ["listen"]),
    "listen-port": ("ttl = 5\nlisten = 127.0.0.1:99999\n", 2, ["listen"]),
    "no-pair": ("ttl = 5\nthis is no setting\n", 2, []),
    "host-with-port": ("allowed_hosts = a.example:80\n", 1, ["allowed_hosts"]),
}


@pytest.mark.parametrize("text,line,words", BAD_FILES.values(), ids=BAD_FILES)
def test_error_in_a_file_names_file_line_and_setting(conf, text, line, words):
    file = conf(text)
    refused(f"--config={file}", contains=[f"{file}:{line}", *words])


def test_a_file_that_is_not_there(directory):
    refused(f"--config={directory}/none.conf", contains=[f"{directory}/none.conf"])
    refused(f"--config={directory}", contains=[directory])


@pytest.mark.parametrize("name,value,words", [
    ("BREAKERD_TTL", "0", ["BREAKERD_TTL"]), ("BREAKERD_LISTEN", "nowhere", ["BREAKERD_LISTEN"]),
    ("BREAKERD_LOG_LEVEL", "loud", ["BREAKERD_LOG_LEVEL", "debug"]),
])
def test_error_in_the_environment_names_the_variable(name, value, words):
    refused(env={name: value}, contains=words)


@pytest.mark.parametrize("args,words", [
    (["--ttl=0"], ["--ttl"]), (["--store-timeout=1.5"], ["--store-timeout"]),
    (["--listen=unix:"], ["--listen"]), (["--token-file=/does/not/exist"], ["token", "/does/not/exist"]),
    (["--store=redis://h", "--redis-password-file=/does/not/exist"], ["/does/not/exist"]),
])
def test_error_in_a_flag_is_a_configuration_error(args, words):
    refused(*args, contains=words)


@pytest.mark.parametrize("args", [["--nonsense"], ["--tttl=5"], ["-x"], ["serve"], ["--ttl"],
                                  ["--nonsense=1"], ["--help=x"], ["extra", "--ttl=5"]])
def test_wrong_usage(args):
    done = run(*args)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert args[0].split("=")[0] in done.stderr


def test_unknown_variable_is_only_warned_of(start):
    daemon = start(env={"BREAKERD_STORE_TIMEOUTS": "10", "BREAKERD_X": "y"})
    assert daemon.get("/healthz").status == 200
    for name in ("BREAKERD_STORE_TIMEOUTS", "BREAKERD_X"):
        assert name in daemon.stderr()


def test_check_config_warns_as_a_start_does():
    done = run("--check-config", "--store=redis://h", "--state-file=/x",
               "--on-store-failure=error", env={"BREAKERD_X": "y"})
    assert (done.returncode, done.stdout) == (0, "")
    assert "BREAKERD_X" in done.stderr and "state_file" in done.stderr


def test_what_kubernetes_sets_is_not_warned_of():
    """The variables that Kubernetes sets for a Service named breakerd."""
    env = {f"BREAKERD_{name}": value for name, value in {
        "SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8747", "PORT": "tcp://10.0.0.1:8747",
        "PORT_8747_TCP": "tcp://10.0.0.1:8747", "PORT_8747_TCP_PROTO": "tcp",
        "PORT_8747_TCP_PORT": "8747", "PORT_8747_TCP_ADDR": "10.0.0.1"}.items()}
    done = run("--check-config", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = run("--check-config", env={**env, "BREAKERD_PORT": "9000"})
    assert done.stderr.count("unknown_variable") == 1 and "BREAKERD_PORT" in done.stderr


def test_an_empty_variable_is_none(conf):
    names = [name.upper() for name in (*DEFAULTS, *UNSET, "config")]
    assert printed(env={f"BREAKERD_{name}": "" for name in names})[0] == printed()[0]


@pytest.mark.parametrize("args,words", [
    (["--stroe=memory"], ["--store?"]), (["--chekc-config"], ["--check-config?"]),
    (["--listen=8747"], ["host is missing", "127.0.0.1:8747"]),
    (["--prefix=\"stoma:\""], ["quotes"]),
    (["--store=redis://h1:1,h2:2"], ["redis-sentinel://", "a cluster is not supported"]),
])
def test_slips_are_told_what_would_be_right(args, words):
    done = run("--check-config", *args)
    assert done.returncode in (1, 2) and done.stdout == ""
    for word in words:
        assert word in done.stderr
    assert done.stderr.count("8747: ") <= 1, "the value is told twice"


def test_a_credential_that_only_the_start_sees_is_not_checked(directory):
    """systemd shows credentials to a service's start, not to its ExecReload, which runs --check-config."""
    hidden = "/run/credentials/breakerd-of-a-test.service/secret"
    given = ["--listen=0.0.0.0:0", f"--token-file={hidden}", "--store=redis://h", f"--redis-password-file={hidden}"]
    done = run("--check-config", *given)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for args in (given, ["--print-config", *given], ["--check-config", f"--token-file={directory}/none"]):
        done = run(*args)
        assert done.returncode == 1 and "No such file" in done.stderr, args


SECTIONS = """\
window = 20s
[policy api]
keys = /api/*, users-?
open_growth = 1.5
slow_time = 0.25s
[policy rest]
keys = *
ignore_status = 404, 410-412
"""


def test_policy_sections_round_trip(conf):
    text = run("--print-config", f"--config={conf(SECTIONS)}").stdout
    assert "[policy api]" in text and "slow_time = 250ms" in text
    again = run("--print-config", f"--config={conf(text, 'again.conf')}")
    assert (again.returncode, again.stderr) == (0, "")

    def plain(output):
        return [line for line in output.splitlines() if line and not line.startswith("#")]

    assert plain(again.stdout) == plain(text)


BAD_SECTIONS = {
    "no keys": ("[policy a]\nwindow = 5s\n", 1, ["policy a", "keys"]),
    "twice": ("[policy a]\nkeys = *\n[policy a]\nkeys = *\n", 3, ["policy a", "line 1"]),
    "other setting": ("[policy a]\nkeys = *\nttl = 5\n", 3, ["ttl"]),
    "unknown": ("[policy a]\nkeys = *\nopen_tmie = 5s\n", 3, ["open_tmie", "open_time?"]),
    "other section": ("[other]\n", 1, ["policy NAME"]),
    "range": ("[policy a]\nkeys = *\nwindow = 2h\n", 3, ["window", "1s to 1h"]),
    "inherited": ("open_time_max = 1m\n[policy a]\nkeys = *\nopen_time = 2m\n", 4,
                  ["open_time_max", "1m"]),
    "one daemon": ("min_reporters = 2\n", 1, ["min_reporters", "store"]),
    "both lists": ("ignore_status = 503\n", 1, ["503", "failure_status"]),
}


@pytest.mark.parametrize("text,line,words", BAD_SECTIONS.values(), ids=BAD_SECTIONS)
def test_error_in_a_policy_names_file_line_and_setting(conf, text, line, words):
    file = conf(text)
    refused(f"--config={file}", contains=[f"{file}:{line}", *words])


def test_hangup_refuses_a_contradiction(start, conf):
    daemon = start(config=conf(SECTIONS))
    conf(SECTIONS.replace("410-412", "404, 500"))
    daemon.hangup()
    until(lambda: refusals(daemon) == 1, "the reload is refused")
    assert "test.conf:8" in daemon.stderr().splitlines()[-1]
    conf(SECTIONS.replace("20s", "21s"))
    daemon.hangup()
    until(lambda: reloads(daemon) == 1, "the settings are reloaded")
    assert "restart_needed" not in daemon.stderr()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:8747"])
def test_other_than_loopback_needs_a_token(listen, directory):
    if listen.endswith(":0"):
        listen = listen[:-1] + "8747"
    refused(f"--listen={listen}", contains=["token_file", listen.rsplit(":", 1)[0].strip("[]")])
    refused("--check-config", f"--listen={listen}", contains="token_file")
    with open(f"{directory}/token", "w", encoding="ascii") as file:
        file.write("a-token-that-is-long\n")
    done = run("--check-config", f"--listen={listen}", f"--token-file={directory}/token")
    assert done.returncode == 0, done.stderr


def test_empty_token_file_is_refused(directory):
    for content in ("", "\n"):
        with open(f"{directory}/token", "w", encoding="ascii") as file:
            file.write(content)
        refused(f"--token-file={directory}/token", contains=["token"])


# --- SIGHUP ---


def reloads(daemon):
    return len(re.findall(r"\breloaded\b", daemon.stderr()))


def refusals(daemon):
    return len(re.findall(r"\breload_refused\b", daemon.stderr()))


def test_hangup_applies_a_good_file(start, conf):
    file = conf("max_body = 1000\nmax_circuits = 10\n")
    daemon = start(config=file)
    problem(daemon.post(path("a", "failure"), b"x" * 1001), "body_too_large", "no")
    conf("max_body = 2000\nmax_circuits = 10\nlog_level = debug\n")
    daemon.hangup()
    until(lambda: reloads(daemon) == 1, "the settings are reloaded")
    expect(daemon.post(path("a", "failure"), b"x" * 2000), failureCount=1)
    problem(daemon.post(path("a", "failure"), b"x" * 2001), "body_too_large", "no", contains="2000")
    until(lambda: "request" in daemon.stderr(), "log_level is debug")


def test_hangup_with_a_bad_file_changes_nothing(start, conf):
    file = conf("max_body = 1000\n")
    daemon = start(config=file)
    for n, bad in enumerate(("max_body = 2000\nnonsense = 1\n", "max_body = 2000\nttl = 0\n",
                             "max_body = 2000\nno pair\n"), 1):
        conf(bad)
        daemon.hangup()
        until(lambda n=n: refusals(daemon) == n, "the reload is refused")
        problem(daemon.post(path("a", "failure"), b"x" * 1001), "body_too_large", "no",
                contains="1000")
        assert f"{file}:2" in daemon.stderr().splitlines()[-1]
    assert daemon.lives() and reloads(daemon) == 0
    os.unlink(file)
    daemon.hangup()
    until(lambda: refusals(daemon) == 4, "the reload is refused")
    conf("max_body = 2000\n")
    daemon.hangup()
    until(lambda: reloads(daemon) == 1, "a good file is loaded")
    expect(daemon.post(path("a", "failure"), b"x" * 2000), failureCount=1)


def test_hangup_keeps_connections_and_circuits(start, conf):
    daemon = start(config=conf("ttl = 100\n"))
    daemon.post(path("a", "failure"))
    with daemon.wire() as wire:
        assert wire.ask("GET", path("a")).status == 200
        daemon.hangup()
        until(lambda: reloads(daemon) == 1, "the settings are reloaded")
        expect(wire.ask("GET", path("a")), failureCount=1)


@pytest.mark.parametrize("section", ["", "[policy a]\nkeys = *\n"], ids=["default", "section"])
def test_hangup_checks_policies_against_the_store_that_runs(start, conf, section):
    """A change of `store` needs a restart, one of a policy does not. min_reporters = 2 on the embedded store,
    which still runs, would never be reached."""
    daemon = start(config=conf("store = memory\nconsecutive_failures = 3\n"))
    conf(f"store = redis://127.0.0.1:1\nconsecutive_failures = 3\n{section}min_reporters = 2\n")
    daemon.hangup()
    until(lambda: refusals(daemon) + reloads(daemon) == 1, "the settings are reloaded or refused")
    states = [daemon.post(path("a", "report"), {"outcome": "failure"}).json()["state"]
              for _ in range(3)]
    assert states == ["closed", "closed", "open"]
    assert "min_reporters" in daemon.stderr() and "restart" in daemon.stderr()


def test_hangup_says_what_needs_a_restart(start, conf):
    daemon = start(config=conf("prefix = a:\n"))
    conf("prefix = b:\nttl = 5\n")
    daemon.hangup()
    until(lambda: reloads(daemon) == 1, "the settings are reloaded")
    lines = [line for line in daemon.stderr().splitlines() if "restart" in line]
    assert len(lines) == 1 and "prefix" in lines[0] and "ttl" not in lines[0]
    # Each reload logs restart_needed, as long as the running value and the file's differ.
    daemon.hangup()
    until(lambda: reloads(daemon) == 2, "the settings are reloaded again")
    assert daemon.stderr().count("restart_needed") == 2
    conf("prefix = a:\nttl = 5\n")
    daemon.hangup()
    until(lambda: reloads(daemon) == 3, "the old prefix is reloaded")
    assert daemon.stderr().count("restart_needed") == 2


def pipe_writer(name, text):
    """A thread that writes text into the pipe once somebody reads it."""
    def write():
        with open(name, "w", encoding="ascii") as file:
            file.write(text)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def test_a_hangup_before_the_settings_are_read_waits(directory):
    """A SIGHUP that comes while the settings file is read, before it has a handler, is not lost."""
    pipe = f"{directory}/pipe"
    os.mkfifo(pipe)
    daemon = Breakerd(directory, config=pipe)

    def hang_up():
        with open(pipe, "w", encoding="ascii") as file:  # breakerd has opened it
            until(lambda: daemon.process, "the process is known")
            daemon.hangup()
            file.write("ttl = 5\n")

    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    try:
        daemon.start()
        thread.join(10)
        assert daemon.get("/healthz").status == 200
        until(lambda: refusals(daemon) == 1, "the reload is refused, as a pipe cannot be read again")
        daemon.stop()
    finally:
        daemon.kill()


@pytest.mark.parametrize("what", ["config", "token_file"])
def test_hangup_keeps_a_token_that_came_from_a_pipe(start, conf, directory, what):
    """A pipe cannot be read again. The old token stays valid and required, and no request waits for the
    pipe."""
    pipe = f"{directory}/pipe"
    os.mkfifo(pipe)
    text = "secret" if what == "token_file" else f"token_file = {conf('secret', 'token')}\n"
    writer = pipe_writer(pipe, text)
    daemon = start(**{what: pipe})
    writer.join(10)
    assert daemon.get(path("a")).status == 401
    daemon.hangup()
    until(lambda: refusals(daemon) == 1, "the reload is refused")
    assert daemon.get(path("a")).status == 401
    assert daemon.get(path("a"), headers={"Authorization": "Bearer secret"}).status == 200
    assert "regular file" in daemon.stderr().splitlines()[-1]
