"""What workers wrote of their stacks, made readable and harmless."""

from drumbeat.client.stack_text import lines, read
from drumbeat.protocol.stack_text import in_a_line, of_crash, part_of

DUMP = """\
Thread 0x00007f01 (most recent call first):
  File "/home/u/app/feeder.py", line 7 in feed
  File "/usr/lib/python3.11/threading.py", line 982 in run
  File "/usr/lib/python3.11/threading.py", line 1045 in _bootstrap_inner
  File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap

Thread 0x00007f02 (most recent call first):
  File "/site/drumbeat/node/worker.py", line 457 in _serve
  File "/usr/lib/python3.11/threading.py", line 1045 in _bootstrap_inner

Current thread 0x00007f03 (most recent call first):
  File "/home/u/app/node/tool.py", line 88 in _native_blur
  File "/home/u/app/pipeline.py", line 31 in resize
  File "/site/drumbeat/node/worker.py", line 307 in _attempt
  File "/site/drumbeat/node/worker.py", line 97 in main
  File "/site/drumbeat/node/template.py", line 267 in _work
  File "<frozen runpy>", line 198 in _run_module_as_main
"""


def test_the_users_frames_are_shown_innermost_first_and_the_main_thread_first() -> None:
    assert lines(DUMP) == [
        "  main thread:",
        "    /home/u/app/node/tool.py:88 _native_blur",
        "    /home/u/app/pipeline.py:31 resize",
        "  another thread:",
        "    /home/u/app/feeder.py:7 feed",
        "    /usr/lib/python3.11/threading.py:982 run",
    ]


def test_all_of_it_is_shown_when_that_is_asked_for_but_not_how_the_process_came_to_be() -> None:
    whole = lines(DUMP, whole=True)
    assert "    /site/drumbeat/node/worker.py:97 main" in whole
    assert "    /site/drumbeat/node/worker.py:457 _serve" in whole
    assert not any("runpy" in line for line in whole)


COROUTINES = """\
Coroutine Crawler.fetch a1-0-7 (most recent call first):
  File "/usr/lib/python3.11/asyncio/tasks.py", line 639 in sleep
  File "/home/u/app/crawl.py", line 12 in fetch
Coroutine Crawler.take a1-0-8 (most recent call first):
  File "/home/u/app/crawl.py", line 30 in take
"""


def test_coroutines_come_after_the_threads_each_with_the_call_that_it_is() -> None:
    shown = lines(COROUTINES + DUMP)
    assert shown[0] == "  main thread:"
    assert shown[-5:] == [
        "  coroutine of Crawler.fetch a1-0-7:",
        "    /usr/lib/python3.11/asyncio/tasks.py:639 sleep",
        "    /home/u/app/crawl.py:12 fetch",
        "  coroutine of Crawler.take a1-0-8:",
        "    /home/u/app/crawl.py:30 take",
    ]


def test_threads_have_the_names_of_the_calls_that_they_run() -> None:
    shown = lines("Named 0x0000000000007f01 Feeder.feed a1-0-9\n" + DUMP)
    assert "  thread of Feeder.feed a1-0-9:" in shown
    assert "  another thread:" not in shown


def test_of_a_call_beside_others_the_line_says_where_that_is() -> None:
    part = part_of(COROUTINES, "a1-0-8")
    assert part.count("Coroutine") == 1
    assert in_a_line(part + DUMP) == "crawl.py:30 take"
    assert in_a_line(part_of(COROUTINES, "a1-0-99") + DUMP).startswith("tool.py:88 _native_blur")


def test_of_a_call_whose_code_has_yet_to_begin_the_line_says_what_keeps_it() -> None:
    unbegun = f"{part.splitlines()[0]}\n" if (part := part_of(COROUTINES, "a1-0-8")) else ""
    assert unbegun.startswith("Coroutine")
    assert in_a_line(unbegun + DUMP).startswith("tool.py:88 _native_blur")


def test_a_worker_in_drumbeats_own_code_says_so() -> None:
    dump = (
        "Current thread 0x1 (most recent call first):\n"
        '  File "/site/drumbeat/node/line.py", line 5 in next\n'
        '  File "/site/drumbeat/node/worker.py", line 97 in main\n'
    )
    assert lines(dump) == ["  main thread: in Drumbeat's own code"]


def test_a_thread_of_drumbeats_own_is_left_out_with_what_began_it() -> None:
    own = (
        "Thread 0x00007f02 (most recent call first):\n"
        '  File "/site/drumbeat/node/helper.py", line 70 in _serve\n'
        '  File "/usr/lib/python3.11/threading.py", line 982 in run\n'
        '  File "/usr/lib/python3.11/threading.py", line 1045 in _bootstrap_inner\n\n'
    )
    assert lines(own + DUMP) == lines(DUMP)


CRASH = """\
about to call it
Fatal Python error: Segmentation fault

Stack (most recent call first):
  File "/home/u/app/tool.py", line 88 in _native_blur
  File "/home/u/app/pipeline.py", line 31 in resize
  File "/site/drumbeat/node/worker.py", line 328 in _attempt
  File "/site/drumbeat/node/worker.py", line 102 in main
  File "/site/drumbeat/node/template.py", line 267 in _work

Extension modules: msgspec._core (total: 1)
"""


def test_of_a_crash_the_users_frames_are_kept_and_not_drumbeats() -> None:
    assert of_crash(CRASH, 12).splitlines() == [
        "about to call it",
        "Fatal Python error: Segmentation fault",
        "",
        "Stack (most recent call first):",
        '  File "/home/u/app/tool.py", line 88 in _native_blur',
        '  File "/home/u/app/pipeline.py", line 31 in resize',
    ]
    assert of_crash(CRASH, 1).splitlines()[-2:] == [
        '  File "/home/u/app/tool.py", line 88 in _native_blur',
        "  ...",
    ]


def test_what_is_no_crash_is_left_as_it_is() -> None:
    assert of_crash(DUMP, 12) == DUMP
    assert of_crash("Fatal Python error: so says a program\n", 12).startswith("Fatal")


def test_what_could_steer_a_terminal_is_written_out() -> None:
    dump = (
        "Current thread 0x1 (most recent call first):\n"
        '  File "/a\x1b[2J.py", line 5 in \x07evil\n'
        "\x1b]0;title\x07\n"
    )
    shown = "".join(lines(dump) + lines("\x1b[31mno stack at all"))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "evil" in shown
    assert "no stack at all" in shown


def test_more_frames_than_are_written_and_an_empty_text_are_no_error() -> None:
    dump = 'Current thread 0x1 (most recent call first):\n  File "/a.py", line 1 in f\n  ...\n'
    assert lines(dump)[-1] == "    ..."
    assert read("") == []
