"""Event loops lend from the moment that asyncio is imported; until then it is not loaded."""

import subprocess
import sys

BEGIN = """
import sys
from drumbeat.node.asyncio_hook import lend_in_loops

def policy():
    return type(sys.modules["asyncio"].get_event_loop_policy()).__module__

"""


def said_by(code: str) -> list[str]:
    """Return what a fresh interpreter prints: a policy is one for the whole process."""
    command = [sys.executable, "-c", BEGIN + code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_a_loop_lends_as_soon_as_there_can_be_one() -> None:
    code = "lend_in_loops(None); print('asyncio' in sys.modules); import asyncio; print(policy())"
    assert said_by(code) == ["False", "drumbeat.node.loops"]


def test_a_loop_lends_though_asyncio_was_loaded_before() -> None:
    code = "import asyncio; print(policy()); lend_in_loops(None); print(policy())"
    assert said_by(code) == ["asyncio.unix_events", "drumbeat.node.loops"]


def test_a_part_of_asyncio_alone_is_enough() -> None:
    code = "lend_in_loops(None); from asyncio.queues import Queue; print(policy())"
    assert said_by(code) == ["drumbeat.node.loops"]


def test_a_module_of_ours_may_be_the_one_that_loads_asyncio() -> None:
    code = "lend_in_loops(None); import drumbeat.protocol.futures; print(policy())"
    assert said_by(code) == ["drumbeat.node.loops"]


def test_nothing_is_left_of_the_hook_and_asyncio_looks_as_it_always_does() -> None:
    code = """
before = list(sys.meta_path)
lend_in_loops(None)
import asyncio
print(sys.meta_path == before, asyncio.__loader__ is asyncio.__spec__.loader)
print(type(asyncio.__loader__).__name__)
"""
    assert said_by(code) == ["True", "True", "SourceFileLoader"]


def test_looking_for_asyncio_without_loading_it_changes_nothing() -> None:
    code = """
import importlib.util
lend_in_loops(None)
print(importlib.util.find_spec("asyncio").name, "asyncio" in sys.modules)
import asyncio
print(policy())
"""
    assert said_by(code) == ["asyncio", "False", "drumbeat.node.loops"]


def test_an_import_that_fails_is_met_again() -> None:
    code = """
lend_in_loops(None)
sys.modules["asyncio.base_events"] = None
try:
    import asyncio
except ImportError:
    print("failed")
del sys.modules["asyncio.base_events"]
import asyncio
print(policy())
"""
    assert said_by(code) == ["failed", "drumbeat.node.loops"]
