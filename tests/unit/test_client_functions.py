"""Remote functions: options, signatures, submitting."""

import functools
import os
import pickle
import threading

import drumbeat
import pytest
from drumbeat.client import local
from drumbeat.client.functions import RemoteFunction, remote, session_or_start
from drumbeat.client.options import NAMES
from drumbeat.protocol import session as session_module
from drumbeat.protocol.errors import Infeasible, NotPicklable
from drumbeat.protocol.payload import unpack_function
from drumbeat.protocol.references import ObjectRef
from support.fake_session import FakeSession


@remote
def decorated(n, times=2):
    """Multiply."""
    return n * times


@remote
def factorial(n):
    return 1 if n == 0 else n * drumbeat.get(factorial.remote(n - 1))


@pytest.fixture
def session():
    with FakeSession() as session:
        yield session


def test_remote_returns_a_reference_at_once(session):
    session.automatic = False
    ref = decorated.remote(3)
    assert isinstance(ref, ObjectRef)
    assert not ref.done()
    session.run()
    assert ref.result() == 6


def test_it_looks_like_the_function_it_wraps():
    assert decorated.__name__ == "decorated"
    assert decorated.__doc__ == "Multiply."
    assert decorated.function(2) == 4
    assert repr(decorated.options(priority=1)) == "<remote function decorated, priority=1>"


def test_calling_it_directly_says_what_to_write():
    with pytest.raises(TypeError, match=r"call decorated\.remote\(\.\.\.\)"):
        decorated(1)


def test_all_forms_of_the_decorator(session):
    assert drumbeat.get(remote(lambda n: n + 1).remote(1)) == 2
    assert drumbeat.get(remote(num_cpus=2)(lambda n: n + 1).remote(1)) == 2
    assert session.calls[-1].kind.options.num_cpus == 2
    assert remote(decorated) is decorated
    with pytest.raises(TypeError, match="takes a function or a class, not 3"):
        remote(3)


def test_callables_of_every_kind_run(session):
    class Adder:
        def __init__(self, n):
            self.n = n

        def __call__(self, m):
            return self.n + m

        def add(self, m):
            return self.n + m

    async def later(m):
        return 5 + m

    for function in (Adder(5), Adder(5).add, functools.partial(lambda a, b: a + b, 5), later):
        assert drumbeat.get(remote(function).remote(2)) == 7
    assert drumbeat.get(remote(len).remote("abc")) == 3


def test_a_function_that_calls_itself_as_a_task_is_sent(session):
    assert drumbeat.get(factorial.remote(5)) == 120


def test_the_signature_is_checked_at_submit(session):
    for args, kwargs, text in (
        ((), {}, "missing a required argument: 'n'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"tims": 2}, "unexpected keyword argument 'tims'"),
        ((1,), {"n": 2}, "multiple values for argument 'n'"),
    ):
        with pytest.raises(TypeError, match=text) as caught:
            decorated.remote(*args, **kwargs)
        assert "decorated()" in str(caught.value)
    assert session.calls == []
    for _ in range(2):
        assert drumbeat.get(decorated.remote(2, times=4)) == 8
        assert drumbeat.get(decorated.remote(n=2)) == 4
        assert drumbeat.get(decorated.remote(2, 5)) == 10


def test_keyword_only_and_variable_arguments_are_checked(session):
    @remote
    def picky(*args, key):
        return args, key

    with pytest.raises(TypeError, match="key"):
        picky.remote(1)
    assert drumbeat.get(picky.remote(1, 2, key=3)) == ((1, 2), 3)
    with pytest.raises(TypeError, match="key"):
        picky.remote(1, 2)


def test_an_unknown_option_names_the_valid_ones():
    for make in (lambda: remote(time_out=3), lambda: decorated.options(memory=3)):
        with pytest.raises(TypeError, match="not an option of a task") as caught:
            make()
        for name in NAMES:
            assert name in str(caught.value)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"num_cpus": -1}, ValueError),
        ({"num_cpus": "1"}, TypeError),
        ({"num_cpus": float("nan")}, ValueError),
        ({"num_gpus": 1.5}, ValueError),
        ({"resources": {"CPU": 1}}, ValueError),
        ({"resources": ["x"]}, TypeError),
        ({"resources": {3: 1}}, TypeError),
        ({"num_returns": -1}, ValueError),
        ({"num_returns": "many"}, ValueError),
        ({"num_returns": 1.5}, TypeError),
        ({"stream_buffer_max": 3}, ValueError),
        ({"stream_buffer_max": 0, "num_returns": "streaming"}, ValueError),
        ({"stream_buffer_max": True, "num_returns": "streaming"}, TypeError),
        ({"max_retries": True}, TypeError),
        ({"max_retries": -1}, ValueError),
        ({"retry_exceptions": [KeyboardInterrupt]}, TypeError),
        ({"retry_exceptions": "ValueError"}, TypeError),
        ({"retry_backoff_s": -1}, ValueError),
        ({"wait_for_nodes": 1}, TypeError),
        ({"priority": 1.0}, TypeError),
        ({"name": 3}, TypeError),
        ({"node": "a", "spread": True}, ValueError),
        ({"node": 3}, TypeError),
        ({"node": {"zone": 3}}, TypeError),
        ({"node": {3: "a"}}, TypeError),
        ({"node": {"zone": []}}, ValueError),
        ({"node": {"zone": ["a", None]}}, TypeError),
        ({"node": {"": "a"}}, ValueError),
        ({"node": {"zone": "a" * 257}}, ValueError),
        ({"node": {f"z{n}": "a" for n in range(65)}}, ValueError),
        ({"spread": "yes"}, TypeError),
        ({"max_calls": -1}, ValueError),
        ({"env_vars": {"A": 1}}, TypeError),
        ({"env_vars": {"A=B": "1"}}, ValueError),
        ({"working_dir": 3}, TypeError),
    ],
)
def test_an_option_that_does_not_fit_is_refused_by_name(given, error):
    with pytest.raises(error, match=next(iter(given))):
        decorated.options(**given)


def test_how_far_ahead_a_task_may_yield_goes_with_streaming():
    options = decorated.options(num_returns="streaming")._checked.options
    assert (options.num_returns, options.stream_buffer_max) == (0, 16)
    changed = decorated.options(num_returns="streaming", stream_buffer_max=65_535)
    assert changed._checked.options.stream_buffer_max == 65_535
    assert changed.num_returns == "streaming"
    with pytest.raises(ValueError, match="goes with"):
        changed.options(num_returns=2)


def test_options_arrive_in_the_kind(session):
    call = decorated.options(
        num_cpus=0.5,
        num_gpus=2,
        resources={"tape": 1, "ink": 2, "none": 0},
        max_retries=1,
        retry_exceptions=[KeyError],
        retry_backoff_s=0.5,
        wait_for_nodes=True,
        priority=-3,
        name="resize",
        node="lab3",
        max_calls=4,
        env_vars={"B": "2", "A": "1"},
        working_dir="somewhere",
    )
    call.remote(1)
    kind = session.calls[0].kind
    options = kind.options
    assert kind.name == "resize"
    assert (options.num_cpus, options.num_gpus, options.max_retries) == (0.5, 2.0, 1)
    assert options.resources == (("ink", 2.0), ("tape", 1.0))
    assert options.retry_exceptions is True
    assert options.retry_backoff_s == 0.5
    assert (options.wait_for_nodes, options.priority, options.node) == (True, -3, "lab3")
    assert (options.max_calls, options.env_vars) == (4, (("A", "1"), ("B", "2")))
    assert options.working_dir == os.path.abspath("somewhere")
    assert unpack_function(kind.function.payload)[1] == (KeyError,)
    decorated.options(spread=True).remote(1)
    assert session.calls[1].kind.options.spread is True


def test_a_node_is_named_or_described_by_its_labels(session):
    labelled = decorated.options(node={"zone": ["b", "a", "b"], "disk": "ssd"}, spread=True)
    labelled.remote(1)
    options = session.calls[0].kind.options
    assert options.node == ""
    assert options.node_labels == (("disk", ("ssd",)), ("zone", ("a", "b")))
    labelled.options(node="lab1", spread=False).remote(1)
    options = session.calls[1].kind.options
    assert (options.node, options.node_labels) == ("lab1", ())


def test_a_working_dir_in_a_home_directory_is_that_of_the_node(session):
    decorated.options(working_dir="~/data").remote(1)
    assert session.calls[0].kind.options.working_dir == "~/data"


def test_options_build_on_each_other_and_are_cached(session):
    first = decorated.options(num_cpus=2)
    assert first is decorated.options(num_cpus=2)
    assert first is not decorated.options(num_cpus=2.0)
    both = first.options(resources={"a": 1})
    assert both is first.options(resources={"a": 1})
    both.remote(1)
    assert session.calls[0].kind.options.num_cpus == 2
    assert session.calls[0].kind.options.resources == (("a", 1.0),)
    decorated.remote(1)
    assert session.calls[0].kind.function is session.calls[1].kind.function, "pickled once"


def test_num_returns_shapes_what_remote_returns(session):
    pair = remote(lambda: (1, 2))
    refs = pair.options(num_returns=2).remote()
    assert drumbeat.get(refs) == [1, 2]
    assert pair.options(num_returns=0).remote() is None


def test_a_kind_is_made_once_a_session(session):
    decorated.remote(1)
    decorated.remote(2)
    assert session.calls[0].kind is session.calls[1].kind
    with FakeSession() as other:
        decorated.remote(3)
        assert other.calls[0].kind is not session.calls[0].kind
        assert other.calls[0].kind.function is session.calls[0].kind.function


def test_a_bad_argument_raises_in_the_caller(session):
    with pytest.raises(NotPicklable, match=r"args\[0\] cannot be sent"):
        decorated.remote(x for x in ())
    assert session.calls == []


def test_what_the_session_refuses_is_raised(session):
    session.submitting = Infeasible("too large")
    with pytest.raises(Infeasible):
        decorated.remote(1)


def test_a_remote_function_is_picklable_as_an_argument(session):
    again = pickle.loads(pickle.dumps(decorated.options(priority=2)))
    assert isinstance(again, RemoteFunction)
    assert again.function is decorated.function, "found by its name"
    again.remote(1)
    assert session.calls[0].kind.options.priority == 2

    local = remote(lambda n: n + 1)
    call = remote(lambda function, n: drumbeat.get(function.remote(n)))
    assert drumbeat.get(call.remote(local, 1)) == 2


def test_a_decorated_function_of_a_module_is_sent_by_name(session):
    decorated.remote(1)
    assert b"cloudpickle" not in session.calls[0].kind.function.payload


def test_the_first_call_starts_a_local_cluster(monkeypatch):
    from drumbeat.client import local

    started = []

    def init(**given):
        started.append(given)
        session_module.set_current(FakeSession())

    monkeypatch.setattr(local, "init", init)
    session_module.set_current(None)
    try:
        assert drumbeat.get(decorated.remote(2)) == 4
        assert started == [{}]
    finally:
        session_module.set_current(None)


def test_a_parameter_may_be_called_self(session):
    def named(self, function=0):
        return self + function

    async def later(self):
        return self

    assert drumbeat.get(drumbeat.remote(named).remote(self=3, function=4)) == 7
    assert drumbeat.get(drumbeat.remote(later).remote(self=5)) == 5
    with pytest.raises(TypeError, match=r"call named\.remote"):
        drumbeat.remote(named)(self=3)


def test_threads_that_submit_first_share_one_cluster(monkeypatch):
    started = []

    def init():
        started.append(1)
        threading.Event().wait(0.01)
        session_module.set_current(FakeSession())

    monkeypatch.setattr(local, "init", init)
    found = []
    threads = [threading.Thread(target=lambda: found.append(session_or_start())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    try:
        assert len(found) == 8
        assert len({id(session) for session in found}) == len(started) == 1
    finally:
        session_module.set_current(None)
