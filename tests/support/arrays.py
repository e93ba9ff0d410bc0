"""Arrays of all kinds, and whether they have come back as they were."""

from typing import Any

import numpy as np


def kinds_of_arrays() -> dict[str, Any]:
    """Return arrays of different order, type and size, one of which may not be written to."""
    fixed = np.arange(12).reshape(3, 4)
    fixed.flags.writeable = False
    return {
        "c": np.arange(24.0).reshape(4, 6), "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "fixed": fixed, "empty": np.zeros((0, 3)), "scalar": np.array(5, np.int8),
    }  # fmt: skip


def assert_same_arrays(found: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Compare content, type, order, and whether they may be written to."""
    for name, array in arrays.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert found[name].flags.f_contiguous == array.flags.f_contiguous
        assert found[name].flags.writeable == array.flags.writeable
