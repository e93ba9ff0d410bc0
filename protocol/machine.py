"""What the machine offers to tasks, CPUs, GPUs and memory, and which machine it is.

Never more than a container or an affinity mask allows: what a cgroup grants counts, not what the
machine has.
"""

import os
from _blake2 import blake2b  # the one of hashlib, which would load OpenSSL: 1.5 MB a process
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")
#: a control group's limit of memory and what it uses: version 2, version 1
_MEMORY_FILES: Final = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
_KIB: Final = 1024


def cpu_count(proc: Path = _PROC, cgroups: Path = _CGROUPS, affinity: int | None = None) -> int:
    """Return how many CPUs tasks may use, at least one.

    Args:
        proc: where the system describes processes.
        cgroups: where control groups are mounted.
        affinity: CPUs this process may be scheduled on; None: ask the system.
    """
    count = _affinity() if affinity is None else affinity
    for quota in _quotas(proc, cgroups):
        count = min(count, int(quota))
    return max(1, count)


def identity(proc: Path = _PROC, root: Path = Path("/")) -> str:
    """Return a word that is the same for two processes only if they see the same files.

    Names of hosts say nothing of that: two containers may both be called localhost, and one
    machine may go by two names. A system's boot has an id, and so has the file system at its root.

    Args:
        proc: where the system describes itself.
        root: the root of this process's files.
    """
    boot = "".join(_lines(proc / "sys/kernel/random/boot_id"))
    seen = root.stat()
    # Where boots have no id, a name has to do: better told apart too often than too seldom.
    parts = boot or f"named {os.uname().nodename}", seen.st_dev, seen.st_ino
    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def allow_files(wanted: int) -> None:
    """Let this process open so many files, as far as the system allows."""
    import resource  # seldom needed

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def give_back_memory() -> bool:
    """Give the system what this process has freed; return whether there is a way to.

    After an import: it leaves holes of some hundred KB, which nothing fills while nothing happens.
    """
    import ctypes

    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, TypeError, AttributeError):
        return False  # not the C library of GNU


def gpu_count(environ: Mapping[str, str] = os.environ, proc: Path = _PROC) -> int:
    """Return how many GPUs tasks may use: those made visible, else those that the driver shows."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        try:
            return len(list((proc / "driver/nvidia/gpus").iterdir()))
        except OSError:
            return 0
    count = 0
    for name in visible.split(","):
        # As CUDA reads it: what follows the first invalid name is invisible.
        if not name.strip() or name.strip().startswith("-"):
            break
        count += 1
    return count


class Processors:
    """How busy the machine's processors are, between one look and the next."""

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._busy, self._all = self._ticks()

    def used(self) -> float:
        """Return the share of their time that they worked since the last look; -1: unknown."""
        busy, total = self._ticks()
        worked, passed = busy - self._busy, total - self._all
        self._busy, self._all = busy, total
        return min(1.0, max(0.0, worked / passed)) if passed > 0 else -1.0

    def _ticks(self) -> tuple[int, int]:
        try:
            with open(self._proc / "stat", "rb") as file:
                words = file.readline().split()[1:9]
            user, nice, system, idle, waits, *others = map(int, words)
        except (OSError, ValueError):
            return 0, 0
        busy = user + nice + system + sum(others)
        return busy, busy + idle + waits


class Memory:
    """What is left of the memory that this process may use; its limits are looked up once."""

    def __init__(self, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> None:
        self._proc = proc
        #: the least that any limit allows; 0: it is not known
        self.total_bytes = total_bytes = _meminfo(proc).get("MemTotal", 0)
        #: files that tell what is used, and what of it is not needed; the limit
        self._places: list[tuple[Path, Path, int]] = []
        for directory in _cgroup_directories("memory", proc, cgroups):
            for limit, used in _MEMORY_FILES:
                words = _words(directory / limit)
                # Beyond what the machine has it is none; "max" is none either.
                if words and words[0].isdigit() and 0 < int(words[0]) < total_bytes:
                    stat = directory / "memory.stat"
                    self._places.append((directory / used, stat, int(words[0])))
                    self.total_bytes = min(self.total_bytes, int(words[0]))

    def look(self) -> tuple[int, int, int]:
        """Return (used of the machine, left where it is scarcest, of so much); 0 is unknown."""
        known = _meminfo(self._proc)
        total_bytes, free_bytes = known.get("MemTotal", 0), known.get("MemAvailable", 0)
        used_bytes, share = max(0, total_bytes - free_bytes), free_bytes / max(1, total_bytes)
        for path, stat, limit_bytes in self._places:
            words, counts = _words(path), _words(stat)
            if not words or not words[0].isdigit():
                continue
            # Pages of files that nobody uses are given back when they are needed.
            known_ = dict(zip(counts[::2], counts[1::2], strict=False))
            kept = int(known_.get("total_inactive_file") or known_.get("inactive_file") or 0)
            left_bytes = max(0, limit_bytes - int(words[0]) + kept)
            if left_bytes / limit_bytes < share:
                share, free_bytes, total_bytes = left_bytes / limit_bytes, left_bytes, limit_bytes
        return used_bytes, free_bytes, total_bytes


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(proc: Path, cgroups: Path) -> list[float]:
    """Return the CPU limits of this process's control groups, from its own up to the root's."""
    quotas = []
    for directory in _cgroup_directories("cpu", proc, cgroups):
        limit, period = [*_words(directory / "cpu.max"), "", ""][:2]
        if not limit:
            limit, period = (
                [*_words(directory / f"cpu.cfs_{name}_us"), ""][0] for name in ("quota", "period")
            )
        try:
            quota = float(limit) / float(period)
        except (ValueError, ZeroDivisionError):
            continue  # "max", or there is none
        if quota > 0:
            quotas.append(quota)
    return quotas


def _cgroup_directories(controller: str, proc: Path, cgroups: Path) -> list[Path]:
    """Return the directories that may limit this process: version 2 and version 1, root last."""
    found: dict[Path, None] = {}
    for line in _lines(proc / "self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = controllers.split(",") if controllers else []
        if names and controller not in names:
            continue
        # Version 1 mounts each controller, or a group of them, in a directory of its name.
        roots = [cgroups / controllers, cgroups / controller] if names else [cgroups]
        for root in roots:
            directory = root / path.strip("/")
            # In a container the path may be that of the host: only its root is to be seen.
            while directory != root:
                found[directory] = None
                directory = directory.parent
            found[root] = None
    return list(found)


def _meminfo(proc: Path) -> dict[str, int]:
    known = {}
    for line in _lines(proc / "meminfo"):
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            known[name] = int(words[0]) * _KIB
    return known


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
