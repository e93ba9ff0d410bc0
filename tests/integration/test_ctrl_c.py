"""Ctrl-C while a program waits: it ends at once, says so once, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from support.stalls import Watch

#: what the program does when it comes; each would take a minute
WAYS = {
    "get": "drumbeat.get([slow.remote(60) for _ in range(6)])",
    "result": "slow.remote(60).result()",
    "wait": "drumbeat.wait([slow.remote(60) for _ in range(6)])",
    "map": "list(drumbeat.map(time.sleep, [60] * 6))",
    "as_completed": "list(drumbeat.as_completed([slow.remote(60) for _ in range(6)]))",
    "as_completed of many": "list(drumbeat.as_completed([slow.remote(60) for _ in range(80)]))",
    "a result within an executor": """
        with drumbeat.Executor() as executor:
            executor.submit(time.sleep, 60).result()
        """,
    "the body of an executor with places": """
        with drumbeat.Executor(max_workers=1) as executor:
            for _ in range(6):
                executor.submit(time.sleep, 60)
            time.sleep(60)
        """,
    "the end of an executor": """
        with drumbeat.Executor() as executor:
            executor.submit(time.sleep, 60)
        """,
    "an executor's map": """
        with drumbeat.Executor() as executor:
            list(executor.map(time.sleep, [60] * 6))
        """,
    "an executor that nobody shuts down": """
        executor = drumbeat.Executor()
        executor.submit(time.sleep, 60).result()
        """,
}
PROGRAM = """
import concurrent.futures, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import drumbeat
drumbeat.init(num_cpus=2)
slow = drumbeat.remote(time.sleep)
drumbeat.get([slow.remote(0.01) for _ in range(2)])
drumbeat.Executor  # is loaded here: an interrupt amid that is another matter
print("waits", flush=True)
"""


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c")  # short: the paths of sockets have little room


def begun(
    program: str, runtime: Path, says: str = "waits"
) -> tuple["subprocess.Popen[str]", list[psutil.Process]]:
    """Start a program; return it with its children when it has come to where it waits.

    Args:
        program: what it does there.
        runtime: a directory of its own.
        says: the end of the last line that it prints before that.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM + textwrap.dedent(program)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": str(runtime)},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith(f"{says}\n"):
            break
    else:
        raise AssertionError(process.communicate()[1])
    time.sleep(0.3)
    return process, psutil.Process(process.pid).children(recursive=True)


def ended(process: "subprocess.Popen[str]", children: list[psutil.Process]) -> tuple[float, str]:
    """Interrupt it; return how long it went on of its own, and what it wrote."""
    watch = Watch()
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    took_s = watch.own_s()
    _, left = psutil.wait_procs(children, timeout=20)
    assert not left
    return took_s, err


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_ends_a_program_that_waits_with_all_that_it_started(way: str, runtime: Path) -> None:
    process, children = begun(WAYS[way], runtime)
    assert len(children) >= 4  # the scheduler, a keeper, its daemon, a worker
    took_s, err = ended(process, children)
    assert took_s < 1.5, err  # it takes a third of a second
    assert process.returncode == -signal.SIGINT, err
    assert err.count("KeyboardInterrupt") == 1, err
    assert err.rstrip().endswith("KeyboardInterrupt"), err


def test_ctrl_c_while_a_program_waits_for_its_executors_at_its_end_is_one_line(
    runtime: Path,
) -> None:
    program = """
        import atexit
        drumbeat.Executor().submit(time.sleep, 60)
        atexit.register(print, "at its end", flush=True)  # the last one is called first
        """
    process, children = begun(program, runtime, "at its end")
    took_s, err = ended(process, children)
    assert took_s < 1.5, err
    assert err == "drumbeat: interrupted while executors had calls; these are cancelled\n"


def test_a_call_is_cancelled_when_ctrl_c_leads_out_of_its_executor(runtime: Path) -> None:
    process, children = begun(
        """
        def marked():
            try:
                print("runs", flush=True)
                time.sleep(60)
            finally:
                print("is cleaned up", flush=True)

        try:
            with drumbeat.Executor() as executor:
                future = executor.submit(marked)
                time.sleep(60)
        except KeyboardInterrupt:
            concurrent.futures.wait([future], 5)
            print("cancelled:", future.cancelled())
            print(drumbeat.get(drumbeat.remote(abs).remote(-1), timeout=10))
            try:
                executor.submit(abs, 1)
            except RuntimeError as refused:
                print(refused)
        """,
        runtime,
        "runs",
    )
    watch = Watch()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert watch.own_s() < 5
    assert process.returncode == 0, err
    assert "cancelled: True" in out
    assert "is cleaned up" in out + err
    assert "\n1\n" in out
    assert "cannot schedule new futures after shutdown" in out
    _, left = psutil.wait_procs(children, timeout=20)
    assert not left
