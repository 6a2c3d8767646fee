"""What a value may be that a person or a file gives: checks of one value, put together in tables."""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Check = Callable[[Any], str]  # of a setting's value: "" where it is allowed, else what is allowed
Fits = tuple[Callable[[Any], bool], str]  # of a value in a file: whether it fits, and in words what does


def one_of(*allowed: object) -> Check:
    """Allows the listed values."""
    return lambda value: "" if value in allowed else f"allowed are {', '.join(map(str, allowed))}"


def at_least(low: float, *others: float) -> Check:
    """Allows values from ``low`` to a billion, above which a slip of the hand is all that there is, and ``others``."""
    also = f" (or {', '.join(map(str, others))})" if others else ""

    def check(value: float) -> str:
        if value > 1e9:
            return "must be at most 1,000,000,000"
        return "" if value >= low or value in others else f"must be at least {low}{also}"

    return check


def positive(value: float) -> str:
    """Allows numbers above 0 that float32 can compute with."""
    if value <= 0:
        return "must be greater than 0"
    return "" if 1e-12 <= value <= 1e12 else "must lie between 1e-12 and 1e12"


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


def three_between(low: float, high: float) -> Check:
    """Allows three numbers from ``low`` to ``high``."""

    def check(values: Sequence[float]) -> str:
        return "must be three numbers" if len(values) != 3 else each_of_any(between(low, high))(values)

    return check


def not_empty(value: str) -> str:
    """Allows any text but the empty one."""
    return "" if value else "must not be empty"


def is_text(value: Any) -> bool:
    """Whether it is text."""
    return isinstance(value, str)


def are_texts(value: Any) -> bool:
    """Whether it is texts by name."""
    return isinstance(value, dict) and all(map(is_text, value.values()))


def is_whole(low: int, high: int) -> Fits:
    """Fits whole numbers from ``low`` to ``high``; True and False are none."""
    return lambda value: type(value) is int and low <= value <= high, f"a whole number from {low} to {high:,}"


def find_misfit(document: Mapping[str, Any], expected: Mapping[str, Fits]) -> str:
    """Says which value of a document that was read does not fit; empty where all do.

    Args:
        document: Values by name; what is missing counts as fitting.
        expected: What fits, and in words, by name.
    """
    for name, (is_fit, words) in expected.items():
        if name in document and not is_fit(document[name]):
            return f"{name} is {reprlib.repr(document[name])}, expected is {words}"
    return ""
