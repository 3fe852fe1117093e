"""Free ports of the loopback interface."""

import socket


def free_port(host="127.0.0.1"):
    """A port that nobody listened on a moment ago. Whoever binds it last may still lose it:
    the servers here are started again on another one when that happens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.bind((host, 0))
        return s.getsockname()[1]
