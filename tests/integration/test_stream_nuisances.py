"""Who floods, does not read, or holds a connection open by a fork, is a nuisance to nobody else."""

import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
from drumbeat.protocol import zmtp
from drumbeat.protocol.clock import now_s
from drumbeat.protocol.ends import FRAMES_PER_TURN_MAX
from drumbeat.protocol.streams import Stream, close_all
from support.stream_bench import DEALER_SAYS, MIB, SETTINGS, Bench

pytestmark = pytest.mark.integration

HELLO = b"\0\5hello"
#: a message of two parts
PARTS = b"\1\0\0\0"


def test_writing_to_one_who_has_gone_ends_no_program_that_dies_of_broken_pipes() -> None:
    program = """
        import signal, socket
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        from drumbeat.protocol import zmtp
        from drumbeat.protocol.settings import Settings
        from drumbeat.protocol.streams import Stream
        mine, others = socket.socketpair()
        stream = Stream(mine, zmtp.DEALER, Settings())
        others.close()
        print(stream.send(b"a"), stream.send(bytes(1 << 20)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "False False\n"), done.stderr


def test_parts_and_commands_take_no_more_of_a_turn_than_frames(bench: Bench) -> None:
    listening = bench.listen()
    flooder = bench.raw(DEALER_SAYS + HELLO)
    bench.until(lambda: bench.frames() == [b"hello"])
    flooder.sendall(PARTS * 20_000)
    bench.raw(DEALER_SAYS + HELLO)
    while len(bench.came) < 2:
        before = listening.junk_dropped
        bench.turn()
        assert listening.junk_dropped - before <= FRAMES_PER_TURN_MAX
    assert listening.junk_dropped < 20_000, "it was heard meanwhile"
    bench.until(lambda: listening.junk_dropped == 20_000)


def test_who_does_not_read_is_hung_up_on_before_much_is_kept_for_it(bench: Bench) -> None:
    listening = bench.listen()
    bench.raw(DEALER_SAYS + HELLO)
    bench.until(lambda: bench.came)
    ((route, _),) = bench.came
    most = 2 * SETTINGS.link_window_bytes_max + 2 * MIB
    sent = 0
    while listening.send(route, bytes(MIB)):
        sent += MIB
        assert sent <= most
    assert sent >= 2 * SETTINGS.link_window_bytes_max, "what an honest one may cause goes on"
    assert listening.closed() == [route]
    assert listening.connections == 0


def test_many_small_answers_are_not_kept_without_end_either(bench: Bench) -> None:
    listening = bench.listen()
    bench.raw(DEALER_SAYS + HELLO)
    bench.until(lambda: bench.came)
    ((route, _),) = bench.came
    assert any(not listening.send(route, b"reset") for _ in range(200_000))
    assert listening.closed() == [route]


def test_last_words_reach_those_who_read_though_another_does_not(bench: Bench) -> None:
    listening = bench.listen()
    slow, quick = bench.raw(DEALER_SAYS + b"\0\4slow"), bench.raw(DEALER_SAYS + b"\0\5quick")
    bench.until(lambda: len(bench.came) == 2)
    routes = {frame: route for route, frame in bench.came}
    for route in routes.values():
        for _ in range(5):
            assert listening.send(route, bytes(MIB))
    reader = os.fork()
    if not reader:
        slow.close()
        count = 0
        while part := quick.recv(MIB):
            count += len(part)
        os._exit(0 if count > 5 * MIB else 1)
    begun_s = now_s()
    listening.close(2.0)
    assert now_s() - begun_s < 10.0
    _, status = os.waitpid(reader, 0)
    assert status == 0
    bench.listening = None


def test_a_connection_ends_for_the_other_end_though_a_forked_child_has_it_too(
    bench: Bench,
) -> None:
    listening, dialing = bench.listen(), bench.dial()
    dialing.send(b"hello")
    bench.until(lambda: bench.came)
    child = os.fork()
    if not child:
        signal.pause()
    try:
        dialing.close()
        bench.dialing = None
        bench.until(lambda: not listening.connections)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_frame_in_tiny_pieces_takes_no_more_memory_than_it_has_bytes() -> None:
    incoming = zmtp.Incoming(zmtp.DEALER, MIB)
    incoming.take(DEALER_SAYS, 1)
    incoming.take(zmtp.head(MIB), 1)
    for _ in range(MIB // 2 - 1):
        assert incoming.take(b"ab", 1) == []
    assert sys.getsizeof(incoming._rest) < 2 * MIB
    assert incoming.take(b"ab", 1) == [b"ab" * (MIB // 2)]


def test_streams_without_anything_left_close_at_once() -> None:
    mine, others = socket.socketpair()
    begun_s = now_s()
    close_all([Stream(mine, zmtp.DEALER, SETTINGS)], 5.0)
    assert now_s() - begun_s < 4.0
    assert others.recv(1) == b""
    others.close()
