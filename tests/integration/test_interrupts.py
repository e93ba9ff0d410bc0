"""Ctrl-C in the first moments of a program or a command is one plain line."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

#: seconds after the first line of the program
MOMENTS_S = (0.0, 0.03, 0.08, 0.15, 0.25, 0.4, 0.6, 0.9)

PROGRAM = """
    import signal, typing, importlib
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import drumbeat
    print("begun", flush=True)
    drumbeat.remote
    drumbeat.init()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("up", flush=True)
"""
COMMAND = """
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from drumbeat.client import cli
    from drumbeat.protocol import interrupts
    interrupts.leave_at_once()
    print("begun", flush=True)
    cli.main({arguments!r})
"""


def interrupted(program: str, after_s: float, runtime: Path) -> tuple[int, str, str]:
    """Run a program, interrupt it, and return its exit code and what it wrote."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": str(runtime)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("i")  # short: the paths of sockets have little room


def test_a_program_that_is_interrupted_while_its_cluster_starts_says_so_in_one_line(
    runtime: Path,
) -> None:
    lines = []
    for after_s in MOMENTS_S:
        code, out, err = interrupted(PROGRAM, after_s, runtime)
        if "up" in out:
            continue  # too late: it went on
        assert code == -signal.SIGINT, err
        assert err.startswith("drumbeat: interrupted while "), err
        assert err.count("\n") == 1
        lines.append(err)
    assert lines
    assert not list(runtime.iterdir())  # and nothing is left of the cluster


AMID = """
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import drumbeat
    class Interrupts:  # as Ctrl-C does it, in the very middle of what is loaded
        def find_spec(self, name, path, target=None):
            if name == {name!r}:
                sys.meta_path.remove(self)
                signal.raise_signal(signal.SIGINT)
                print("goes on")
    sys.meta_path.insert(0, Interrupts())
    try:
        drumbeat.init(num_cpus=1)
    except KeyboardInterrupt:
        print("interrupted", {name!r} in sys.modules)
    with drumbeat.init(num_cpus=1):
        print(drumbeat.get(drumbeat.remote(abs).remote(-3)))
"""


@pytest.mark.parametrize("name", ["drumbeat.protocol.parcels", "drumbeat.protocol.transport"])
def test_an_interrupt_while_it_is_loaded_comes_when_that_is_over_and_all_works_afterwards(
    runtime: Path, name: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(AMID).format(name=name)],
        capture_output=True, text=True, timeout=60, check=False, start_new_session=True,
        env={**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": str(runtime)},
    )  # fmt: skip
    assert done.stdout.split("\n") == ["goes on", "interrupted True", "3", ""], done.stderr


@pytest.mark.parametrize("arguments", [["scheduler", "--listen", "127.0.0.1:0"], ["status"]])
def test_a_command_that_is_interrupted_as_it_begins_says_so_in_one_line(
    runtime: Path, arguments: Sequence[str]
) -> None:
    endings = set()
    for after_s in MOMENTS_S[:5]:
        code, _, err = interrupted(COMMAND.format(arguments=arguments), after_s, runtime)
        assert "Traceback" not in err
        assert err.count("\n") <= 1
        endings.add((code, err))
    assert (130, "drumbeat: interrupted\n") in endings


WHILE_READ = """
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from drumbeat.client import cli, cli_commands
    cli_commands.Commands.make_context = lambda *_, **__: signal.raise_signal(signal.SIGINT)
    cli.main(["status"])
"""


def test_an_interrupt_while_the_command_line_is_read_is_one_line_too() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(WHILE_READ)],
        capture_output=True, text=True, timeout=60, check=False, start_new_session=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "drumbeat: interrupted\n")
