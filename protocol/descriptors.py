"""How many connections a process may have.

Never opens anything.
"""

import resource
from typing import Final

from .machine import allow_files

#: more are never needed, and each costs memory
CONNECTIONS_MAX: Final = 8192
#: descriptors for everything else
FILES_KEPT: Final = 64
CONNECTIONS_MIN: Final = 16


def connections_max(setting: int) -> int:
    """Return how many connections there may be; raises the limit of open files as far as it goes.

    Args:
        setting: the setting `connections_max`; 0: as many as the limit of open files leaves.
    """
    wanted = setting or CONNECTIONS_MAX
    allow_files(wanted + FILES_KEPT)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(CONNECTIONS_MIN, soft - FILES_KEPT))
