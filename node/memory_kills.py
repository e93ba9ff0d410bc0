"""The door to what the kernel says about processes that it killed for want of memory.

Never judges a death by itself: it only says whether there was such a kill in the last seconds that
nobody has claimed yet. The kernel counts these kills but does not name the killed. Looked at, in
this order, is the narrowest count that there is:

    cgroup v2   memory.events.local, else memory.events, of the node's own group
    cgroup v1   memory.oom_control of the node's own group
    otherwise   /proc/vmstat, of the whole machine
    none        no kill is ever seen: the death is told by its signal alone
"""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: a process with much memory takes its time to end after the kill was counted
CLAIM_S: Final = 10.0
#: so many kills are remembered; who counts more has nothing to tell apart any more
KILLS_MAX: Final = 4096

_WORD: Final = "oom_kill"


class MemoryKills:
    """Counts of the kernel, looked at again and again.

    Args:
        root: where /proc and /sys are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._file: Path | None = None
        self._count = 0
        self._seen: deque[float] = deque(maxlen=KILLS_MAX)
        for path in _places(root):
            count = _count_in(path)
            if count is not None:
                self._file, self._count = path, count
                break

    @property
    def source(self) -> str:
        """The file that is looked at, or ""."""
        return "" if self._file is None else str(self._file)

    def look(self, now_s: float) -> None:
        """See what was counted since the last look; to be called every few seconds."""
        if self._file is None:
            return
        count = _count_in(self._file)
        if count is None:
            return
        self._seen.extend(now_s for _ in range(min(count - self._count, KILLS_MAX)))
        self._count = count
        while self._seen and self._seen[0] < now_s - CLAIM_S:
            self._seen.popleft()

    def claim(self, now_s: float) -> bool:
        """Return whether a death that is told now may be one of these kills; it is used up."""
        self.look(now_s)
        if not self._seen:
            return False
        self._seen.popleft()
        return True


def _places(root: Path) -> Iterator[Path]:
    groups = _own_groups(root)
    for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
        for name in ("memory.events.local", "memory.events"):
            for group in groups.get("", ()):
                yield root / mount / group / name
    for group in groups.get("memory", ()):
        yield root / "sys/fs/cgroup/memory" / group / "memory.oom_control"
    yield root / "proc/vmstat"


def _own_groups(root: Path) -> dict[str, tuple[str, ...]]:
    """Return where this process is in each hierarchy, by controller ("": version 2)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            # In a container the path is that of the host, and the group itself is the mount.
            found[controller] = (path.strip("/"), "")
    return found


def _count_in(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        word, _, number = line.partition(" ")
        if word == _WORD and number.strip().isdigit():
            return int(number)
    return None
