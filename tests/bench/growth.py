"""What a request costs with more and more connections, and circuits. It should stay the same."""

import contextlib
import resource
import socket

import wrk

CONNECTIONS = (10, 100, 1000, 10000)
CIRCUITS = (1, 10, 100, 1000, 10000, 100000, 1000000)
ASKING = 10  # connections that send, among many
AT_ONCE = 16


def most_connections():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - 200


@contextlib.contextmanager
def idle(server, count):
    """Keeps `count` connections open, each of which has been used once."""
    with contextlib.ExitStack() as connections:
        for _ in range(count):
            connection = connections.enter_context(
                socket.create_connection(("127.0.0.1", server.port), timeout=10))
            connection.sendall(b"GET /v1/circuits/c1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            connection.recv(4096)
        yield


def row(server, kind, workload, size, figures):
    return {"server": server.name, "kind": kind, "workload": workload, "size": size, **figures}


def by_connections(server, seconds, patience, say):
    """Each number of connections twice: all busy, and 10 busy while the rest is idle."""
    rows = []
    limit = most_connections()
    for size in CONNECTIONS:
        if size > limit:
            print(f"{size} connections: not measured, this user may open {limit} files")
            continue
        # Connecting is part of the run: more connections need a longer one.
        figures = wrk.run(server, "read", 1, size, seconds + size // 1000, patience)
        rows.append(row(server, "busy connections", "read", size, figures))
        say(rows[-1])
        with idle(server, size - ASKING):
            figures = wrk.run(server, "read", 1, ASKING, seconds, patience)
        rows.append(row(server, "idle connections", "read", size, figures))
        say(rows[-1])
    return rows


def by_circuits(server, seconds, patience, say):
    rows = []
    for size in CIRCUITS:
        server.fill(size)
        for workload in ("read", "write"):
            figures = wrk.run(server, workload, size, AT_ONCE, seconds, patience)
            rows.append(row(server, "circuits", workload, size, figures))
            say(rows[-1])
    return rows
