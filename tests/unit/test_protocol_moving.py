"""Large payloads come whole and right from whoever has them, or it is told why not."""

from itertools import pairwise
from zlib import crc32

import msgspec
from drumbeat.protocol import moving_words as words
from drumbeat.protocol.moves import DATA_PROTOCOL_VERSION, Ask, Gone, Greet, Have, Piece
from drumbeat.protocol.moving import PULLS_MAX, Moving
from drumbeat.protocol.moving_words import Failed, Finished, Source
from hypothesis import given, settings
from hypothesis import strategies as st
from support.moving_web import SMALL, Peer, Web

KEY, OTHER = b"k" * 14, b"o" * 14
PAYLOAD = bytes(range(256)) * 8
SIZE = len(PAYLOAD)


def failed(peer: Peer) -> Failed:
    (told,) = peer.got
    assert isinstance(told, Failed)
    return told


def has(peer: Peer, count: int) -> bool:
    return len(peer.coming.get(KEY, b"")) >= count


def test_a_payload_comes_in_pieces_from_whoever_serves_it() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    holder.serve(KEY, PAYLOAD)
    receiver.pull(KEY, SIZE, holder)
    web.run()
    assert receiver.got == [Finished(KEY)]
    assert receiver.payloads[KEY] == PAYLOAD
    assert holder.core.at_rest()
    assert receiver.core.at_rest()


def test_no_more_is_asked_for_ahead_than_a_window() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    holder.serve(KEY, PAYLOAD)
    receiver.pull(KEY, SIZE, holder)
    while web.waiting():
        for peer, connection in web.waiting():
            web.step(peer, connection)
        wires = receiver.wires.values()
        underway = sum(len(raw) for wire in wires for raw in wire.waiting[receiver])
        assert underway <= 2 * SMALL.data_window_bytes
    assert receiver.payloads[KEY] == PAYLOAD


def test_one_without_bytes_is_there_at_once() -> None:
    receiver = Web().peer("taker")
    receiver.pull(KEY, 0)
    assert receiver.got == [Finished(KEY)]


def test_what_nobody_has_is_told_at_once() -> None:
    receiver = Web().peer("taker")
    receiver.pull(KEY, SIZE)
    assert failed(receiver).reason == "nobody has it"


def test_a_source_that_ends_is_followed_by_the_next_one_where_it_stopped() -> None:
    web = Web()
    first, second, receiver = web.peer("first"), web.peer("second"), web.peer("taker")
    for holder in (first, second):
        holder.serve(KEY, PAYLOAD)
    receiver.pull(KEY, SIZE, first, second)
    web.until(lambda: has(receiver, SIZE // 2))
    web.kill(first)
    web.run()
    assert receiver.payloads[KEY] == PAYLOAD
    assert second.sent_bytes <= SIZE // 2


def test_a_source_that_was_cut_off_is_dialled_again_if_it_had_given_anything() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    holder.serve(KEY, PAYLOAD)
    receiver.pull(KEY, SIZE, holder)
    web.until(lambda: has(receiver, SIZE // 2))
    receiver.cut(next(iter(receiver.wires)))
    web.run()
    assert receiver.payloads[KEY] == PAYLOAD


def test_a_source_that_gives_nothing_is_not_dialled_again() -> None:
    web = Web()
    receiver = web.peer("taker")
    nowhere = Source(b"nobody", "tcp://nobody:1", b"k" * 32)
    receiver.pull(KEY, SIZE, nowhere)
    told = failed(receiver)
    assert (told.peer, told.reason) == (b"nobody", "nobody is there")


def test_a_wrong_checksum_is_counted_and_its_source_not_asked_again() -> None:
    web = Web()
    liar, honest, receiver = web.peer("liar"), web.peer("honest"), web.peer("taker")
    for holder in (liar, honest):
        holder.serve(KEY, PAYLOAD)
    liar.spoil = lambda piece: msgspec.structs.replace(piece, checksum=piece.checksum ^ 1)
    receiver.pull(KEY, SIZE, liar, honest)
    web.run()
    assert receiver.payloads[KEY] == PAYLOAD
    assert receiver.core.counters["pieces_wrong"] == 1
    receiver.tell(words.Cancel(KEY))
    receiver.got.clear()
    receiver.pull(KEY, SIZE, liar)
    web.run()
    assert "checksum" in failed(receiver).reason


def test_a_payload_of_another_size_is_not_taken() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    holder.serve(KEY, PAYLOAD)
    receiver.pull(KEY, SIZE - 1, holder)
    web.run()
    assert "bytes, and not" in failed(receiver).reason


def test_a_silent_source_is_given_up_after_a_time_and_the_next_one_asked() -> None:
    web = Web()
    silent, holder, receiver = web.peer("silent"), web.peer("holder"), web.peer("taker")
    for peer in (silent, holder):
        peer.serve(KEY, PAYLOAD)
    silent.spoil = lambda _: None
    receiver.pull(KEY, SIZE, silent, holder)
    web.pass_time(SMALL.data_silence_s / 2)
    assert not receiver.got
    web.pass_time(SMALL.data_silence_s)
    assert receiver.got == [Finished(KEY)]
    assert receiver.payloads[KEY] == PAYLOAD


def test_nobody_was_silent_while_the_receiver_itself_was_stopped() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    holder.serve(KEY, PAYLOAD)
    receiver.pull(KEY, SIZE, holder)
    web.now_s += 60.0
    receiver.tell(words.Tick())
    web.run()
    assert receiver.got == [Finished(KEY)]


def test_what_was_asked_too_early_is_sent_when_it_is_there() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    receiver.pull(KEY, SIZE, holder)
    web.run()
    assert not receiver.got
    holder.serve(KEY, PAYLOAD)
    web.run()
    assert receiver.payloads[KEY] == PAYLOAD


def test_what_never_comes_is_gone_after_a_short_time() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    receiver.pull(KEY, SIZE, holder)
    web.pass_time(1.0)
    assert failed(receiver).reason == "it is not here"


def test_what_is_unserved_while_it_goes_is_gone() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    holder.serve(KEY, PAYLOAD)
    receiver.pull(KEY, SIZE, holder)
    web.until(lambda: has(receiver, 50))
    holder.tell(words.Unserve(KEY))
    web.pass_time(1.0)
    assert "not" in failed(receiver).reason
    assert not receiver.coming


def test_a_cancelled_pull_tells_nothing_and_leaves_nothing() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    holder.serve(KEY, PAYLOAD)
    receiver.pull(KEY, SIZE, holder)
    web.until(lambda: has(receiver, 50))
    receiver.tell(words.Cancel(KEY))
    web.run()
    assert not receiver.got
    assert not receiver.coming
    assert holder.core.at_rest()
    assert holder.sent_bytes < SIZE


def test_without_room_here_the_pull_fails_by_our_own_name() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    holder.serve(KEY, PAYLOAD)
    receiver.has_room = False
    receiver.pull(KEY, SIZE, holder)
    web.run()
    assert failed(receiver).peer == receiver.id
    assert receiver.core.at_rest()


# ------------------------------------------------------------------------------ several receivers


def test_a_chain_of_receivers_costs_the_first_source_one_copy() -> None:
    web = Web()
    peers = [web.peer(f"peer{index}") for index in range(5)]
    peers[0].serve(KEY, PAYLOAD)
    for before, peer in pairwise(peers):
        peer.pull(KEY, SIZE, before, peers[0])
    web.run()
    assert all(peer.payloads[KEY] == PAYLOAD for peer in peers)
    assert peers[0].sent_bytes == SIZE


def test_a_broken_chain_goes_on_at_the_source() -> None:
    web = Web()
    source, middle, last = web.peer("source"), web.peer("middle"), web.peer("last")
    source.serve(KEY, PAYLOAD)
    middle.pull(KEY, SIZE, source)
    last.pull(KEY, SIZE, middle, source)
    web.until(lambda: has(last, SIZE // 4))
    web.kill(middle)
    web.run()
    assert last.payloads[KEY] == PAYLOAD


def test_a_pull_that_fails_tells_those_who_wait_for_it() -> None:
    web = Web()
    source, middle, last = web.peer("source"), web.peer("middle"), web.peer("last")
    source.serve(KEY, PAYLOAD)
    middle.pull(KEY, SIZE, source)
    last.pull(KEY, SIZE, middle)
    web.until(lambda: has(last, SIZE // 4))
    web.kill(source)
    web.run()
    assert isinstance(failed(middle), Failed)
    assert "did not come" in failed(last).reason


def test_one_who_does_not_read_keeps_nobody_else_waiting_and_is_closed() -> None:
    web = Web()
    holder, reader, deaf = web.peer("holder"), web.peer("reader"), web.peer("deaf")
    holder.serve(KEY, PAYLOAD)
    deaf.pull(KEY, SIZE, holder)
    (number,) = deaf.wires
    wire = deaf.wires[number]
    # It asks for all, and takes nothing.
    deaf.say(number, Ask(KEY, 0, SIZE))
    for _ in range(20):
        if wire.waiting[holder]:
            web.step(holder, wire.numbers[holder])
    web.peers.remove(deaf)  # it is stopped
    reader.pull(KEY, SIZE, holder)
    web.run()
    assert reader.payloads[KEY] == PAYLOAD
    web.pass_time(2 * SMALL.data_silence_s)
    assert holder.core.counters["stuck"] == 1
    assert holder.core.at_rest()


def test_several_payloads_over_one_connection_take_turns_by_the_piece() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    holder.serve(KEY, PAYLOAD)
    holder.serve(OTHER, PAYLOAD)
    order: list[bytes] = []
    holder.spoil = lambda piece: order.append(piece.key) or piece  # type: ignore[func-returns-value]
    receiver.pull(KEY, SIZE, holder)
    receiver.pull(OTHER, SIZE, holder)
    web.pass_time(1.0)
    assert {told.key for told in receiver.got} == {KEY, OTHER}
    assert receiver.payloads == {KEY: PAYLOAD, OTHER: PAYLOAD}
    assert len(receiver.wires) == 1
    counts = [order[:count].count(KEY) - order[:count].count(OTHER) for count in range(len(order))]
    assert max(map(abs, counts)) <= 8


def test_so_many_pulls_ask_at_a_time_and_the_others_wait() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    keys = [index.to_bytes(14, "big") for index in range(PULLS_MAX + 50)]
    for key in keys:
        holder.serve(key, key)
        receiver.pull(key, len(key), holder)
    web.run()
    assert {told.key for told in receiver.got} == set(keys)
    assert receiver.core.at_rest()


def test_very_many_pulls_without_a_source_fail_one_after_the_other() -> None:
    web = Web()
    silent, receiver = web.peer("silent"), web.peer("taker")
    for index in range(PULLS_MAX):
        receiver.pull(index.to_bytes(14, "big"), SIZE, silent)
    for index in range(5000):
        receiver.pull(b"x" + index.to_bytes(13, "big"), SIZE)
    web.kill(silent)
    assert len(receiver.got) == PULLS_MAX + 5000


# ---------------------------------------------------------------- those who cannot be dialled


def test_one_that_cannot_be_dialled_comes_and_says_what_it_has() -> None:
    web = Web()
    client, node = web.peer("client", listens=False), web.peer("node")
    client.serve(KEY, PAYLOAD)
    node.pull(KEY, SIZE, client)
    web.run()
    assert not node.got
    client.tell(words.Offer(KEY, node.source))
    web.run()
    assert node.payloads[KEY] == PAYLOAD
    assert client.core.at_rest()


def test_what_it_says_is_remembered_until_somebody_wants_it() -> None:
    web = Web()
    client, node = web.peer("client", listens=False), web.peer("node")
    client.serve(KEY, PAYLOAD)
    client.tell(words.Offer(KEY, node.source))
    web.run()
    node.pull(KEY, SIZE, client)
    web.run()
    assert node.payloads[KEY] == PAYLOAD


def test_what_it_says_is_remembered_for_some_time_and_up_to_a_number() -> None:
    core = Moving(b"node..", SMALL)
    core.handle(words.Heard(-1, Greet(DATA_PROTOCOL_VERSION, b"client")), 0.0)
    for index in range(5000):
        core.handle(words.Heard(-1, Have(index.to_bytes(14, "big"), 1)), 0.0)
    core.check_invariants()
    source = Source(b"client", "", b"")
    commands = core.handle(words.Pull((4999).to_bytes(14, "big"), 1, [source]), 61.0)
    assert commands == []


def test_one_that_never_comes_is_given_up() -> None:
    web = Web()
    client, node = web.peer("client", listens=False), web.peer("node")
    node.pull(KEY, SIZE, client)
    web.pass_time(2 * SMALL.data_silence_s)
    assert "nothing came" in failed(node).reason


def test_an_offer_whose_connection_is_cut_is_made_again() -> None:
    web = Web()
    client, node = web.peer("client", listens=False), web.peer("node")
    client.serve(KEY, PAYLOAD)
    node.pull(KEY, SIZE, client)
    client.tell(words.Offer(KEY, node.source))
    web.until(lambda: has(node, SIZE // 2))
    client.cut(next(iter(client.wires)))
    web.pass_time(1.0)
    assert node.payloads[KEY] == PAYLOAD


# -------------------------------------------------------------------------------- bad words


def test_whoever_does_not_greet_first_is_closed_and_counted() -> None:
    core = Moving(b"node..", SMALL)
    assert core.handle(words.Heard(-1, Have(KEY, 1)), 0.0) == [words.Close(-1)]
    assert core.handle(words.Junk(-2, "no word"), 0.0) == [words.Close(-2)]
    assert core.counters["junk"] == 2
    assert core.connections == 0


def test_another_one_than_was_dialled_is_not_taken_for_it() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    holder.serve(KEY, PAYLOAD)
    wanted = holder.source._replace(peer=b"other.")
    web.at = lambda _: holder  # type: ignore[method-assign]
    receiver.pull(KEY, SIZE, wanted)
    web.run()
    assert "greet.peer" in failed(receiver).reason


def test_pieces_that_were_not_asked_for_close_the_connection() -> None:
    core = Moving(b"node..", SMALL)
    source = Source(b"holder", "tcp://holder:1", b"k" * 32)
    core.handle(words.Pull(KEY, SIZE, [source]), 0.0)
    core.handle(words.Heard(1, Greet(DATA_PROTOCOL_VERSION, b"holder")), 0.0)
    data = PAYLOAD[: SMALL.data_window_bytes + 1]
    piece = Piece(KEY, 0, SIZE, crc32(data), memoryview(data))
    commands = core.handle(words.Heard(1, piece), 0.0)
    assert words.Close(1) in commands
    assert isinstance(commands[-1], Failed)


def test_words_about_what_is_not_known_do_nothing() -> None:
    core = Moving(b"node..", SMALL)
    core.handle(words.Heard(-1, Greet(DATA_PROTOCOL_VERSION, b"client")), 0.0)
    piece = Piece(KEY, 0, 1, crc32(b"x"), memoryview(b"x"))
    for word in (piece, Gone(KEY, "no")):
        assert core.handle(words.Heard(-1, word), 0.0) == []
    assert core.counters["pieces_late"] == 1


def test_a_connection_that_nobody_uses_is_closed_by_whoever_dialled_it() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    holder.serve(KEY, PAYLOAD)
    receiver.pull(KEY, SIZE, holder)
    web.pass_time(SMALL.data_idle_s / 2)
    assert receiver.core.connections == holder.core.connections == 1
    web.pass_time(SMALL.data_idle_s)
    assert receiver.core.connections == holder.core.connections == 0


# ----------------------------------------------------------------------- whatever may happen


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_arrives_is_right_or_it_is_told_that_nothing_does(data: st.DataObject) -> None:
    web = Web(msgspec.structs.replace(SMALL, data_window_bytes=data.draw(st.integers(1, 400))))
    size = data.draw(st.integers(0, 600))
    payload = PAYLOAD[:size]
    holders = [web.peer(f"hold{index}") for index in range(data.draw(st.integers(1, 3)))]
    takers = [web.peer(f"take{index}") for index in range(data.draw(st.integers(1, 3)))]
    for holder in holders:
        if data.draw(st.booleans()):
            holder.serve(KEY, payload)
    for index, taker in enumerate(takers):
        sources = data.draw(st.permutations(holders + takers[:index]))
        taker.pull(KEY, size, *sources)
    for _ in range(data.draw(st.integers(0, 60))):
        moving = web.waiting()
        act = data.draw(st.sampled_from(["step"] * 12 + ["cut", "kill", "spoil", "time", "stick"]))
        if act == "step" and moving:
            web.step(*moving[data.draw(st.integers(0, len(moving) - 1))])
        elif act == "cut" and moving:
            peer, connection = moving[data.draw(st.integers(0, len(moving) - 1))]
            peer.cut(connection)
        elif act == "stick" and moving:
            peer, connection = moving[data.draw(st.integers(0, len(moving) - 1))]
            peer.wires[connection].stuck = True
        elif act == "kill" and holders:
            holder = holders.pop()
            web.kill(holder)
        elif act == "spoil" and holders:
            spoil = data.draw(st.integers(0, len(holders) - 1))
            holders[spoil].spoil = lambda piece: msgspec.structs.replace(
                piece, checksum=piece.checksum ^ 1
            )
        elif act == "time":
            web.pass_time(data.draw(st.floats(0.1, 12.0)))
    web.pass_time(200.0)
    for taker in takers:
        (told,) = taker.got
        assert taker.core.at_rest()
        if isinstance(told, Finished):
            assert taker.payloads[KEY] == payload
        else:
            assert told.reason
            assert not taker.coming
