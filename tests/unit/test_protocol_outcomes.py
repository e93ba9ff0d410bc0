"""Rows to values and to the exceptions that users catch."""

import errno
import pickle
import threading
import traceback

import pytest
from drumbeat.protocol import errors
from drumbeat.protocol.errors import (
    DependencyFailed,
    DrumbeatError,
    NodeLost,
    NotPicklable,
    ObjectLost,
    TaskCancelled,
    TaskError,
    WorkerDied,
)
from drumbeat.protocol.messages import Failure, Outcome, ValueRow
from drumbeat.protocol.outcomes import error_of, is_retryable, value_of
from drumbeat.protocol.payload import pack_error, pack_value
from drumbeat.protocol.references import ObjectRef
from support.fake_session import FakeSession

ID = b"i" * 14


def raised(exception, **details):
    """Return what the client raises for what a task raised."""
    try:
        raise exception
    except BaseException as error:  # noqa: BLE001  # what a worker does
        details = {"name": "resize", "task": "t-1", "node": "lab3", "pid": 41, **details}
        packed = pack_error(error, attempt=1, **details)
    found = error_of(ValueRow(ID, Outcome.ERROR, packed.payload))
    assert found is not None
    return found


def failed(name, text="text", cause=None, payload=None, **details):
    failure = Failure(name, text, details, cause)
    return error_of(ValueRow(ID, Outcome.FAILURE, payload, failure=failure))


class CustomError(ValueError):
    def __init__(self, code, *, node):
        super().__init__(code)
        self.code = code
        self.node = node

    def __reduce__(self):
        return (_custom, (self.code, self.node))


def _custom(code, node):
    return CustomError(code, node=node)


class SlottedError(Exception):
    __slots__ = ("extra",)

    def __reduce__(self):
        return (_slotted, (self.extra,))


def _slotted(extra):
    made = SlottedError("x")
    made.extra = extra
    return made


class StubbornError(Exception):
    def __init_subclass__(cls, **_):
        raise TypeError("no subclasses")


class TwoError(Exception):
    def __init__(self, a, b):
        super().__init__(a)


def test_a_value_is_returned():
    assert value_of(ValueRow(ID, Outcome.VALUE, pack_value([1]).payload)) == [1]
    assert value_of(ValueRow(ID, Outcome.VALUE)) is None
    assert error_of(ValueRow(ID, Outcome.VALUE)) is None


def test_a_users_exception_is_task_error_and_its_own_type():
    error = raised(ValueError("boom"))
    assert isinstance(error, TaskError)
    assert isinstance(error, ValueError)
    assert error.args == ("boom",)
    assert repr(error.cause) == "ValueError('boom')"
    assert (error.name, error.task, error.node, error.pid) == ("resize", "t-1", "lab3", 41)
    text = str(error)
    assert text.startswith("resize() raised ValueError (pid=41, node=lab3)")
    assert "Traceback (most recent call last)" in text
    assert text.endswith("ValueError: boom")
    assert error.traceback_text.endswith("ValueError: boom\n")


def test_the_class_is_made_once_a_type_and_an_instance_each_time():
    first, second = raised(ValueError(1)), raised(ValueError(1))
    assert type(first) is type(second)
    assert first is not second


@pytest.mark.parametrize(
    ("exception", "attributes"),
    [
        (FileNotFoundError(errno.ENOENT, "none", "f.txt"), ("errno", "strerror", "filename")),
        (UnicodeDecodeError("utf8", b"x", 0, 1, "bad"), ("encoding", "start", "end", "reason")),
        (ImportError("no", name="mod", path="p"), ("name", "path", "msg")),
        (KeyError("k"), ("args",)),
        (SyntaxError("bad", ("f.py", 3, 1, "x", 3, 2)), ("lineno", "filename", "msg")),
        (CustomError(5, node="theirs"), ("code", "node")),
    ],
)
def test_attributes_of_the_cause_are_kept(exception, attributes):
    error = raised(exception)
    assert isinstance(error, TaskError)
    assert isinstance(error, type(exception))
    for name in attributes:
        assert getattr(error, name) == getattr(exception, name)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    for name in attributes:
        assert getattr(again, name) == getattr(exception, name)


def test_attributes_in_slots_are_kept():
    exception = SlottedError("x")
    exception.extra = 3
    assert raised(exception).extra == 3


def test_an_exception_group_stays_one():
    error = raised(ExceptionGroup("g", [ValueError("v"), KeyError("k")]))
    assert isinstance(error, TaskError)
    caught = []
    try:
        raise error
    except* ValueError as part:
        caught.append(part.exceptions)
    except* KeyError as part:
        caught.append(part.exceptions)
    assert len(caught) == 2


@pytest.mark.parametrize("exception", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_the_caller_arrives_as_task_error_only(exception):
    error = raised(exception)
    assert type(error) is TaskError
    assert type(error.cause) is type(exception)
    assert type(exception).__name__ in str(error)


@pytest.mark.parametrize("exception", [StopIteration(1), StubbornError("x"), TwoError(1, 2)])
def test_a_type_that_cannot_be_one_arrives_as_task_error_with_text(exception):
    error = raised(exception)
    assert type(error) is TaskError
    assert type(exception).__name__ in str(error)
    assert pickle.loads(pickle.dumps(error)).traceback_text == error.traceback_text


def test_an_error_through_two_tasks_keeps_its_type_and_tells_the_outer_one():
    inner = raised(ValueError("deep"))
    outer = raised(inner, name="outer", pid=99)
    assert isinstance(outer, ValueError)
    assert (outer.name, outer.pid) == ("outer", 99)
    assert type(outer.cause) is ValueError
    assert "deep" in str(outer)
    assert "1 more" not in str(outer)


@pytest.mark.parametrize(
    "error", [LookupError("deep"), CustomError(3, node="a"), SystemExit(3), StubbornError("s")]
)
def test_an_error_keeps_type_cause_and_size_however_many_tasks_it_passes_through(error):
    first = found = raised(error, name="innermost")
    sizes = []
    for depth in range(60):
        found = raised(found, name=f"task_{depth}")
        sizes.append(len(pickle.dumps(found)))
    assert type(found) is type(first)
    assert type(found.cause) is type(error)
    assert sizes[-1] < sizes[2] + 100
    text = str(found)
    assert text.count("Traceback") == 2
    assert "59 more tasks between" in text
    assert text.startswith("task_59() raised")
    assert "innermost() raised" in text


@pytest.mark.parametrize("name", ["ResourceDeadlock", "WorkerDied", "NodeLost", "Infeasible"])
def test_a_failure_keeps_its_class_however_many_tasks_it_passes_through(name):
    found = failed(name, "it ended")
    for _ in range(30):
        found = raised(found)
    assert isinstance(found, getattr(errors, name))
    assert "it ended" in str(found)


def test_a_dependency_that_failed_again_and_again_does_not_grow_beyond_measure():
    payload = pack_error(CustomError(3, node="a")).payload
    for _ in range(12):
        error = failed("DependencyFailed", payload=payload)
        payload = pack_error(error).payload
    assert len(payload) < 100_000


def made_here(base=Exception):
    return type("Passing", (base,), {})("x")


@pytest.mark.parametrize("base", [Exception, BaseException])
def test_an_error_of_a_class_that_pickle_cannot_find_is_picklable(base):
    error = raised(made_here(base))
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, TaskError)
    assert "Passing: x" in str(again)
    assert again.cause.args == ("x",)


def test_an_error_whose_cause_cannot_be_packed_is_told_as_text():
    error = raised(ValueError("boom"))
    error.cause.lock = threading.Lock()
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is TaskError
    assert "ValueError: boom" in str(again)


def test_references_in_an_error_are_found_when_it_is_packed_and_pinned_when_pickled():
    with FakeSession() as session:
        ref = ObjectRef(session.put(pack_value(1)), session)
        error = raised(ValueError(ref))
        assert pack_value(error).contained == (ref.id,)
        assert pack_error(error).contained == (ref.id,)
        assert not session.pinned
        pickle.dumps(error)
        assert session.pinned == [ref.id]


def test_a_drumbeat_error_raised_by_a_task_keeps_its_type():
    error = raised(WorkerDied("died", exit_code=3))
    assert isinstance(error, WorkerDied)
    assert error.exit_code == 3


def test_an_uncaught_error_prints_the_remote_traceback():
    error = raised(ValueError("boom"))
    printed = "".join(traceback.format_exception(error))
    assert "drumbeat.TaskError(ValueError): resize() raised ValueError" in printed


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("TaskCancelled", TaskCancelled),
        ("NodeLost", NodeLost),
        ("ObjectLost", ObjectLost),
        ("NotPicklable", NotPicklable),
        ("os", TaskError),
        ("FromTheFuture", TaskError),
    ],
)
def test_a_failure_becomes_the_class_of_its_name(name, kind):
    error = failed(name, "why", task="t")
    assert type(error) is kind
    assert "why" in str(error)
    assert error.task == "t"
    with pytest.raises(kind):
        value_of(ValueRow(ID, Outcome.FAILURE, failure=Failure(name, "why")))


def test_details_become_attributes():
    error = failed("WorkerDied", exit_code=None, signal_name="SIGSEGV", stderr_tail="tail")
    assert (error.exit_code, error.signal_name, error.stderr_tail) == (None, "SIGSEGV", "tail")


def test_a_failed_dependency_carries_its_error():
    payload = pack_error(ValueError("root")).payload
    error = failed("DependencyFailed", payload=payload)
    assert isinstance(error, DependencyFailed)
    assert isinstance(error.cause, ValueError)
    assert error.__cause__ is error.cause
    by_failure = failed("DependencyFailed", cause=Failure("NodeLost", "gone"))
    assert isinstance(by_failure.cause, NodeLost)


def test_a_row_without_a_reason_is_still_an_error():
    assert isinstance(error_of(ValueRow(ID, Outcome.FAILURE)), DrumbeatError)


def test_which_errors_are_tried_again():
    assert not is_retryable(ValueError(), False)
    assert is_retryable(ValueError(), True)
    assert not is_retryable(SystemExit(), True)
    assert is_retryable(FileNotFoundError(), (KeyError, OSError))
    assert not is_retryable(ValueError(), (KeyError,))


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_type_that_cannot_be_asked_is_no_reason_to_try_again(raised):
    class Moody(type):
        def __instancecheck__(cls, instance):
            raise raised("no")

    class Error(Exception, metaclass=Moody):
        pass

    assert not is_retryable(ValueError(), (Error,))
    assert not is_retryable(ValueError(), (Error, ValueError))
    assert not is_retryable(ValueError(), "no type at all")
