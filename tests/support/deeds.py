"""Detached actors as they are written down.

Never used but by tests.
"""

from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import Environment, Options, Outcome, ValueRow
from drumbeat.scheduler.deeds import DEED_VERSION, Deed


def deed(letter: str = "a", **changed: object) -> Deed:
    """Return what an actor is made of, that of a letter."""
    id_ = IdFactory(PeerId(letter.encode() * 6))()
    value = ValueRow(id_, Outcome.VALUE, b"value")
    fields = {
        "version": DEED_VERSION, "id": id_, "name": "Counter",
        "options": Options(num_cpus=0.0, creates=ActorOptions(detached=True, told=b"told")),
        "function": b"f" * 16, "code": b"code", "args": b"args", "deps": (id_,),
        "contained": (), "values": (value,), "environment": Environment("host", "/home"),
    }  # fmt: skip
    return Deed(**{**fields, **changed})  # type: ignore[arg-type]
