"""What people and cameras are called."""

from utils.label_names import LabelNames


def test_who_has_no_name_is_called_by_the_number() -> None:
    """Cameras are numbered from 0 in the program, from 1 in names of files."""
    assert LabelNames().person(7) == "7"
    assert LabelNames().camera(0) == "1"


def test_names_are_on_one_line() -> None:
    names = LabelNames({7: "two\nlines é"}, {0: "yard\x1b[31m"})
    assert names.person(7) == r"two\nlines é"
    assert names.camera(0) == r"yard\x1b[31m"
