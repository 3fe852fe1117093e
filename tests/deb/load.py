#!/usr/bin/env python3
"""usage: load.py SECONDS: records failures over TCP and the unix socket, as fast as they are answered.

If a connection that has carried an answer is closed before any of the next one comes, the request is sent
again. Any other failure is an error. Prints the number of answers. Needs only python3-minimal."""

import socket
import sys
import threading
import time

REQUEST = (b"POST /v1/circuits/load/failure HTTP/1.1\r\nHost: localhost\r\n"
           b"Content-Length: 0\r\n\r\n")


def connect(address):
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    sock.settimeout(10)
    sock.connect(address)
    return sock


def ask(sock):
    """(answer, True), or what has come of it and False if the connection ended before."""
    answer = b""
    try:
        sock.sendall(REQUEST)
        while not (b"\r\n\r\n" in answer and answer.endswith(b"}\n")):
            data = sock.recv(65536)
            if not data:
                return answer, False
            answer += data
    except (BrokenPipeError, ConnectionResetError):
        return answer, False
    return answer, True


def client(address, keep, until, results):
    answered, error = 0, None
    try:
        sock, used = connect(address), False
        while time.monotonic() < until:
            answer, whole = ask(sock)
            if whole:
                if not answer.startswith(b"HTTP/1.1 200 "):
                    raise ValueError(answer)
                answered += 1
            elif answer or not used:
                raise ConnectionError(f"cut off after {answer!r}")
            used = True
            if not (whole and keep) or b"\r\nconnection: close" in answer.lower():
                sock.close()
                sock, used = connect(address), False
        sock.close()
    except (OSError, ValueError) as e:
        error = f"{address}: {e!r}"
    results.append((answered, error))


def main():
    results = []
    until = time.monotonic() + float(sys.argv[1])
    threads = [threading.Thread(target=client, args=(address, keep, until, results))
               for address in (("127.0.0.1", 8747), "/run/breakerd/breakerd.sock")
               for keep in (True, True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [error for _, error in results if error]
    print(sum(answered for answered, _ in results))
    if errors:
        sys.exit("\n".join(errors))


main()
