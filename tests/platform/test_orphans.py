"""What the kernel does with orphans: what the promises of node/keeper.py rest on."""

import os
import sys
import time

import pytest
from drumbeat.node import kernel

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        sys.platform != "linux",
        reason="shows whom Linux gives orphans to; no other kernel has sub-reapers",
    ),
]


def parent_of(pid: int, but: int) -> int:
    """Return the parent of a process as soon as it is another than `but`."""
    until_s = time.monotonic() + 5
    while True:
        with open(f"/proc/{pid}/stat") as file:
            parent = int(file.read().rpartition(")")[2].split()[1])
        if parent != but:
            return parent
        assert time.monotonic() < until_s
        time.sleep(0.005)


def test_an_orphan_goes_to_the_nearest_sub_reaper_above_its_parent_and_to_no_cousin() -> None:
    """Top (sub-reaper) > keeper (sub-reaper) > worker > grandchild, and a cousin > template."""
    read, write = os.pipe()
    top = os.fork()
    if not top:
        kernel.adopt_orphans()
        keeper = os.fork()
        if not keeper:
            kernel.adopt_orphans()
            template = os.fork()
            if not template:
                kernel.adopt_orphans()
                time.sleep(60)
            worker = os.fork()
            if not worker:
                grandchild = os.fork()
                if not grandchild:
                    os.setsid()
                    time.sleep(60)
                os.write(write, f"{os.getppid()} {template} {os.getpid()} ".encode())
                os.write(write, f"{grandchild}\n".encode())
            time.sleep(60)
        time.sleep(60)
    os.close(write)
    with open(read) as file:
        keeper, template, worker, grandchild = map(int, file.readline().split())
    try:
        os.kill(worker, 9)
        assert parent_of(grandchild, but=worker) == keeper
        os.kill(keeper, 9)
        # The template is a sub-reaper too, and alive: but nobody above the grandchild.
        assert parent_of(grandchild, but=keeper) == top
        assert parent_of(template, but=keeper) == top
        os.kill(top, 9)
        os.waitpid(top, 0)
        assert parent_of(grandchild, but=top) not in (template, keeper)
    finally:
        for pid in (grandchild, template):
            os.kill(pid, 9)
