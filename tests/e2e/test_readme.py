"""README.md shows what a fresh daemon prints, and the documents' links and commands are right."""

import os
import re
import subprocess

import pytest

from breakerd import ROOT, run

ADDRESS = "127.0.0.1:8747"


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as f:
        return f.read()


def transcript():
    """[(command, output)...] of the ```console blocks that ask the daemon, in order."""
    steps = []
    for block in re.findall(r"^```console\n(.*?)^```", read("README.md"), re.M | re.S):
        for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = step.partition("\n")
            steps.append((command, output))
    return [(command, output) for command, output in steps if ADDRESS in command]


def timeless(text):
    """The text with placeholders for what differs from run to run."""
    text = re.sub(r"\b1\d{12}\b", "STAMP", text)
    text = re.sub(r'"retryAfterMs":29\d{3}\b', '"retryAfterMs":REST', text)
    text = re.sub(r"^(open|half-open)( +)\d+s\b", r"\1\2AGE", text, flags=re.M)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "STAMP", text).rstrip("\n")


def test_readme_tells_the_truth(start):
    daemon = start()
    steps = transcript()
    assert len(steps) >= 5
    for command, expected in steps:
        here = command.replace(ADDRESS, daemon.host).replace("curl ", "curl -sS ", 1)
        printed = subprocess.run(["sh", "-c", here], stdout=subprocess.PIPE, timeout=20, check=True,
                                 stdin=subprocess.DEVNULL).stdout.decode("utf-8")
        assert timeless(printed.replace(daemon.host, ADDRESS)) == timeless(expected), command


def test_make_run_shows_lines_of_the_readme():
    lines = re.findall(r"^  ((?:curl|for) .*)$", read("scripts", "run"), re.M)
    assert len(lines) == 5
    assert lines == [command for command, _ in transcript()][:5]


@pytest.mark.parametrize("page", ["README.md", "docs/configuration.md", "docs/guide.md", "docs/redis.md",
                                  "docs/development.md"])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(page)):
        if "://" not in target:
            path = os.path.join(ROOT, os.path.dirname(page), target)
            assert os.path.exists(path), target


def test_configuration_md_has_every_setting_and_its_default():
    done = run("--print-config")
    settings = dict(re.findall(r"^(?:# )?([a-z_]+) = ?(.*)$", done.stdout, re.M))
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \|", read("docs", "configuration.md"), re.M))
    assert set(rows) == set(settings)
    for name, default in rows.items():
        if name != "allowed_hosts":  # made from the addresses listened on
            assert default.strip().strip("`") == (settings[name] or "none"), name


def test_operations_md_names_what_only_a_restart_changes():
    manual = read("docs", "breakerd.conf.5").split("\n.It Ic ")[1:]
    marked = {part.partition("\n")[0] for part in manual if re.search(r"^\.Sy .*[Rr]estart\\&\.$", part, re.M)}
    named = re.search(r"\(`restart_needed`\): (.*?)\.\n", read("docs", "operations.md"), re.S).group(1)
    assert set(re.findall(r"`(\w+)`", named)) == marked


def test_operations_md_has_each_line_of_the_log():
    """docs/operations.md has each line of the log of the levels info, warning and error."""
    sources = "".join(read(path, name) for path, _, names in os.walk(os.path.join(ROOT, "daemon"))
                      for name in names if name.endswith(".c"))
    tokens = set(re.findall(r"\blog_(?:info|warning|error)\(\s*[^;\"]*?,\s*\"([a-z_]+)\"", sources))
    tokens |= set(re.findall(r"\blog_state_say\([^;\"]*\"([a-z_]+)\"", sources))
    assert len(tokens) > 30
    manual = read("docs", "operations.md")
    assert not [token for token in sorted(tokens) if f"`{token}`" not in manual]


def test_each_command_has_its_place_in_a_clean_tree():
    """`make readme-try` runs each command of README.md and CONTRIBUTING.md in a clean tree of Debian, or tells why not.
    `--list` lists the commands without such a tree."""
    done = subprocess.run([os.path.join(ROOT, "tests", "deb", "readme"), "--list"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=20, check=False, universal_newlines=True)
    assert done.returncode == 0, done.stderr
    typed = [line.split("\t") for line in done.stdout.splitlines()]
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", read("README.md") + read("CONTRIBUTING.md"), re.M | re.S))
    commands = [re.sub(r" +# .*", "", line) for line in blocks.splitlines() if line]
    assert len(commands) >= 15
    assert {command for command, _ in transcript()} | set(commands) <= {command for _, _, command in typed}
