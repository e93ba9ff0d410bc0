"""init() and shutdown(): the local cluster, or the connection to one, that this process has.

Never decides about tasks. The one place that knows whether this process started its cluster.
"""

import atexit
import contextlib
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from ..protocol.actors import ANONYMOUS
from ..protocol.errors import ConfigError, DrumbeatError, KeyRefused, SchedulerUnreachable
from ..protocol.interrupts import plainly, put_off
from ..protocol.machine import identity
from ..protocol.messages import Environment
from ..protocol.modules import carry, path_was_told
from ..protocol.session import Session, current, set_current
from ..protocol.settings import Settings
from . import addresses, runtime
from .addresses import Place

#: a person who types a command hears after so long why it cannot connect
REASON_S: Final = 2.5
#: what `init` takes besides settings
_ARGUMENTS: Final = (
    "address", "num_cpus", "num_gpus", "resources", "nodes", "preload", "inline"
)  # fmt: skip

_lock = threading.RLock()
_cluster: "Cluster | None" = None
_at_exit_registered = False


class Cluster:
    """What init() returns: this process's cluster, ended by `shutdown` or by leaving a `with`."""

    def __init__(self, session: Session | None, address: str, launcher: Any = None) -> None:
        #: the local cluster's directory; of one on the network, where it is, without the key;
        #: "inline"; or "" inside a task
        self.address = address
        self._session = session
        self._launcher = launcher
        self._pid = os.getpid()

    @property
    def processes(self) -> dict[str, int]:
        """The process ids of what this process started, by name."""
        return {} if self._launcher is None else dict(self._launcher.pids())

    def shutdown(self) -> None:
        """Leave the cluster; end it if init() started it. Nothing the second time."""
        self._shutdown(None)

    def _shutdown(self, grace_s: float | None) -> None:
        global _cluster  # noqa: PLW0603  # the process's one cluster
        if self._session is None or self._pid != os.getpid():
            return
        with _lock:
            session, self._session = self._session, None
            launcher, self._launcher = self._launcher, None
            if _cluster is self:
                _cluster = None
            _end(session, launcher, grace_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        state = "shut down" if self._session is None and self.address else "running"
        return f"<drumbeat.Cluster {self.address or '(of this task)'} {state}>"


def init(
    address: str | os.PathLike[str] | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    nodes: int = 1,
    preload: Iterable[str] = (),
    inline: bool = False,
    **settings: Any,
) -> Cluster:
    """Start a local cluster, or connect to one. Inside a task this does nothing.

    Args:
        address: a cluster file or a "drumbeat://" string of a scheduler on the network, or the
            directory of a running cluster; None takes DRUMBEAT_ADDRESS, and where that is not
            set starts a local cluster that ends with this process.
        num_cpus: CPUs of each node, not of all together; None shares this machine's among them.
        num_gpus: GPUs of each node; None gives those of this machine to the first.
        resources: custom resources of each node, by name.
        nodes: how many node daemons to start.
        preload: modules that are imported once, before workers are forked.
        inline: run every task in this process, at submit: for a debugger.
        settings: see docs/settings.md.

    Returns:
        The cluster: a context manager with `shutdown()` and `address`.

    Raises:
        ConfigError: something given does not fit, or there is a cluster already.
        KeyRefused: the scheduler does not admit this program's key.
        SchedulerUnreachable: the cluster did not start, or does not answer.
    """
    global _cluster  # noqa: PLW0603  # the process's one cluster
    with _lock:
        session = current()
        if session is not None and session.alive and not getattr(session, "failed", False):
            if _cluster is None:
                return Cluster(None, "")  # inside a task
            raise ConfigError(
                f"this process has a cluster already ({_cluster.address}); call "
                "drumbeat.shutdown() first"
            )
        if _cluster is not None:
            _cluster.shutdown()  # it failed: clear away what is left of it
        checked = Settings.load(settings, others=_ARGUMENTS)
        given = addresses.given() or None if address is None else _path_of(address)
        _see_to_the_end()
        if inline:
            _cluster = _inline(checked)
        elif given is not None:
            own = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources}
            named = [name for name, value in own.items() if value is not None]
            if nodes != 1:
                named.append("nodes")
            if address is not None and named:
                raise ConfigError(
                    f"{', '.join(named)} belong to a cluster that is started; the one at this "
                    "address is running",
                    setting=named[0],
                    origin="argument",
                )
            origin = "argument address" if address is not None else addresses.VARIABLE
            _cluster = _connect(addresses.place_of(given, origin), checked)
        else:
            flags = _node_flags(num_cpus, num_gpus, resources, nodes, preload)
            _cluster = _launch(flags, checked)
        return _cluster


def _see_to_the_end() -> None:
    global _at_exit_registered  # noqa: PLW0603  # the process's one end
    if not _at_exit_registered:
        atexit.register(_at_exit)
        _at_exit_registered = True


def _path_of(address: Any) -> str:
    if isinstance(address, (str, os.PathLike)):
        return os.fspath(address)
    raise ConfigError(
        f"address = {address!r:.80} is no address: a cluster file, the directory of a running "
        'cluster, or a "drumbeat://" string; None for a local cluster',
        setting="address",
        origin="argument",
    )


def session_or_init() -> Session:
    """Return this process's session; `init()` makes one for whoever comes first, of all threads."""
    with _lock:
        session = current()
        if session is None or not session.alive:
            init()
            session = current()
        assert session is not None, "init() makes a session or raises"
        return session


def shutdown() -> None:
    """Leave this process's cluster and end it if init() started it; nothing without one."""
    with _lock:
        if _cluster is not None:
            _cluster.shutdown()


# ---------------------------------------------------------------------------- the ways to a cluster


def _inline(settings: Settings) -> Cluster:
    with put_off():
        from .inline import InlineSession

    session = InlineSession(settings)
    set_current(session)
    return Cluster(session, "inline")


def visit(address: str, settings: Settings) -> Cluster:
    """Connect as `init(address)` does, for a command: who has typed it soon hears why it cannot."""
    global _cluster  # noqa: PLW0603  # the process's one cluster
    with _lock:
        _see_to_the_end()
        place = addresses.place_of(address, "address")
        _cluster = _connect(place, settings, reason_s=REASON_S)
        return _cluster


def _connect(place: Place, settings: Settings, reason_s: float = math.inf) -> Cluster:
    """Connect; once the reason why it cannot is known, wait no longer than `reason_s`."""
    session = _session(place, settings)

    def is_settled() -> bool:
        return session.shapes is not None or _key_is_refused(session)

    try:
        session.start()
        # Not only connected: who is refused for its version hears of that a moment later.
        first_s = min(settings.connect_timeout_s, reason_s)
        rest_s = settings.connect_timeout_s - first_s
        session.wait_until(is_settled, first_s)
        has_reason = session.wait_until(
            lambda: is_settled() or session.unreachable is not None, rest_s
        )
        if session.shapes is None:
            waited_s = first_s if has_reason else settings.connect_timeout_s
            raise _why_unreachable(session, place, waited_s)
    except BaseException as error:
        session.close()
        if isinstance(error, KeyboardInterrupt):
            plainly(error, f"while it connected to {place.shown}")
        raise
    set_current(session)
    return Cluster(session, place.shown)


def _key_is_refused(session: Any) -> bool:
    """Say whether the scheduler is there but will not have us: no use in waiting."""
    return session.unreachable is not None and session.unreachable.error == KeyRefused.__name__


def _why_unreachable(session: Any, place: Place, waited_s: float) -> DrumbeatError:
    told = session.unreachable
    if _key_is_refused(session):
        return KeyRefused(f"{place.shown}: {told.reason}")
    why = "" if told is None else f": {told.reason}"
    return SchedulerUnreachable(f"no scheduler answers at {place.shown} within {waited_s:g} s{why}")


def _launch(nodes: list[tuple[str, list[str]]], settings: Settings) -> Cluster:
    session: Any = None
    launcher: Any = None
    failures: list[DrumbeatError] = []

    def failed(error: DrumbeatError) -> None:
        failures.append(error)
        if session is not None:
            session.fail(error)

    try:
        with put_off():
            from .launcher import Launcher

        directory = runtime.Directory(runtime.root_of(settings))
        launcher = Launcher(directory, settings, nodes, failed)
        launcher.start()  # first: the processes start while this one imports what it needs
        session = _session(Place(f"ipc://{directory.path / runtime.SOCKET}", ""), settings)
        session.start()
        there = session.wait_until(
            lambda: failures or (session.connected and len(session.shapes or ()) >= len(nodes)),
            settings.connect_timeout_s,
        )
        if failures:
            raise failures[0]
        if not there:
            what = "the scheduler" if not session.connected else "a node"
            raise SchedulerUnreachable(
                f"{what} of the local cluster did not start within "
                f"{settings.connect_timeout_s:g} s (connect_timeout_s)\n{launcher.last_words()}"
            )
    except BaseException as error:
        if session is not None:
            session.close()
        if launcher is not None:
            launcher.stop(settings.exit_grace_s)
        if isinstance(error, KeyboardInterrupt):
            plainly(error, "while the local cluster was being started")
        raise
    set_current(session)
    return Cluster(session, str(directory.path), launcher)


def _session(place: Place, settings: Settings) -> Any:
    with put_off():  # which takes a while
        from .session import ClusterSession

    environment = program_environment(settings)
    path_was_told(("", *environment.sys_path), environment.machine)
    over_network = place.credentials is not None
    if settings.ship_code == "always" or (settings.ship_code == "auto" and over_network):
        from . import own_code  # not for a local cluster: it finds all that there is

        own_code.begin()
    else:
        carry(None)
    return ClusterSession(
        place.endpoint, settings, program_name(), environment, credentials=place.credentials
    )


def program_name() -> str:
    """Return what this program is called, for people."""
    name = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    return name if name not in ("", "-", "-c", "-m") else "python"


def program_environment(settings: Settings) -> Environment:
    """Return what workers on this machine need to find this program's code."""
    try:
        directory = os.getcwd()
    except OSError:
        directory = "/"  # the working directory was removed
    path = tuple(directory if entry == "" else entry for entry in sys.path)
    return Environment(
        host=socket.gethostname(),
        directory=directory,
        sys_path=path,
        pid=os.getpid(),
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        machine=settings.machine or identity(),
        namespace=settings.namespace or ANONYMOUS + os.urandom(6).hex(),
    )


def _node_flags(
    num_cpus: float | None,
    num_gpus: float | None,
    resources: Mapping[str, float] | None,
    nodes: int,
    preload: Iterable[str],
) -> list[tuple[str, list[str]]]:
    import json

    from ..protocol.machine import cpu_count
    from ..protocol.resources import AMOUNTS, fits

    if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1:
        raise ConfigError(f"nodes = {nodes!r} is not a number of nodes from 1", setting="nodes")
    amounts = {"num_cpus": num_cpus, "num_gpus": num_gpus, **dict(resources or {})}
    for name, amount in amounts.items():
        fine = amount is None or (isinstance(amount, int | float) and fits(amount))
        if not fine or not isinstance(name, str) or (name in ("CPU", "GPU")):
            raise ConfigError(
                f"{name} = {amount!r} is not an amount of a resource: {AMOUNTS}, with CPUs "
                "and GPUs given as num_cpus and num_gpus",
                setting=str(name),
                origin="argument",
            )
    if isinstance(preload, str):
        raise ConfigError("preload is a list of module names, not a text", setting="preload")
    if num_cpus is None and nodes > 1:
        num_cpus = max(1, cpu_count() // nodes)
    host = socket.gethostname().split(".")[0] or "local"
    found = []
    for number in range(1, nodes + 1):
        flags = []
        if num_cpus is not None:
            flags += ["--num-cpus", f"{num_cpus:g}"]
        gpus = 0 if num_gpus is None and number > 1 else num_gpus
        if gpus is not None:
            flags += ["--num-gpus", f"{gpus:g}"]
        if resources:
            flags += ["--resources", json.dumps(dict(resources))]
        modules = list(preload)
        if modules:
            flags += ["--preload", ",".join(modules)]
        found.append((host if nodes == 1 else f"{host}-{number}", flags))
    return found


# ------------------------------------------------------------------------------------------ ending


def _end(session: Session, launcher: Any, grace_s: float | None) -> None:
    settings = getattr(session, "settings", None)
    if grace_s is None:
        grace_s = 2.0 if settings is None else settings.exit_grace_s
    try:
        close = getattr(session, "close", None)
        if close is not None:
            close()
    finally:
        if current() is session:
            set_current(None)
            carry(None)
        if launcher is not None:
            launcher.stop(grace_s)


def _at_exit() -> None:
    """Wait for Executors, cancel the rest, and be done within exit_grace_s."""
    executors = sys.modules.get("drumbeat.client.executor")
    if executors is not None and _cluster is not None:
        with contextlib.suppress(DrumbeatError):
            executors.wait_for_all()
    begun = time.monotonic()
    with _lock:
        if _cluster is not None:
            settings = getattr(_cluster._session, "settings", None)
            grace_s = 2.0 if settings is None else settings.exit_grace_s
            _cluster._shutdown(max(0.2, 0.75 * grace_s - (time.monotonic() - begun)))


def _after_fork() -> None:
    global _lock, _cluster  # noqa: PLW0603  # the parent's cluster is not the child's
    _lock = threading.RLock()
    _inherited.append(_cluster)
    _cluster = None


#: what a forked child got from its parent: never collected, since its sockets are not its own
_inherited: list[Any] = []
os.register_at_fork(after_in_child=_after_fork)
