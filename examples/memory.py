"""Who uses how much memory while something runs: for the examples with large data.

Never measures more than this program and the processes that it has started. What several
processes have mapped counts as shared; what is private would be gone with its process.
"""

import threading
from contextlib import suppress
from typing import Self

import psutil

MB = 1e6


class Watch:
    """Looks at the program's processes again and again; `with Watch() as watch`, then `print`."""

    def __init__(self, interval_s: float = 0.25) -> None:
        self._interval_s = interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        #: by what a process is and its pid: the most that was private, and shared, at a time
        self.peaks: dict[tuple[str, int], tuple[float, float]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        program = psutil.Process()
        while True:
            for process in (program, *program.children(recursive=True)):
                with suppress(psutil.Error):
                    self._note(process, process.pid == program.pid)
            if self._over.wait(self._interval_s):
                return

    def _note(self, process: psutil.Process, is_program: bool) -> None:
        words = " ".join(process.cmdline())
        what = next((name for name in ("scheduler", "node") if f"drumbeat.{name}" in words), "")
        key = "the program" if is_program else what or "other", process.pid
        used = process.memory_info()
        shared = float(getattr(used, "shared", 0))
        private, before = used.rss - shared, self.peaks.get(key, (0.0, 0.0))
        self.peaks[key] = max(before[0], private), max(before[1], shared)

    def print(self) -> None:
        """Print the most that each process used."""
        print(f"{'process':<14}{'pid':>8}{'private MB':>12}{'shared MB':>12}")
        for (what, pid), (private, shared) in sorted(self.peaks.items()):
            print(f"{what:<14}{pid:>8}{private / MB:>12,.0f}{shared / MB:>12,.0f}")
