"""How many connections a process may have.

Never opens anything.
"""

import resource
from typing import Final

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
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = setting or CONNECTIONS_MAX
    needed = wanted + FILES_KEPT
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(CONNECTIONS_MIN, soft - FILES_KEPT))
