"""The hardening options of compiler and linker, checked in the binary."""

import os
import re
import subprocess

import pytest

from breakerd import BINARY

SANITIZED = os.environ.get("SANITIZED") == "1"


def readelf(*options):
    done = subprocess.run(["readelf", "--wide", *options, BINARY], capture_output=True, text=True,
                          env={**os.environ, "LC_ALL": "C"}, check=True)
    return done.stdout


@pytest.fixture(scope="module", name="symbols")
def imported_symbols():
    return {line.split()[7].split("@")[0] for line in readelf("--dyn-syms").splitlines()
            if " UND " in line and len(line.split()) > 7}


def test_position_independent():
    assert re.search(r"Type:\s+DYN", readelf("--file-header"))
    assert re.search(r"\(FLAGS_1\).*\bPIE\b", readelf("--dynamic"))


def test_relocations_are_read_only_from_the_start():
    """Full RELRO: all symbols are bound at start, and the table is read-only afterwards."""
    assert "GNU_RELRO" in readelf("--program-headers")
    assert re.search(r"\(FLAGS\).*\bBIND_NOW\b|\(BIND_NOW\)", readelf("--dynamic"))
    assert re.search(r"\(FLAGS_1\).*\bNOW\b", readelf("--dynamic"))
    assert "TEXTREL" not in readelf("--dynamic")


def test_nothing_is_both_written_and_run():
    headers = readelf("--program-headers")
    flags = re.search(r"GNU_STACK(?:\s+0x[0-9a-f]+){5}\s+([RWE ]+?)\s+0x", headers)
    assert flags and "E" not in flags.group(1), headers
    for segment in re.findall(r"LOAD(?:\s+0x[0-9a-f]+){5}\s+([RWE ]+?)\s+0x", headers):
        assert not {"W", "E"} <= set(segment), headers


def test_stack_protector(symbols):
    assert "__stack_chk_fail" in symbols


@pytest.mark.skipif(SANITIZED, reason="_FORTIFY_SOURCE gets in the way of the sanitizers")
def test_fortified(symbols):
    """The checked variants replace the functions that can overrun a buffer."""
    assert {"__snprintf_chk", "__vsnprintf_chk"} <= symbols
    assert "gets" not in symbols


def test_no_libraries_from_anywhere():
    assert not re.search(r"\((RPATH|RUNPATH)\)", readelf("--dynamic"))
