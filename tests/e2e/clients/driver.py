"""What test_clients.py drives docs/clients/breaker.py with. The others here do the same:

arguments URL KEY THRESHOLD OPEN_MS TOKEN TIMEOUT_MS; each line `enter` is answered with the permit, each line
`leave PERMIT ok` or `leave PERMIT failed` with `done`.
"""

import sys

sys.path.insert(0, sys.argv.pop(1))
from breaker import Breaker  # noqa: E402

url, key, threshold, open_ms, token, timeout_ms = sys.argv[1:]
breaker = Breaker(url, key, int(threshold), int(open_ms) / 1000, int(timeout_ms) / 1000, token)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "enter":
        print(breaker.enter(), flush=True)
    else:
        breaker.leave(rest[0], rest[1] == "ok")
        print("done", flush=True)
