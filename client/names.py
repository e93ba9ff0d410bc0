"""Actors with names, and those that outlive their program: how they are made and found.

Never decides whose a name is: the scheduler does, before the actor is submitted.
"""

import contextlib
import os
from typing import Any

from msgspec.structs import replace

from ..protocol.actors import ANONYMOUS, TOLD_BYTES_MAX, ActorName
from ..protocol.errors import DrumbeatError
from ..protocol.ids import IdFactory, ObjectId, PeerId, TaskId
from ..protocol.outcomes import VALUE, value_of
from ..protocol.payload import pack_value, unpack_value
from ..protocol.references import ObjectRef
from ..protocol.session import Kind, Packed, Session, current
from . import addresses
from .functions import session_or_start
from .handles import ActorHandle, Class, actor_of, class_of_plain


def create(
    session: Session, kind: Kind, packed: Packed, told: Class, *, get_if_exists: bool
) -> ActorHandle[Any]:
    """Make an actor that has a name, or is detached, or both; or return the one that has the name.

    Raises:
        ValueError: another actor has the name.
        ActorDied: a detached actor could not be handed over to the scheduler.
    """
    creates = kind.options.creates
    assert creates is not None, "an actor's kind says how it is created"
    task = detached_id() if creates.detached else session.new_id()
    named = None
    if creates.name:
        creates = replace(creates, namespace=_namespace(session, creates.namespace))
        if creates.detached and creates.namespace.startswith(ANONYMOUS):
            raise ValueError(
                f"the detached actor {creates.name!r} needs a namespace, in which other programs "
                "find it: drumbeat.init(namespace=...), or .options(namespace=...)"
            )
        creates = replace(creates, told=_packed(told))
        named = ActorName(creates.name, creates.namespace, task, creates.told)
        kind = Kind(kind.function, replace(kind.options, creates=creates), kind.name)
    other = None
    try:
        if named is not None:
            other = _asked(session, named)
        ids = [] if other is not None else session.submit(kind, packed, task)
    except BaseException:
        # Ctrl-C too: it may have been taken by now, or be taken yet.
        if named is not None:
            with contextlib.suppress(DrumbeatError):
                session.free_name(named)
        raise
    if other is not None:
        if get_if_exists:
            return other
        raise ValueError(
            f"there is an actor named {creates.name!r} in {_show(creates.namespace)} already; "
            "get_if_exists=True returns that one"
        )
    ref: ObjectRef[None] = ObjectRef(ids[0], session)
    if creates.detached:
        # It is the scheduler's from here on, or it is not at all.
        row = session.get(ids, None)[-1]
        if row.outcome != VALUE:
            value_of(row)  # raises
    return ActorHandle(ref, actor_of(ref.id, told))


def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """Return a handle of the actor that has this name.

    The handle alone does not keep it alive: an actor that is not detached ends when those are gone
    that its creator made, and their copies.

    Args:
        name: as given to `.options(name=...)`.
        namespace: where it is looked up; None: in that of this program.

    Raises:
        ValueError: there is none.
        TypeError: the name, or the namespace, is no string.
    """
    if not isinstance(name, str) or not isinstance(namespace, (str, type(None))):
        wrong, value = ("namespace", namespace) if isinstance(name, str) else ("name", name)
        raise TypeError(f"get_actor: {wrong} must be a string, not {value!r:.80}")
    if not name:
        raise ValueError("get_actor: name must not be empty")
    session = current()
    begins = session is None or not session.alive
    if session is None or not session.alive:
        session = session_or_start()
    where = _namespace(session, namespace or "")
    found = _asked(session, ActorName(name, where))
    if found is None:
        why = f"there is no actor named {name!r} in {_show(where)}"
        if begins and not addresses.given():
            why += "; drumbeat.init() was not called before, so this is a new cluster of its own"
        raise ValueError(why)
    return found


def detached_id() -> TaskId:
    """Return an id of nobody else's: whoever outlives its creator has a home of its own."""
    return IdFactory(PeerId(os.urandom(6)))()


def _namespace(session: Session, given: str) -> str:
    return given or session.namespace


def _show(namespace: str) -> str:
    if namespace.startswith(ANONYMOUS):
        return "this program's own namespace (another is named by init(namespace=...))"
    return f"namespace {namespace!r}"


def _packed(told: Class) -> bytes:
    payload = pack_value(told.plain).payload or b""
    if len(payload) > TOLD_BYTES_MAX:
        raise ValueError(
            f"{told.told.name} has so many methods that they take {len(payload):,} bytes to tell "
            f"of; with a name, {TOLD_BYTES_MAX:,} are the most"
        )
    return payload


def _asked(session: Session, named: ActorName) -> ActorHandle[Any] | None:
    """Return the actor that has a name, if that is another than the one to be created."""
    answer = session.query("name", named=named)
    if "error" in answer:
        raise DrumbeatError(answer["error"])
    id_ = ObjectId(answer.get("id", b""))
    if not id_ or id_ == named.id:
        return None
    session.hold(id_)
    ref: ObjectRef[None] = ObjectRef(id_, session)
    return ActorHandle(ref, actor_of(id_, class_of_plain(unpack_value(answer["told"]))))
