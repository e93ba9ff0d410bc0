"""A scheduler that ends, or dies, while it writes detached actors down, and what it leaves."""

import subprocess
import sys
from pathlib import Path

import pytest
from drumbeat.scheduler.deed_files import DeedFiles
from support.deeds import deed

pytestmark = pytest.mark.integration

#: a scheduler whose disk is slow once it has begun to write the first actor
SCHEDULER = """
import os, select, sys, threading, time
from pathlib import Path
from drumbeat.protocol.settings import Settings
from drumbeat.scheduler import events
from drumbeat.scheduler.deed_files import DeedFiles
from drumbeat.scheduler.service import Service
from drumbeat.scheduler.statefile import StateFile
from support.deeds import deed

began, real = threading.Event(), DeedFiles.keep_packed

def slow(self, deeds):
    began.set()
    time.sleep(0.3)
    return real(self, deeds)

DeedFiles.keep_packed = slow
directory = Path(sys.argv[1])
service = Service(f"ipc://{directory}/socket", Settings(), StateFile(directory / "state"))
service._carry_out([events.Keep(deed("a"))])
assert began.wait(10)
"""


def left_by(directory: Path, text: str, code: int) -> list[bytes]:
    """Run a scheduler to its end; return which actors the next life finds."""
    ended = subprocess.run(
        [sys.executable, "-c", SCHEDULER + text, str(directory)],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    return [will.deed.id for will in DeedFiles(directory / "state.actors").load()]


def test_what_is_being_written_when_the_scheduler_is_told_to_end_is_written(tmp_path: Path) -> None:
    text = "service._on_term(15, None)\nsys.exit(service.run())\n"
    assert left_by(tmp_path, text, 0) == [deed("a").id]


def test_who_ended_while_he_was_written_is_not_there_when_the_scheduler_dies_at_once(
    tmp_path: Path,
) -> None:
    text = """
service._carry_out([events.Keep(deed("b")), events.Keep(deed("c"))])
service._carry_out([events.Unkeep(deed("a").id), events.Unkeep(deed("b").id)])
kept = []
while deed("c").id not in kept:
    assert select.select([service._writer.wake_fd], [], [], 10)[0]
    kept += [id_ for id_, _ in service._writer.take()[0]]
os._exit(9)
"""
    assert left_by(tmp_path, text, 9) == [deed("c").id]
