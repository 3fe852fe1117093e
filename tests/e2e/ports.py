"""Free ports of the loopback interface."""

import random
import socket

# Below those that the kernel gives to outgoing connections (ip_local_port_range), which
# would take the port of a server that is down for a moment.
FIRST, LAST = 12000, 32000


def free_port(host="127.0.0.1"):
    """A port that nobody listened on a moment ago. Whoever binds it last may still lose it:
    the servers here are started again on another one when that happens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.randint(FIRST, LAST)
        with socket.socket(family, socket.SOCK_STREAM) as s:
            try:
                s.bind((host, port))
            except OSError:
                continue
            return port
