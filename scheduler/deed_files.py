"""The files of detached actors: what each is made of, and how far it has come.

Never decides anything. What `keep` has written is safe from any crash when it returns; what it
could not write is not there at all. A file that cannot be read is laid aside, and keeps nobody
else from being created anew.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..protocol.codec import decoder, encode
from ..protocol.errors import RemoteProtocolError
from ..protocol.ids import TASK_BYTES
from .deeds import DEED_VERSION, Course, Deed, Will

DEED: Final = ".actor"
COURSE: Final = ".course"
BROKEN: Final = ".broken"
NEW: Final = ".new"

_deed: Callable[[bytes], Deed] = decoder(Deed)
_course: Callable[[bytes], Course] = decoder(Course)


class DeedFiles:
    """See the module.

    Args:
        path: the directory; made with the first file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        #: why files were laid aside
        self.complaints: list[str] = []

    def load(self) -> list[Will]:
        """Return what is kept, in the order of creation."""
        wills: list[tuple[int, Will]] = []
        try:
            names = sorted(os.listdir(self._path))
        except OSError:
            return []
        for name in names:
            path = self._path / name
            if name.endswith(NEW):
                with contextlib.suppress(OSError):
                    path.unlink()  # a life before ended while it wrote
            elif name.endswith(DEED):
                try:
                    wills.append((path.stat().st_mtime_ns, self._read(path)))
                except (OSError, ValueError, RemoteProtocolError) as error:
                    self._lay_aside(path, error)
        return [will for _, will in sorted(wills, key=lambda one: (one[0], one[1].deed.id))]

    def _read(self, path: Path) -> Will:
        deed = _deed(path.read_bytes())
        if deed.version != DEED_VERSION:
            raise ValueError(f"it is of version {deed.version}, not {DEED_VERSION}")
        if path.name != deed.id.hex() + DEED:
            raise ValueError("its name is not that of the actor in it")
        course = path.with_suffix(COURSE)
        try:
            return Will(deed, _course(course.read_bytes()))
        except FileNotFoundError:
            return Will(deed, Course())

    def _lay_aside(self, path: Path, error: Exception) -> None:
        aside = path.with_name(path.name + BROKEN)
        self.complaints.append(
            f"a detached actor is not created anew: {path} cannot be read ({error}); the file is "
            f"now {aside.name}"
        )
        with contextlib.suppress(OSError):
            path.replace(aside)

    def keep(self, deed: Deed) -> str:
        """Write down what an actor is made of; return why that could not be done, or ""."""
        return self._write(deed.id, DEED, encode(deed))

    def keep_course(self, id_: bytes, course: Course) -> str:
        """Write down how far an actor has come; return why that could not be done, or ""."""
        return self._write(id_, COURSE, encode(course))

    def drop(self, id_: bytes) -> str:
        """An actor has ended for good; return why its files could not be removed, or ""."""
        assert len(id_) == TASK_BYTES
        try:
            # In this order: without its deed nothing is created.
            for suffix in (DEED, COURSE):
                (self._path / (id_.hex() + suffix)).unlink(missing_ok=True)
                self._sync_directory()
        except OSError as error:
            return str(error)
        return ""

    def _write(self, id_: bytes, suffix: str, data: bytes) -> str:
        path = self._path / (id_.hex() + suffix)
        beside = path.with_name(path.name + NEW)
        try:
            self._path.mkdir(mode=0o700, exist_ok=True)
            try:
                with open(beside, "wb", opener=_own) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(path)
                self._sync_directory()
            except OSError:
                with contextlib.suppress(OSError):
                    beside.unlink()
                raise
        except OSError as error:
            return str(error)
        return ""

    def _sync_directory(self) -> None:
        if not self._path.is_dir():
            return
        directory = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _own(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
