"""What nodes say for clients that have yet to come back: in order, and nothing before its turn."""

from drumbeat.protocol.frames import Hello
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import Define, Forget, KindRow, Options, Submit, TaskRow
from drumbeat.scheduler.kept import Kept
from drumbeat.scheduler.state import Peer

CLIENT = PeerId(b"client")
NODE = Peer(PeerId(b"node-1"), Hello(1, "node", b"node-1", 0, 0, 0, "3.11", "n1"))
NODE.here = True


def define(number: int) -> Define:
    return Define(CLIENT, [KindRow(number, b"h" * 16, "kind", Options(), b"code")])


def submit(number: int) -> Submit:
    return Submit(CLIENT, b"", 0, [TaskRow(b"t" * 14, number)])


def test_a_kind_is_forgotten_after_the_calls_that_are_kept() -> None:
    # Its definition is not kept: it came while the client was here.
    kept = Kept()
    calls, forget = submit(3), Forget([1, 3])
    kept.add(CLIENT, NODE, calls)
    assert not kept.add_forget(NODE, forget)
    assert forget.kinds == [1], "of that one nothing is kept"
    assert [said for _, said in kept.take(CLIENT)] == [calls, Forget([3])]
    assert not any(kept.sizes().values())


def test_a_kind_is_forgotten_after_its_definition_that_is_kept() -> None:
    kept = Kept()
    said = define(3)
    kept.add(CLIENT, NODE, said)
    assert kept.add_forget(NODE, Forget([3]))
    assert [one for _, one in kept.take(CLIENT)] == [said, Forget([3])]
    assert not kept.add_forget(NODE, Forget([3])), "nothing is kept any more"
    assert not any(kept.sizes().values())
