"""`python -m drumbeat.node`: what it takes, and what it must not load."""

import subprocess
import sys

import pytest
from drumbeat.node.__main__ import EXIT_USAGE, main


def test_the_keeper_loads_no_zeromq() -> None:
    code = "import sys, drumbeat.node.__main__; sys.exit('zmq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--resources", "[1]"], "JSON object"),
        (["--resources", '{"disk": -1}'], "disk"),
        (["--resources", '{"disk": true}'], "disk"),
        (["--resources", "{"], "Expecting"),
        (["--num-cpus", "-1"], "--num-cpus"),
        (["--num-gpus", "inf"], "--num-gpus"),
        (["--settings", '{"no_such": 1}'], "no_such"),
        (["--settings", '{"packet_s": -1}'], "packet_s"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    flags: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--directory", "/nowhere", *flags]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert word in said
    assert said.count("\n") == 1
