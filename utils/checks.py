"""What a setting's value may be: checks of one value, put together in a table of settings."""

from collections.abc import Callable, Sequence
from typing import Any

Check = Callable[[Any], str]  # of a value: "" where it is allowed, else what is allowed


def one_of(*allowed: object) -> Check:
    """Allows the listed values."""
    return lambda value: "" if value in allowed else f"allowed are {', '.join(map(str, allowed))}"


def at_least(low: float, *others: float) -> Check:
    """Allows values from ``low`` up, and ``others``."""
    also = "".join(f" (or {other})" for other in others)
    return lambda value: "" if value >= low or value in others else f"must be at least {low}{also}"


def above(low: float) -> Check:
    """Allows values greater than ``low``."""
    return lambda value: "" if value > low else f"must be greater than {low}"


def between(low: float, high: float) -> Check:
    """Allows values from ``low`` to ``high``."""
    return lambda value: "" if low <= value <= high else f"must lie between {low} and {high}"


def each(check: Check) -> Check:
    """Applies a check to each entry of a list that is not empty."""

    def check_list(values: Sequence[Any]) -> str:
        return next(filter(None, map(check, values)), "") if values else "must not be empty"

    return check_list


def each_of_any(check: Check) -> Check:
    """Applies a check to each entry of a list that may be empty."""
    return lambda values: next(filter(None, map(check, values)), "")


def three_numbers(values: Sequence[Any]) -> str:
    """Allows three numbers."""
    return "" if len(values) == 3 and all(isinstance(v, int | float) for v in values) else "must be three numbers"
