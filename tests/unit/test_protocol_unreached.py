"""Nobody waits for a peer that cannot be reached with each payload anew, nor leaves it for ever."""

import msgspec
from drumbeat.protocol import moving_words as words
from drumbeat.protocol.moving_words import Failed, Source
from drumbeat.protocol.unreached import UNREACHED_MAX, UNREACHED_S, WAITED_S, Unreached
from support.moving_web import SMALL, Peer, Web

KEY, OTHER = b"k" * 14, b"o" * 14
PAYLOAD = bytes(range(256)) * 8
SIZE = len(PAYLOAD)


def reason(peer: Peer) -> str:
    (told,) = peer.got
    assert isinstance(told, Failed)
    peer.got.clear()
    return told.reason


def test_one_that_was_waited_for_in_vain_is_not_waited_for_again_with_the_next_payload() -> None:
    web = Web()
    client, receiver = web.peer("client", listens=False), web.peer("taker")
    client.serve(KEY, PAYLOAD)
    receiver.pull(KEY, SIZE, client)
    web.pass_time(SMALL.data_silence_s * 1.5)
    assert "nothing came" in reason(receiver)
    receiver.pull(OTHER, SIZE, client)
    assert reason(receiver) == "it could not be reached of late"
    client.tell(words.Offer(KEY, receiver.source))  # there is a way again
    web.run()
    receiver.pull(KEY, SIZE, client)
    web.run()
    assert receiver.payloads[KEY] == PAYLOAD


def test_one_that_could_not_be_reached_is_tried_again_after_a_while_or_if_nothing_else_helps() -> (
    None
):
    web = Web(msgspec.structs.replace(SMALL, value_bytes_max=SIZE))
    silent, receiver = web.peer("silent"), web.peer("taker")
    silent.is_deaf = True
    receiver.pull(KEY, SIZE, silent)
    web.pass_time(SMALL.data_silence_s * 1.5)
    assert "nothing came" in reason(receiver)
    silent.is_deaf = False
    silent.serve(KEY, PAYLOAD)
    receiver.pull(KEY, SIZE, silent)
    assert reason(receiver) == "it could not be reached of late"
    silent.serve(OTHER, PAYLOAD * 2)  # nothing so large goes another way
    receiver.pull(OTHER, SIZE * 2, silent)
    web.run()
    assert receiver.payloads[OTHER] == PAYLOAD * 2


def test_of_many_that_come_slowly_in_turns_none_is_given_up_for_its_turns_being_rare() -> None:
    web = Web()
    holder, receiver = web.peer("holder"), web.peer("taker")
    keys = [bytes([number]) * 14 for number in range(8)]
    for key in keys:
        holder.serve(key, PAYLOAD[:300])
        receiver.pull(key, 300, holder)
    web.until(lambda: bool(receiver.coming))
    while waiting := web.waiting():
        peer, connection = waiting[0]
        web.step(peer, connection)
        if peer is receiver:  # so that one payload's turn comes after more than a silence
            web.now_s += SMALL.data_silence_s / 5
        for one in web.peers:
            one.tell(words.Tick())
    assert [receiver.payloads.get(key) for key in keys] == [PAYLOAD[:300]] * len(keys)
    assert receiver.core.counters["sources_lost"] == 0


def test_it_is_left_alone_for_a_time_and_only_if_waiting_took_long() -> None:
    unreached, source = Unreached(), Source(b"peer", "tcp://10.0.0.1:1", b"k" * 32)
    unreached.note(source, 5.0, 5.0 + WAITED_S / 2)
    assert not unreached.has(source, 6.0)
    unreached.note(source, 5.0, 7.0)
    assert unreached.has(source, 7.0 + UNREACHED_S / 2)
    assert not unreached.has(source, 7.0 + UNREACHED_S)
    unreached.reached(source.peer, source.endpoint)
    assert not unreached.has(source, 7.0)


def test_no_more_than_so_many_are_remembered_the_last_ones() -> None:
    unreached = Unreached()
    sources = [Source(b"%d" % number, "", b"") for number in range(UNREACHED_MAX + 1)]
    for source in sources:
        unreached.note(source, 0.0, 2.0)
    assert [unreached.has(source, 2.0) for source in sources].count(True) == UNREACHED_MAX
    assert not unreached.has(sources[0], 2.0)
