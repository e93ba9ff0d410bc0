"""Log files: bounded, whatever is written to them."""

from pathlib import Path

from drumbeat.client.logs import KEPT_BYTES, LOG_BYTES_MAX, TAIL_LINES, keep_short, tail_of


def test_a_log_that_is_too_long_is_begun_anew_and_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "scheduler.log"
    with open(path, "ab", buffering=0) as log:
        for turn in range(3):
            log.write(b"x" * LOG_BYTES_MAX + b"last words\n")
            assert keep_short(path)
            assert path.stat().st_size == 0
            log.write(b"turn %d\n" % turn)
            assert tail_of(path) == f"turn {turn}"
    kept = (tmp_path / "scheduler.log.1").read_bytes()
    assert len(kept) == KEPT_BYTES
    assert kept.endswith(b"last words\n")


def test_a_short_log_and_none_at_all_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    assert not keep_short(path)
    assert tail_of(path) == ""
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    assert not keep_short(path)
    last = [f"line {number}" for number in range(100 - TAIL_LINES, 100)]
    assert tail_of(path).splitlines() == last
