"""Scheduler and node daemon pass pickles on and never open one, whatever is in them."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

AUDIT = Path(__file__).parents[1] / "support" / "audit"

PROGRAM = """
    import collections, decimal, json, os
    import drumbeat

    class Point:
        def __init__(self, x): self.x = x

    class OddError(Exception):
        pass

    @drumbeat.remote
    def shift(point, by):
        return Point(point.x + by)

    @drumbeat.remote
    def fails(point):
        raise OddError(point)

    @drumbeat.remote
    def keeps(box):
        own, deep = drumbeat.put(Point(5)), shift.remote(Point(1), 1)
        return {"inner": box["ref"], "own": own, "deep": deep}

    @drumbeat.remote(max_retries=1, retry_exceptions=OddError)
    def odd_twice(big):
        raise OddError(len(big))

    if __name__ == "__main__":
        with drumbeat.init(num_cpus=2) as cluster:
            point = shift.remote(Point(1), decimal.Decimal(2))
            assert drumbeat.get(shift.remote(point, 1)).x == 4
            kept = drumbeat.get(keeps.remote({"ref": point}))
            assert [drumbeat.get(ref).x for ref in kept.values()] == [3, 5, 2]
            for ref in (fails.remote(Point(1)), odd_twice.remote(b"x" * 300_000)):
                try:
                    drumbeat.get(ref)
                except OddError:
                    pass
                else:
                    raise AssertionError("no error")
            chained = shift.remote(fails.remote(Point(1)), 1)
            try:
                drumbeat.get(chained)
            except drumbeat.DependencyFailed:
                pass
            big = drumbeat.put([Point(1), collections.OrderedDict(a=b"x" * 300_000)])
            assert drumbeat.get(drumbeat.remote(len).remote(big)) == 2
            daemons = [node["pid"] for node in drumbeat.nodes()]
            print(json.dumps({"scheduler": cluster.processes["scheduler"], "daemons": daemons}))
"""


def test_neither_the_scheduler_nor_the_daemon_ever_opens_a_pickle(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(AUDIT), "AUDIT_DIRECTORY": str(notes)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pids = json.loads(done.stdout.splitlines()[-1])
    for pid in (pids["scheduler"], *pids["daemons"]):
        assert (notes / f"{pid}.listens").exists(), "the hook was there"
        assert not (notes / f"{pid}.opened").exists(), (notes / f"{pid}.opened").read_text()
    opened = "".join(file.read_text() for file in notes.glob("*.opened"))
    assert "Decimal" in opened, "workers and program did open them"
