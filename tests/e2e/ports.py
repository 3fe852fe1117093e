"""Free ports of the loopback interface."""

import os
import random
import socket

# Below the kernel's range for outgoing connections (ip_local_port_range): such a connection could
# take the port of a server that is down for a moment.
FIRST, LAST = 12000, 32000
# Each worker of pytest-xdist has a part of the range: whoever waits for its own server to listen would
# take another worker's on the same port for it.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free_port(host="127.0.0.1"):
    """A port that nobody listened on a moment ago. Another process may still take it before it is
    bound; then the servers here are started again on another port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.randrange(FIRST + WORKER, LAST, WORKERS)
        with socket.socket(family, socket.SOCK_STREAM) as s:
            try:
                s.bind((host, port))
            except OSError:
                continue
            return port
