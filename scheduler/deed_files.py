"""The files of detached actors: what each is made of, and how far it has come.

Never decides anything. What is written is safe from any crash when the call returns; what could
not be written is not there at all. Of many files at once each is waited for only after all have
been handed to the disk, and the directory once. A file whose contents are broken is laid aside, one
that cannot be read now is left for the next life; neither keeps anybody else from being created
anew.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ..protocol.codec import decoder, encode
from ..protocol.errors import RemoteProtocolError
from ..protocol.ids import TASK_BYTES, show
from .deeds import DEED_VERSION, Course, Deed, Will

DEED: Final = ".actor"
COURSE: Final = ".course"
BROKEN: Final = ".broken"
#: so many files are open at once: peers need descriptors, too
TOGETHER_MAX: Final = 16
#: so many are tried again at once to be removed: whoever does it hears nobody meanwhile
AGAIN_MAX: Final = 64
#: of so many it is known that they are to be removed; of more the next life hears, and its callers
LEFT_MAX: Final = 10_000
NEW: Final = ".new"

#: no descriptor is left, in this process or on this machine
_NONE_LEFT: Final = (errno.EMFILE, errno.ENFILE)
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW

_deed: Callable[[bytes], Deed] = decoder(Deed)
_course: Callable[[bytes], Course] = decoder(Course)


class DeedFiles:
    """See the module.

    Args:
        path: the directory; made with the first file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        #: which actors are not created anew, and why
        self.complaints: list[str] = []
        #: names of actors that have ended, whose files could not be removed; longest ago first
        self._left: dict[str, None] = {}

    @property
    def left(self) -> int:
        """How many actors have ended whose files are still to be removed."""
        return len(self._left)

    def load(self) -> list[Will]:
        """Return what is kept, in the order of creation."""
        wills: list[tuple[int, Will]] = []
        try:
            names = sorted(os.listdir(self._path))
        except FileNotFoundError:
            return []
        except OSError as error:
            self.complaints.append(
                f"no detached actor is created anew: {self._path} cannot be read ({error}); mend "
                "that and start the scheduler again"
            )
            return []
        deeds = {name for name in names if name.endswith(DEED)}
        for name in names:
            path = self._path / name
            orphan = name.endswith(COURSE) and path.with_suffix(DEED).name not in deeds
            if name.endswith(NEW) or orphan:
                with contextlib.suppress(OSError):
                    path.unlink()  # a life before ended while it wrote or removed
            elif name in deeds:
                try:
                    wills.append((path.stat().st_mtime_ns, self._read(path)))
                except OSError as error:
                    self._leave(path, error)
                except (ValueError, RemoteProtocolError) as error:
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
        except RemoteProtocolError as error:
            # Without it nobody knows which incarnations there have been; two might act at once.
            raise ValueError(f"{course.name} cannot be read: {error}") from None

    def _leave(self, path: Path, error: OSError) -> None:
        """Say which actor is missing in this life; what it is made of may be as good as ever."""
        self.complaints.append(
            f"detached actor {_who(path)} is missing until the scheduler starts again, its callers "
            f"get ActorDied: {path} or the file of its course cannot be read now ({error}). Both "
            "are left as they are: see to the disk, the permissions or the limit of open files, "
            "and start the scheduler again; it begins anew then"
        )

    def _lay_aside(self, path: Path, error: Exception) -> None:
        """Keep both files of an actor for whoever can mend them, and say which actor it was."""
        moved = []
        for one in (path, path.with_suffix(COURSE)):
            aside = one.with_name(one.name + BROKEN)
            try:
                one.replace(aside)
                moved.append(aside.name)
            except FileNotFoundError:
                continue
            except OSError as refused:
                moved.append(f"{one.name} (it cannot be renamed: {refused})")
        self.complaints.append(
            f"detached actor {_who(path)} is lost, its callers get ActorDied: {path} cannot be "
            f"read ({error}). What there is of it is kept as {' and '.join(moved)}: create the "
            "actor again, or put the files back from a copy and start the scheduler again"
        )

    def keep(self, deed: Deed) -> str:
        """Write down what an actor is made of; return why that could not be done, or ""."""
        return self.keep_packed([(deed.id, encode(deed))])[0]

    def keep_packed(self, deeds: Sequence[tuple[bytes, bytes]]) -> list[str]:
        """Write down what actors are made of, by their ids; return of each why not, or ""."""
        return self._write([(id_.hex() + DEED, data) for id_, data in deeds])

    def keep_courses(self, courses: Mapping[bytes, Course]) -> str:
        """Write down how far actors have come; return why that could not be done, or ""."""
        files = [(id_.hex() + COURSE, encode(course)) for id_, course in courses.items()]
        return next(filter(None, self._write(files)), "")

    def drop(self, ids: Iterable[bytes]) -> str:
        """Actors have ended for good; return why files of some could not be removed, or "".

        Those are removed by `drop_again`, if that can be done then.
        """
        names = [id_.hex() for id_ in ids]
        assert all(len(name) == 2 * TASK_BYTES for name in names)
        whys = self._remove(names)
        if not whys:
            return ""
        return (
            f"{next(iter(whys.values()))}: of {len(whys)} that have ended files are left; it is "
            "tried again every minute to remove them, and who starts this scheduler anew before "
            "that has them begin anew"
        )

    def drop_again(self) -> None:
        """Remove what could not be removed, or some of it; to be called every now and then."""
        if self._left:
            self._remove(list(self._left)[:AGAIN_MAX])

    def _remove(self, names: Sequence[str]) -> dict[str, str]:
        """Remove the files of actors; return of which some are left, and why."""
        whys = self._unlink(names, DEED)
        removed = [name for name in names if name not in whys]
        try:
            # Without its deed nothing is created; a course that is left is removed when it is met.
            self._sync_directory()
            whys |= self._unlink(removed, COURSE)
        except OSError as error:
            whys |= dict.fromkeys(removed, str(error))
        for name in names:
            self._left.pop(name, None)
            if name in whys and len(self._left) < LEFT_MAX:
                self._left[name] = None
        return whys

    def _unlink(self, names: Sequence[str], ending: str) -> dict[str, str]:
        """Remove files that are there; return of which actors that failed, and why."""
        whys: dict[str, str] = {}
        for name in names:
            try:
                (self._path / (name + ending)).unlink(missing_ok=True)
            except OSError as error:
                whys[name] = str(error)
        return whys

    def _write(self, files: Sequence[tuple[str, bytes]]) -> list[str]:
        try:
            self._path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            return [str(error)] * len(files)
        whys: list[str] = []
        together = TOGETHER_MAX
        while len(whys) < len(files):
            some = files[len(whys) : len(whys) + together]
            done = self._write_together(some)
            if len(done) < len(some):
                together = 1  # what descriptors there are, others want as well
            whys += done
        try:
            self._sync_directory()
        except OSError as error:
            whys = [why or str(error) for why in whys]
        return whys

    def _write_together(self, files: Sequence[tuple[str, bytes]]) -> list[str]:
        """Write files, or as many of the first as there are descriptors for; return why not."""
        whys: list[str] = []
        opened: dict[int, int] = {}
        try:
            for number, (name, data) in enumerate(files):
                try:
                    opened[number] = os.open(self._path / (name + NEW), _FLAGS, 0o600)
                    _write_whole(opened[number], data)
                    whys.append("")
                except OSError as error:
                    if error.errno in _NONE_LEFT and opened:
                        break  # those that are open are closed first
                    whys.append(str(error))
            for number, why in enumerate(whys):
                name = files[number][0]
                whys[number] = why or self._finish(name, opened.pop(number))
                if whys[number]:
                    with contextlib.suppress(OSError):
                        (self._path / (name + NEW)).unlink()
        finally:
            for descriptor in opened.values():
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        return whys

    def _finish(self, name: str, descriptor: int) -> str:
        """Have a file that was written be there, and safe; return why that cannot be, or ""."""
        try:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)  # over a network some say only now that there is no room
            (self._path / (name + NEW)).replace(self._path / name)
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


def _write_whole(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _who(path: Path) -> str:
    """Return the id of an actor, as people see it, by the name of its file."""
    try:
        return show(bytes.fromhex(path.stem))
    except (ValueError, IndexError):
        return path.stem
