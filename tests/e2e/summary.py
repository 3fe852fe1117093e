"""A pytest plugin that prints, after the tests, what the contract test covered and the results of each
client. It reads the properties that tests recorded, because these also come from other processes (xdist)."""

import re


def pytest_terminal_summary(terminalreporter):
    reports = [(outcome, report) for outcome in ("passed", "failed", "error", "skipped")
               for report in terminalreporter.getreports(outcome)
               if report.when == "call" or outcome != "passed"]
    openapi(terminalreporter, reports)
    clients(terminalreporter, reports)


def openapi(terminalreporter, reports):
    answers, documented = set(), None
    for _, report in reports:
        properties = dict(report.user_properties)
        documented = properties.get("documented", documented)
        if "covered" in properties:
            answers.add(tuple(properties["covered"]))
    if documented:
        operations = {answer[:2] for answer in answers}
        terminalreporter.section("contract")
        terminalreporter.line(f"openapi.yaml: {len(operations)} of {documented[0]} operations covered, "
                              f"{len(answers)} of {documented[1]} answers")


def clients(terminalreporter, reports):
    rows = {}
    for outcome, report in reports:
        match = re.search(r"test_clients(?:_daemon)?\.py::\w+\[([^-\]]+)", report.nodeid)
        if match and not report.nodeid.split("::")[1].startswith("test_packages"):
            row = rows.setdefault(match[1], {"version": "not here: skipped"})
            row.update(report.user_properties)
            row[outcome] = row.get(outcome, 0) + 1
    if rows:
        terminalreporter.section("clients")
        terminalreporter.line(f"{'language':10}{'tested with':28}{'passed':>7}{'failed':>7}")
    for name, row in sorted(rows.items()):
        failed = row.get("failed", 0) + row.get("error", 0)
        terminalreporter.line(f"{name:10}{row['version']:28}{row.get('passed', 0):7}{failed:7}")
