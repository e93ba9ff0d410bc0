"""A distributed task runner for Python clusters whose scheduler sees into every worker."""

__version__ = "0.1.0"
