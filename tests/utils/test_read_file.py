"""Files of a user's: read whole, or one line that names them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import UserError
from utils.read_file import parse_json, read_bytes, read_json, read_text


def test_what_is_whole_is_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, "\xc3\xa4"]}')
    assert read_json(path, "plan") == {"a": [1, "ä"]}
    assert read_text(str(path), "plan").startswith("{")
    (tmp_path / "link").symlink_to(path)
    assert read_bytes(tmp_path / "link", "plan") == path.read_bytes()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Expecting value"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe{\0", "not text in UTF-8 (invalid start byte at byte 0)"),
        (b"[" * 100_000, "too many values inside each other"),
        (b'{"a":' * 100_000, "too many values inside each other"),
        (b'{"found": {"a": 1, "b": 2, "a": 1}}', "'a' is given twice"),
        (b"9" * 5000, "not valid JSON"),
    ],
)
def test_what_is_no_json_is_one_line(tmp_path, content, told):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(path, "plan")
    assert str(caught.value).startswith(f"{path} is not a plan file: not ")
    assert told in str(caught.value)


def test_what_cannot_be_read_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none", tmp_path / "circle", tmp_path / ("a" * 300), "a\0b"):
        with pytest.raises(UserError, match=r"^cannot read plan "):
            read_bytes(path, "plan")
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(UserError, match="has more than 10 bytes"):
        read_bytes(tmp_path / "large", "plan", 10)


@given(st.text() | st.binary().map(lambda content: content.decode("latin-1")))
def test_any_text_is_a_document_or_a_value_error(text):
    try:
        parse_json(text)
    except ValueError as error:
        assert str(error)
