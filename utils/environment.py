"""Environment variables of libraries whose values would keep these from being imported."""

import os


def drop_variables(prefix: str) -> None:
    """Takes the variables that begin with ``prefix`` out of the environment."""
    for name in [name for name in os.environ if name.startswith(prefix)]:
        del os.environ[name]
