"""`python -m drumbeat.client.hosts_there`: the far end of `drumbeat up` and `drumbeat down`.

Never waits for a person, and never ends a process that it did not start: a node's process id counts
only together with the time at which that process was started. It reads one line of JSON, which
holds a secret, from its standard input; writes lines for people; and answers by its exit code.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .. import __version__
from ..protocol.cluster_file import (
    address_in,
    make_private_directory,
    read_address,
    write_address,
)
from ..protocol.errors import ConfigError
from .launcher import environment, words_for
from .logs import keep_short, tail_of
from .runtime import scheduler_directory

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
#: it runs and has not reached the scheduler (yet), or still has work to end
NOT_YET: Final = 3
NOT_RUNNING: Final = 4

REQUEST_BYTES_MAX: Final = 1 << 20
#: between looks at a node that starts or ends
LOOK_S: Final = 0.05
#: a connected node touches its health file each second
YOUNG_S: Final = 10.0
#: between the steps of an end at once: drain, cancel, kill
STEP_S: Final = 0.5
STEPS: Final = 3
#: a node that has not ended so long after the last step is killed
KILL_AFTER_S: Final = 10.0


class Place:
    """Where the files of one node lie on this machine: below the state directory of this user."""

    def __init__(self, name: str) -> None:
        if not name or name.startswith(".") or "/" in name or not name.isprintable():
            raise ConfigError(f"{name!r} is no name of a node")
        self.path = scheduler_directory().with_name("nodes") / name
        self.cluster = self.path / "node.cluster"
        self.health = self.path / "health"
        self.log = self.path / "log"
        self._process = self.path / "process"

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Have the place for oneself; the descriptor of the lock is given."""
        make_private_directory(self.path)
        lock_fd = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    "another `drumbeat up` or `drumbeat down` is busy with it, and holds "
                    f"{self.path / 'lock'}"
                ) from None
            yield lock_fd
        finally:
            os.close(lock_fd)

    def remember(self, pid: int) -> None:
        """Write down which process the node is."""
        beside = self._process.with_suffix(".new")
        beside.write_text(json.dumps({"pid": pid, "mark": mark_of(pid)}), encoding="utf-8")
        beside.replace(self._process)

    def pid(self) -> int:
        """Return the process id of the node that runs; 0: none does."""
        try:
            known = json.loads(self._process.read_text(encoding="utf-8"))
            pid, mark = int(known["pid"]), str(known["mark"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        return pid if mark and mark_of(pid) == mark else 0

    def joined(self, lock_fd: int) -> bool:
        """Return whether the node is connected to its scheduler."""
        os.utime(lock_fd)  # by the clock of the same file system
        try:
            return os.fstat(lock_fd).st_mtime - self.health.stat().st_mtime < YOUNG_S
        except OSError:
            return False

    def clear(self) -> None:
        """Leave no key and no sign of life behind; the log stays."""
        for path in (self.cluster, self.health, self._process):
            path.unlink(missing_ok=True)


class Log:
    """Shows what is written to a log from now on."""

    def __init__(self, path: Path) -> None:
        keep_short(path)
        self._file = open(os.open(path, os.O_CREAT | os.O_RDONLY, 0o600), "rb")  # noqa: SIM115  # closed with the process
        self._file.seek(0, os.SEEK_END)
        self._rest = b""

    def show(self, *, all_of_it: bool = False) -> None:
        """Show the lines that have come."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        if all_of_it and self._rest:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            say(line.decode(errors="replace"))


def mark_of(pid: int) -> str:
    """Return what tells a process from a later one with the same number; "" if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *rest = fields.rpartition(") ")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
    # When it was started, in ticks since this boot.
    return "" if state in ("Z", "X") else f"{boot} {rest[18]}"


def say(text: str) -> None:
    """Show a line at the other end."""
    print(text, flush=True)


# ------------------------------------------------------------------------------------ what it does


def start(place: Place, request: dict[str, Any]) -> int:
    """Have the node run and joined; return how that went."""
    address = address_in(request["cluster"], "the cluster file that was sent")
    with place.locked() as lock_fd:
        log = Log(place.log)
        pid = place.pid()
        process = None
        if pid:
            if read_address(place.cluster) != address:
                say(f"a node of another cluster, or of other keys, runs here (process {pid}): "
                    "`drumbeat down` ends it")  # fmt: skip
                return FAILED
            say(f"it runs already, as it was started (process {pid})")
        else:
            place.clear()
            write_address(place.cluster, address)
            process = _start(place, request)
            pid = process.pid
            place.remember(pid)
        until_s = time.monotonic() + request["wait_s"]
        while not place.joined(lock_fd):
            log.show()
            if process.poll() is not None if process else not place.pid():
                log.show(all_of_it=True)
                place.clear()
                how = words_for(process.returncode) if process else "no word"
                say(f"the node ended with {how}")
                return FAILED
            if time.monotonic() >= until_s:
                say(
                    f"it runs (process {pid}) and has not joined within {request['wait_s']:g} s; "
                    f"it goes on trying, and says why in {place.log}"
                )
                return NOT_YET
            time.sleep(LOOK_S)
        log.show(all_of_it=True)
        say(f"joined (process {pid})")
        return DONE


def _start(place: Place, request: dict[str, Any]) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-P", "-m", "drumbeat.client.cli", "node",
        f"--cluster={place.cluster}", f"--name={request['name']}", *request["flags"],
    ]  # fmt: skip
    settings = {**request["environment"], "DRUMBEAT_HEALTH_FILE": str(place.health)}
    with open(os.open(place.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # the end of the connection is not its end
            env={**environment(), **settings},
            cwd=Path.home(),
        )


def stop(place: Place, request: dict[str, Any]) -> int:
    """Have the node end: when it has drained, or at once; return how that went."""
    with place.locked():
        pid = place.pid()
        if not pid:
            place.clear()
            say("it does not run")
            return DONE
        log = Log(place.log)
        say(f"process {pid} {'ends' if request['now'] else 'drains: what runs may end'}")
        began_s = time.monotonic()
        steps = 0
        while place.pid() == pid:
            passed_s = time.monotonic() - began_s
            if steps == 0 or (request["now"] and steps < STEPS and passed_s >= steps * STEP_S):
                steps += 1
                _signal(pid, signal.SIGTERM)
            if request["now"] and passed_s >= STEPS * STEP_S + KILL_AFTER_S:
                _signal(pid, signal.SIGKILL)
            elif not request["now"] and passed_s >= request["wait_s"]:
                say(f"it still drains after {request['wait_s']:g} s, and goes on")
                return NOT_YET
            log.show()
            time.sleep(LOOK_S)
        log.show(all_of_it=True)
        place.clear()
        say("ended")
        return DONE


def status(place: Place, _request: dict[str, Any]) -> int:
    """Say how the node is."""
    pid = place.pid()
    if not pid:
        say("does not run")
        return NOT_RUNNING
    fd = os.open(place.path / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        if place.joined(fd):
            say(f"joined (process {pid})")
            return DONE
    finally:
        os.close(fd)
    say(f"runs, and has no connection to its scheduler (process {pid})")
    for line in tail_of(place.log).splitlines()[-3:]:
        say(f"  {line}")
    return NOT_YET


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def main() -> int:
    """Do what is asked for on standard input; return the answer."""
    text = sys.stdin.buffer.readline(REQUEST_BYTES_MAX)
    try:
        request = json.loads(text)
        do = {"start": start, "stop": stop, "status": status}[request["do"]]
        name = request["name"]
    except (ValueError, KeyError, TypeError):
        say("no request came: this is what `drumbeat up` starts on other machines")
        return WRONG_USAGE
    if request.get("version") != __version__:
        say(f"it has Drumbeat {__version__} here, and {request.get('version')} where you typed")
        return FAILED
    try:
        return do(Place(name), request)
    except (ConfigError, OSError) as error:
        say(str(error))
        return FAILED


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        sys.exit(main())
