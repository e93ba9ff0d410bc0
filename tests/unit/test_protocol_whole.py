"""Classes that travel whole: what comes back is the class that is here, as it is here."""

import sys
import types

import pytest
from drumbeat.protocol import whole
from drumbeat.protocol.payload import pack_value, unpack_value

SOURCE = """
import enum
count = 0
class Point:
    made = 0
    def moved(self):
        global count
        count += 1
        return Point()
class Far(Point): pass
class Colour(enum.Enum):
    RED = 1
class Failure(ValueError):
    code = 1
"""


@pytest.fixture
def main_module(monkeypatch):
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(SOURCE, module.__dict__)
    return module


def test_a_class_that_comes_back_is_the_one_that_is_here_and_as_it_is_here(main_module):
    point = main_module.Point
    method = point.moved
    packed = pack_value([point(), main_module.Far(), main_module.Failure(3)]).payload
    point.made, main_module.Failure.code = 7, 8
    one, far, error = unpack_value(packed)
    assert type(one) is point
    assert type(far) is main_module.Far
    assert type(error) is main_module.Failure
    assert (point.made, error.code) == (7, 8)
    assert point.moved is method
    one.moved()
    assert main_module.count == 1, "its methods know the globals that are here"


def test_an_enumeration_that_comes_back_is_the_one_that_is_here(main_module):
    colour = main_module.Colour
    assert unpack_value(pack_value(colour.RED).payload) is colour.RED


def test_a_class_that_came_is_kept_up_to_date_and_stays_what_it_was(main_module):
    point = main_module.Point
    first = pack_value(point()).payload
    point.made = 5
    second = pack_value(point()).payload
    # As where it comes to: it never left from there.
    whole._left.clear()
    assert type(unpack_value(first)).made == 0
    came = type(unpack_value(second))
    assert came.made == 5
    pack_value(came())
    assert came not in whole._left
    assert came in whole._came
