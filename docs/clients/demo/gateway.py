"""A small gateway in Python: gateway.py BREAKERD UPSTREAM. Prints its port."""

import http.server
import os
import sys
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))
from breakerd import CircuitOpen, Client  # noqa: E402

BREAKERD, UPSTREAM = sys.argv[1:]
client = Client(BREAKERD, timeout_ms=2000)
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask_the_upstream(path):
    try:
        with direct.open(UPSTREAM + path, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Gateway(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            with client.call("orders") as call:
                status, body = ask_the_upstream(self.path)
                call.status = status
        except CircuitOpen:
            status, body = 503, b"the circuit is open\n"
        except OSError:
            status, body = 502, b"the upstream does not answer\n"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
print(server.server_address[1], flush=True)
server.serve_forever()
