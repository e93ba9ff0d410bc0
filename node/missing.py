"""Modules that a node has not got: says which, on which node, and what is to be done.

Never looks for a module itself.
"""

import sys

from ..protocol.errors import NotPicklable, TaskError


def module_of(error: BaseException) -> str | None:
    """Return the module for want of which something failed; None where it failed otherwise."""
    if isinstance(error, ModuleNotFoundError):
        return error.name or "a module"
    return None


def explained(error: BaseException, node: str) -> BaseException:
    """Return an error of a task; one for want of a module says what is to be done.

    Arguments that cannot be unpickled for want of a module become a ModuleNotFoundError as well:
    whoever catches that need not know where the module was missed.
    """
    cause = error.__cause__ if isinstance(error, NotPicklable) else error
    if cause is None or isinstance(cause, TaskError):
        return error  # it comes from another task, and has been explained there
    name = module_of(cause)
    if name is None:
        return error
    if cause is not error:
        error = ModuleNotFoundError(str(error), name=name)
    error.add_note(
        f"The module {name} is not on node {node}, for {sys.executable} there. Install it on every "
        "node, or send the task to nodes that have it (the option node). On a cluster over TCP a "
        "program's own modules need not be installed: those that lie under the directory of its "
        "script go with its functions."
    )
    return error
