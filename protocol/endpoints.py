"""Endpoints: how the place where a scheduler listens is written, and which ones can be used.

Never opens anything.
"""

from .errors import ConfigError

#: Longest path of a Unix socket that every system takes (the kernels' limits are 104 to 108).
PATH_BYTES_MAX = 100


def check_endpoint(endpoint: str) -> str:
    """Return the endpoint if it is one that this version can use.

    Raises:
        ConfigError: it is not, and why.
    """
    scheme, separator, path = endpoint.partition("://")
    if not separator or scheme != "ipc" or not path:
        raise ConfigError(
            f"{endpoint!r} is not an endpoint; one looks like ipc:///run/user/1000/drumbeat/socket",
            setting="endpoint",
        )
    if len(path.encode()) > PATH_BYTES_MAX:
        raise ConfigError(
            f"the path of a Unix socket may have {PATH_BYTES_MAX} bytes, {path!r} has"
            f" {len(path.encode())}; set runtime_directory to a shorter one",
            setting="runtime_directory",
        )
    return endpoint
