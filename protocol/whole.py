"""What travels whole: functions and classes that others cannot import.

The door to cloudpickle. Never changes a class of this process: one that left here and comes back,
in a result perhaps, is the one that is here, as it is here. cloudpickle alone would find it again,
but give it the state that it has had in the worker, and copies of its methods that know copies of
their globals.
"""

import io
from collections.abc import Callable
from functools import cache
from typing import Any, Final
from weakref import WeakSet

from .modules import by_value, is_decorated, portable

PROTOCOL: Final = 5

#: classes that came to this process
_came: Final[WeakSet[type]] = WeakSet()
#: classes of this process that left it
_left: Final[WeakSet[type]] = WeakSet()


def dumps_whole(value: Any, buffer_callback: Callable[[Any], Any] | None = None) -> bytes:
    """Pickle a value together with what it needs that others cannot import.

    `buffer_callback` is as in pickle.dumps.
    """
    import cloudpickle

    for module in by_value.values():
        cloudpickle.register_pickle_by_value(module)
    with io.BytesIO() as file:
        _pickler()(file, PROTOCOL, buffer_callback).dump(value)
        return file.getvalue()


@cache
def _pickler() -> Any:
    """Return the class of picklers: made late, since few values need it."""
    import cloudpickle

    reduce_one = cloudpickle.Pickler.reducer_override

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, type) and is_decorated(obj):
                place = portable(obj)
                if place is not obj:
                    return place.__reduce__()
            reduced = reduce_one(self, obj)
            # The last of six is what gives a class its state when it is there by name.
            if isinstance(obj, type) and type(reduced) is tuple and len(reduced) == 6:
                if obj not in _came:
                    _left.add(obj)
                *made_of, set_state = reduced
                made, arguments, state, *rest = made_of
                return (made, arguments, (set_state, state), *rest, give_state)
            return reduced

    return Pickler


def give_state(class_: type, given: tuple[Any, Any]) -> type:
    """Give a class its state, unless it is of this process and has it."""
    set_state, state = given
    if class_ not in _left:
        _came.add(class_)
        set_state(class_, state)
    return class_
