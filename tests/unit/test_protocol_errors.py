"""The tree of errors: picklable, with attributes."""

import inspect
import pickle

import pytest
from drumbeat.protocol import errors

ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, BaseException) and kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not errors.Interrupted])
def test_every_error_is_picklable_with_its_details(kind):
    error = kind("what was wrong", setting="s", count=3)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == "what was wrong"
    assert (again.setting, again.count) == ("s", 3)
    assert isinstance(error, errors.DrumbeatError)
    assert kind.__doc__


def test_errors_are_also_the_standard_types_that_users_catch():
    assert issubclass(errors.GetTimeoutError, TimeoutError)
    assert issubclass(errors.NotPicklable, pickle.PicklingError)
    assert not issubclass(errors.Interrupted, Exception)


def test_interrupted_says_why_and_is_picklable():
    assert pickle.loads(pickle.dumps(errors.Interrupted("cancelled"))).reason == "cancelled"


def test_a_cause_can_be_given_in_one_expression():
    cause = ValueError()
    assert errors.ObjectLost("gone").with_cause(cause).__cause__ is cause
