"""The public functions: get, wait, put, cancel and what the cluster looks like.

Never knows how anything is done: each asks the session of this process.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, overload

from ..protocol.errors import NotInitialized
from ..protocol.outcomes import VALUE, value_of
from ..protocol.payload import pack_value, unpack_value
from ..protocol.references import (
    ObjectRef,
    check_timeout,
    end_of,
    orphaned,
    refuse_force,
    refuse_fork,
)
from ..protocol.session import Session, current
from .actors import ActorClass, method
from .functions import RemoteFunction, remote, session_or_start
from .futures import as_completed
from .futures import map_calls as map  # noqa: A004  # its public name
from .generators import ObjectRefGenerator
from .handles import ActorHandle, ActorMethod, kill, no_refs
from .keeper import for_puts
from .names import get_actor

__all__ = [
    "ActorClass",
    "ActorHandle",
    "ActorMethod",
    "RemoteFunction",
    "as_completed",
    "available_resources",
    "cancel",
    "cluster_resources",
    "get",
    "get_actor",
    "is_initialized",
    "kill",
    "map",
    "method",
    "nodes",
    "put",
    "remote",
    "wait",
]

T = TypeVar("T")

#: more nodes than any cluster has
_NODES_MAX = 1_000_000


def is_initialized() -> bool:
    """Return whether this process has a cluster."""
    session = current()
    return session is not None and session.alive


@overload
def get(refs: ObjectRef[T], timeout: float | None = None) -> T: ...
@overload
def get(refs: Iterable[ObjectRef[T]], timeout: float | None = None) -> list[T]: ...
def get(refs: Any, timeout: float | None = None) -> Any:
    """Wait for values.

    Args:
        refs: one reference, or a list of them, duplicates allowed.
        timeout: seconds; 0 asks whether they are there; None waits for as long as it takes.

    Returns:
        The value, or the list of values in the order of the references.

    Raises:
        GetTimeoutError: not in time; the tasks go on.
        TaskError: a task failed (the first failure there is, without waiting for the rest); an
            exception of the task's code is also of that exception's own type.
    """
    if timeout is not None:
        check_timeout(timeout)
    if type(refs) is ObjectRef:
        until_s = end_of(timeout)
        return value_of(refs.session.get((refs.id,), timeout)[-1], until_s)
    refs, session = _listed("get", refs)
    if session is None:
        return []
    ids = [ref.id for ref in refs]
    unique = list(dict.fromkeys(ids))
    until_s = end_of(timeout)
    rows = session.get(unique, timeout)
    last = rows[-1]
    if last.outcome != VALUE:
        value_of(last)  # raises
    values = [unpack_value(row.payload, until_s) for row in rows]
    if len(unique) == len(ids):
        return values
    by_id = dict(zip(unique, values, strict=True))
    return [by_id[id_] for id_ in ids]


def wait(
    refs: Sequence[ObjectRef[T]], num_returns: int = 1, timeout: float | None = None
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """Wait until some of many are ready; one whose task failed is ready, too.

    Args:
        refs: references, each once.
        num_returns: wait for so many.
        timeout: seconds; None waits for as long as it takes.

    Returns:
        (ready, rest): at most `num_returns` that are ready, and the others, in the order given.

    Raises:
        ValueError: duplicates, more asked for than given, or a negative timeout.
        TypeError: no list of references, or a number that is none.
    """
    check_timeout(timeout)
    if isinstance(refs, ObjectRef):
        raise TypeError("wait takes a list of ObjectRefs; for one, write wait([ref])")
    refs, session = _listed("wait", refs)
    ids = [ref.id for ref in refs]
    if isinstance(num_returns, bool) or not isinstance(num_returns, int):
        raise TypeError(f"num_returns must be a whole number, not {num_returns!r}")
    if session is None:
        return [], []
    if not 1 <= num_returns <= len(ids):
        raise ValueError(
            f"num_returns must be from 1 to the number of references ({len(ids)}), "
            f"not {num_returns}"
        )
    if len(set(ids)) != len(ids):
        raise ValueError("wait takes each reference once, and here are duplicates")
    done = session.wait(ids, num_returns, timeout)
    ready: list[ObjectRef[T]] = []
    rest: list[ObjectRef[T]] = []
    for ref in refs:
        if ref.id in done and len(ready) < num_returns:
            ready.append(ref)
        else:
            rest.append(ref)
    return ready, rest


def put(value: T) -> ObjectRef[T]:
    """Make a value an object of the cluster and return a reference to it.

    Raises:
        NotPicklable: the value cannot be sent; says which part of it.
        TypeError: the value is a reference already.
    """
    if isinstance(value, ObjectRef):
        raise TypeError(f"put takes a value, and {value!r} is a reference to one already")
    session = session_or_start()
    packed = pack_value(value, keeper=for_puts(session.keeper))
    return ObjectRef(session.put(packed), session)


def cancel(
    refs: ObjectRef[Any] | ObjectRefGenerator[Any] | Iterable[ObjectRef[Any]],
    force: bool = False,
    recursive: bool = True,
) -> None:
    """Cancel tasks; returns at once, and does nothing to one that has ended.

    A task that waits is dropped. In one that runs, `drumbeat.Interrupted` is raised; if it has not
    ended after cancel_grace_s, its worker is terminated, then killed. A cancelled task is never
    tried again; its references raise TaskCancelled, unless its value was quicker.

    Args:
        refs: one reference, or several, or what a task with num_returns="streaming" returned.
        force: kill its worker at once; refused for a call of an actor, see `kill`.
        recursive: also cancel the tasks that it has submitted; False lets them go on.
    """
    if isinstance(refs, ObjectRefGenerator):
        refs.cancel(force, recursive)
        return
    listed, session = _listed("cancel", [refs] if isinstance(refs, ObjectRef) else refs)
    if force:
        refuse_force(listed)
    if session is not None:
        session.cancel(list(dict.fromkeys(ref.id for ref in listed)), force, recursive)


def nodes() -> list[dict[str, Any]]:
    """Return what is known of each node: name, id, state, resources, what it runs."""
    found: list[dict[str, Any]] = _session().query("nodes", _NODES_MAX)
    return found


def cluster_resources() -> dict[str, float]:
    """Return what all nodes together have: "CPU", "GPU" and custom resources."""
    return _total("resources")


def available_resources() -> dict[str, float]:
    """Return what of the cluster's resources no task uses now."""
    return _total("free")


def _total(field: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for node in nodes():
        if node.get("state", "alive") in ("alive", "suspect"):
            for name, amount in node.get(field, {}).items():
                total[name] = total.get(name, 0.0) + amount
    return {name: math.floor(total[name] * 1e9 + 0.5) / 1e9 for name in sorted(total)}


def _session() -> Session:
    session = current()
    if session is not None and session.alive:
        return session
    if orphaned():
        raise refuse_fork()
    raise NotInitialized("there is no cluster here; call drumbeat.init() first")


def _listed(function: str, refs: Any) -> tuple[list[ObjectRef[Any]], Session | None]:
    """Return the references and the session of all of them; None if there are none.

    The references themselves: a generator's may have no other holder, and without one their values
    would be freed before anybody has waited for them.
    """
    session: Session | None = None
    listed: list[ObjectRef[Any]] = []
    try:
        iterator = iter(refs)
    except TypeError:
        raise no_refs(function, refs) from None
    for ref in iterator:
        if type(ref) is not ObjectRef:
            raise no_refs(function, ref)
        if ref._session is not session:
            if session is not None:
                raise ValueError(f"{function}: the references belong to different clusters")
            session = ref.session
        listed.append(ref)
    return listed, session
