"""A user error is one line, whatever the names of files in it."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.base import ReadOptions, Sample
from datasets.build import drop_broken
from datasets.decode import CorruptImageError, decode_image
from datasets.folder import read_folder
from datasets.integrity import find_broken
from datasets.loaders import EvalLoader
from utils.errors import UserError

ODD = "two\nlines\r\x1b[31m\u2028\udcff é.jpg"
SHOWN = r"two\nlines\r\x1b[31m\u2028\udcff é.jpg"


@given(st.text())
def test_any_message_is_one_printable_line(text: str) -> None:
    error = UserError(text)
    assert len(str(error).splitlines()) <= 1
    assert str(error).isprintable()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    if text.isprintable():
        assert str(error) == text


def test_names_of_images_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / ODD
    path.write_bytes(b"not an image")
    with pytest.raises(CorruptImageError) as caught:
        decode_image(path)
    assert str(caught.value).startswith(f"broken image {tmp_path}/{SHOWN}: cannot identify")
    ((_, reason),) = find_broken([str(path)], thorough=True)
    assert reason == "not an image: begins with b'not an i'"
    path.write_bytes(b"II*\0 looks like TIFF")
    ((_, reason),) = find_broken([str(path)], thorough=True)
    assert reason.startswith("cannot be decoded: ")
    assert len(reason) > 20
    (tmp_path / "train").mkdir()
    path.rename(tmp_path / "train" / ODD)
    with pytest.raises(UserError) as stray:
        read_folder(tmp_path, ReadOptions())
    assert SHOWN in str(stray.value)


def test_warnings_name_files_on_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / ODD
    path.write_bytes(b"not an image")
    samples = [Sample(str(path), 0, 0)]
    assert drop_broken({"train": samples}, skip=True) == {"train": []}
    list(EvalLoader(samples, batch_size=1, height=4, width=2, on_corrupt="skip"))
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert f"{tmp_path}/{SHOWN}" in record.getMessage()
        assert record.getMessage().isprintable()
