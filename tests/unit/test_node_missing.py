"""A module that a node has not got: the error says which, where, and what is to be done."""

import sys

from drumbeat.node.missing import explained, module_of
from drumbeat.protocol.errors import NotPicklable, TaskError
from drumbeat.protocol.payload import load_error, pack_error


def raised(statement: str) -> BaseException:
    try:
        exec(statement)
    except Exception as error:  # noqa: BLE001  # whatever it is
        return error
    raise AssertionError(statement)


def test_an_import_that_fails_names_node_python_and_remedy():
    error = raised("import module_that_is_nowhere.deep")
    assert explained(error, "lab2") is error
    text = load_error(pack_error(error, name="work", node="lab2").payload).text()
    assert "No module named 'module_that_is_nowhere'" in text
    assert "The module module_that_is_nowhere is not on node lab2" in text
    assert sys.executable in text
    assert "Install it on every node" in text


def test_arguments_that_need_it_become_the_same_error():
    cause = raised("import module_that_is_nowhere")
    error = explained(NotPicklable("the arguments cannot be unpickled").with_cause(cause), "lab2")
    assert type(error) is ModuleNotFoundError
    assert error.name == "module_that_is_nowhere"
    assert "lab2" in error.__notes__[0]


def test_other_errors_stay_as_they_are():
    class PassedError(TaskError, ModuleNotFoundError):
        pass

    for error in (
        ValueError("x"), raised("from json import nothing"), PassedError("of another task"),
        NotPicklable("a lock"), NotPicklable("a lock").with_cause(TypeError("lock")),
    ):  # fmt: skip
        assert explained(error, "lab2") is error
        assert not hasattr(error, "__notes__")
    assert module_of(ModuleNotFoundError("of somebody's own")) == "a module"
