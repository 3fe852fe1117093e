"""A small gateway in Python: gateway.py BREAKERD UPSTREAM THRESHOLD OPEN_SECONDS. Prints its port."""

import http.server
import os
import sys
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "five-operations"))
from breaker import OPEN, Breaker  # noqa: E402

BREAKERD, UPSTREAM, THRESHOLD, OPEN_SECONDS = sys.argv[1:]
breaker = Breaker(BREAKERD, "orders", int(THRESHOLD), float(OPEN_SECONDS), timeout=2.0)
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Gateway(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        permit = breaker.enter()
        if permit == OPEN:
            self.answer(503, b"the circuit is open\n")
            return
        status, body = 502, b"the upstream does not answer\n"
        try:
            with direct.open(UPSTREAM + self.path, timeout=5) as response:
                status, body = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        except OSError:
            pass
        finally:
            breaker.leave(permit, status < 500)
        self.answer(status, body)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
print(server.server_address[1], flush=True)
server.serve_forever()
