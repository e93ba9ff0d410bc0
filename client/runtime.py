"""The directories of local clusters: where they lie, whose they are, which are dead.

Never follows a directory that somebody else could have made: owner and mode are checked.
"""

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Final

from ..protocol.errors import ConfigError
from ..protocol.settings import Settings

SOCKET: Final = "scheduler.sock"
LOCK: Final = "lock"
#: what the scheduler keeps over its end: its epoch, and who was there
STATE: Final = "scheduler.state"
#: as much as every system takes as the path of a Unix socket
PATH_BYTES_MAX: Final = 100
#: a directory without a lock is only just being made, unless it is older than this
MAKING_S: Final = 60.0


def root_of(settings: Settings) -> Path:
    """Return the directory in which this user's local clusters lie, made if need be.

    Raises:
        ConfigError: it cannot be made, or others could tamper with it.
    """
    if settings.runtime_directory:
        root = Path(settings.runtime_directory).absolute()
        origin = "the setting runtime_directory"
    else:
        own = os.environ.get("XDG_RUNTIME_DIR", "")
        if own and os.access(own, os.W_OK | os.X_OK):
            root = Path(own) / "drumbeat"
            origin = "XDG_RUNTIME_DIR"
        else:
            root = Path(f"/tmp/drumbeat-{os.geteuid()}")  # checked below
            origin = "the default"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = root.lstat()
    except OSError as error:
        raise _wrong(root, origin, f"cannot be made: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise _wrong(root, origin, "is not a directory")
    if found.st_uid != os.geteuid():
        raise _wrong(root, origin, f"belongs to user {found.st_uid}, not to you")
    if found.st_mode & 0o022:
        raise _wrong(root, origin, f"can be written to by others (chmod 700 {root})")
    return root


def scheduler_directory() -> Path:
    """Return where a scheduler for several machines keeps its keys if it is told no other place."""
    own = os.environ.get("XDG_STATE_HOME", "")
    # As the specification wants it: one that is not absolute is none.
    state = Path(own) if own.startswith("/") else Path.home() / ".local" / "state"
    return state / "drumbeat" / "cluster"


def holds_socket(path: Path) -> bool:
    """Return whether a scheduler's socket lies in a directory."""
    try:
        return stat.S_ISSOCK((path / SOCKET).stat().st_mode)
    except (OSError, ValueError):  # or no path at all, such as one with a zero byte in it
        return False


def distrust(path: Path) -> str:
    """Return why no cluster of this user can lie there, for people; "" where all is well."""
    try:
        found = path.lstat()
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link; name the directory itself"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}, not to you"
    if found.st_mode & 0o077:
        return f"is open to others (mode {stat.S_IMODE(found.st_mode):o}, and not 700)"
    return ""


def _wrong(root: Path, origin: str, text: str) -> ConfigError:
    return ConfigError(
        f"the runtime directory {root} (from {origin}) {text}; set runtime_directory to one of "
        "your own",
        setting="runtime_directory",
        origin=origin,
    )


class Directory:
    """One local cluster's directory, locked as long as its owner lives."""

    def __init__(self, root: Path) -> None:
        remove_dead(root)
        self.path = path = root / f"{os.getpid()}-{os.urandom(3).hex()}"
        socket = path / SOCKET
        if len(os.fsencode(socket)) > PATH_BYTES_MAX:
            raise ConfigError(
                f"{socket} is too long for a Unix socket ({PATH_BYTES_MAX} bytes at most); set "
                "runtime_directory to a shorter path",
                setting="runtime_directory",
            )
        path.mkdir(mode=0o700)
        self._lock_fd = os.open(path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock(self) -> None:
        """Give up the lock only: a forked child must not hold its parent's."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def remove(self) -> None:
        """Remove it with all that is in it."""
        _remove(self.path)
        self.unlock()


def remove_dead(root: Path) -> None:
    """Remove directories of clusters whose owner is gone."""
    for path in _directories(root):
        if _dead(path):
            _remove(path)


def _remove(path: Path) -> None:
    # Without shutil, which evaluates text as it is loaded: Python then forgets that it was Ctrl-C
    # that has ended the program, and its exit code would not say so.
    for folder, folders, files in os.walk(path, topdown=False):
        for name in (*files, *folders):
            inside = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                if name in files or os.path.islink(inside):
                    os.unlink(inside)
                else:
                    os.rmdir(inside)
    with contextlib.suppress(OSError):
        os.rmdir(path)


def running(settings: Settings) -> list[Path]:
    """Return the directories of this user's running local clusters, the newest first."""
    found = []
    for path in _directories(root_of(settings)):
        with contextlib.suppress(OSError):
            if (path / SOCKET).exists() and not _dead(path):
                found.append((path.stat().st_ctime, path))
    return [path for _, path in sorted(found, reverse=True)]


def _directories(root: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    return []


def _dead(path: Path) -> bool:
    try:
        lock_fd = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        try:
            return time.time() - path.stat().st_mtime > MAKING_S and "-" in path.name
        except OSError:
            return False
    except OSError:
        return False
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock_fd)
    return True
