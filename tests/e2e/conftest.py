"""Fixtures. What a test starts ends with the test, also when the test fails."""

import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import breakerd as daemon_module  # noqa: E402
from breakerd import Breakerd  # noqa: E402
from redis_server import RedisServer  # noqa: E402

STORES = ("memory", "redis")
pytest_plugins = ("summary", "client_drivers")


def pytest_sessionstart(session):
    del session
    if not os.access(daemon_module.BINARY, os.X_OK):
        pytest.exit(f"no breakerd at {daemon_module.BINARY}: run make, or set BREAKERD", 2)
    if shutil.which("redis-server") is None:
        pytest.exit("no redis-server: install Debian's package redis-server", 2)


@pytest.fixture
def directory():
    """A temporary directory with a short path, because a unix socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="brk-", dir="/tmp") as path:
        yield path


@pytest.fixture(scope="session")
def _shared_redis():
    with tempfile.TemporaryDirectory(prefix="brk-", dir="/tmp") as path:
        server = RedisServer(path).start()
        yield server
        server.kill()


@pytest.fixture
def redis(_shared_redis):
    """An empty redis-server, shared by the tests that change only its data. Tests that configure,
    freeze or kill a server take `private_redis`."""
    _shared_redis.call("FLUSHALL")
    _shared_redis.call("SCRIPT", "FLUSH")
    return _shared_redis


@pytest.fixture
def private_redis(directory):
    """private_redis(*options, env=None) starts a redis-server for this test alone."""
    servers = []

    def start(*options, env=None):
        server = RedisServer(os.path.join(directory, f"r{len(servers)}"), *options, env=env)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def start(directory, request):
    """start(*args, env=None, **settings) starts a daemon; all of them must stop cleanly."""
    daemons = []

    def start_one(*args, env=None, under=(), **settings):
        daemon = Breakerd(directory, args, env, under, **settings)
        daemons.append(daemon)
        return daemon.start()

    yield start_one
    failed = getattr(request.node, "failed", False)
    try:
        for daemon in daemons:
            if failed:
                print(f"--- stderr of {' '.join(daemon.process.args)}\n{daemon.stderr()[-5000:]}")
            daemon.stop()
    finally:
        for daemon in daemons:
            daemon.kill()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call" and outcome.get_result().failed:
        item.failed = True


@pytest.fixture(params=STORES)
def store(request):
    return request.param


@pytest.fixture
def start_on(request, start):
    """start_on(store, **settings): a daemon on that store, ready."""

    def start_one(kind, *args, **settings):
        if kind == "redis":
            settings["store"] = request.getfixturevalue("redis").url
            # Long, so that the daemon does not answer without Redis because the machine is busy.
            settings.setdefault("store_timeout", 5000)
        daemon = start(*args, **settings)
        return daemon.wait_ready() if kind == "redis" else daemon

    return start_one


@pytest.fixture
def daemon(start_on, store):
    """A daemon with an empty store. The test runs once on each kind of store."""
    return start_on(store)


@pytest.fixture
def memory_daemon(start_on):
    return start_on("memory")


@pytest.fixture
def redis_daemon(start_on):
    return start_on("redis")
