"""What tests that promise a time leave out of it."""

from pathlib import Path

import pytest
from support import stalls


def test_what_the_machine_kept_back_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / kind for kind in ("cpu", "io", "memory")]
    monkeypatch.setattr(stalls, "PRESSURE", paths)
    monkeypatch.setattr(stalls, "STATISTICS", tmp_path / "stat")
    monkeypatch.setattr(stalls.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(stalls.time, "monotonic", lambda: now_s)

    def told(total_us: int, stolen: int) -> None:
        for path in paths:
            path.write_text(f"some avg10=0.00 avg60=0.00 avg300=0.00 total={total_us}\nfull x\n")
        (tmp_path / "stat").write_text(f"cpu  1 2 3 4 5 6 7 {stolen} 0 0\n")

    now_s = 100.0
    told(1_000_000, 0)
    watch = stalls.Watch()
    now_s = 110.0
    assert (watch.all_s(), watch.own_s(), watch.stalled_s()) == (10.0, 10.0, 0.0)
    told(1_500_000, stalls.os.sysconf("SC_CLK_TCK"))
    assert watch.stalled_s() == pytest.approx(3 * 0.5 * 2 + 1.0)
    assert watch.own_s() == pytest.approx(6.0)
    told(90_000_000, 0)
    assert (watch.own_s(), watch.stalled_s()) == (0.0, 10.0), "never more than it took"
    paths[0].unlink()
    assert (watch.own_s(), watch.stalled_s()) == (0.0, 10.0), "who knows"
    assert stalls.Watch().stalled_s() == 0.0
