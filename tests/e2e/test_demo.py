"""`make demo` prints what README.md shows."""

import os
import re
import subprocess

from breakerd import BINARY, ROOT, environment


def test_the_demonstration():
    done = subprocess.run(["/usr/bin/python3", "-B", os.path.join(ROOT, "docs/clients/demo/demo.py"), BINARY],
                          stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=60,
                          env=environment({"http_proxy": "http://127.0.0.1:9"}), check=False)
    assert done.returncode == 0, done.stderr
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        recorded = re.search(r"^```console\n\$ make demo\n(.*?)^```$", file.read(), re.DOTALL | re.MULTILINE)[1]
    assert done.stdout == recorded
    # Failures of both gateways trip the circuit, and both are refused: no request reaches the upstream until the probe.
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r" *\d+  (Python|Node)", line)]
    trip = next(n for n, row in enumerate(rows) if row[-2] == "open")
    assert {row[1] for row in rows[:trip] if row[2] == "500"} == {"Python", "Node"}
    assert {(row[1], row[2], row[5]) for row in rows[trip + 1:trip + 4]} == {("Python", "503", "no"), ("Node", "503", "no")}
