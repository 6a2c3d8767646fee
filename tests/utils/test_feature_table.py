"""Manifests in, tables of features out."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import UserError
from utils.feature_table import Manifest, read_manifest, write_table

FEATURES = np.array([[0.1, 1e-30, 3.4028235e38], [1 / 3, 0.0, 16777217.0]], np.float32)


def test_manifest(tmp_path: Path) -> None:
    text = '\ufeffpid,path,note\n0001,a/1.jpg,"one, two"\n\n2,/b.jpg,\n'
    (tmp_path / "people.csv").write_text(text, encoding="utf-8")
    manifest = read_manifest(tmp_path / "people.csv")
    assert manifest.paths == ["a/1.jpg", "/b.jpg"]
    assert manifest.files == [str(tmp_path / "a/1.jpg"), "/b.jpg"]
    assert manifest.columns == {"pid": ["0001", "2"], "note": ["one, two", ""]}
    assert manifest.select([1]) == Manifest(["/b.jpg"], ["/b.jpg"], {"pid": ["2"], "note": [""]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,pid\na.jpg,1\n", "no column 'path'"),
        ("", "no column 'path'"),
        ("path,pid\n", "lists no image"),
        ("path,pid\na.jpg\n", "row 2: expected 2 values"),
        ("path,pid\na.jpg,1\nb.jpg,1,2\n", "row 3: expected 2 values"),
        ("path,pid\n,1\n", "row 2: expected 2 values and a path"),
        ("path,pid,pid\na.jpg,1,2\n", "column 'pid'"),
        ("path,\na.jpg,1\n", "column ''"),
        ("path,f12\na.jpg,1\n", "column 'f12'"),
        ("path,features\na.jpg,1\n", "column 'features'"),
        ("path,a/b\na.jpg,1\n", "column 'a/b'"),
        ('path\n"a.jpg\n', "not a CSV file"),
    ],
)
def test_a_manifest_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        read_manifest(tmp_path / "people.csv")
    assert "people.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,note\na.jpg,1\n\nb\0.jpg,2\n", r"people\.csv, line 4: a NUL byte"),
        (b'path,note\r\na.jpg,"x\r\ny\0"\r\n', r"people\.csv, line 3: a NUL byte"),
        (b"path,no\0te\na.jpg,1\n", r"people\.csv, line 1: a NUL byte"),
        ("path\na.jpg\n".encode("utf-16-le"), "line 1: a NUL byte.*UTF-8"),
        ("\ufeffpath\na.jpg\n".encode("utf-16-le"), r"people\.csv is in UTF-16; save it as UTF-8"),
        ("\ufeffpath\na.jpg\n".encode("utf-16-be"), r"people\.csv is in UTF-16; save it as UTF-8"),
        ("\ufeffpath\na.jpg\n".encode("utf-32-le"), r"people\.csv is in UTF-32; save it as UTF-8"),
        ("\ufeffpath\na.jpg\n".encode("utf-32-be"), r"people\.csv is in UTF-32; save it as UTF-8"),
    ],
)
def test_bytes_that_are_no_csv(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path / "people.csv")


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.csv"):
        read_manifest(tmp_path / "none.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match=r"it is no regular file; give a folder of images"):
        read_manifest(tmp_path / "pipe.csv")


def test_npz(tmp_path: Path) -> None:
    """Whole numbers become numbers, where that loses nothing; ``file`` is a name that np.savez would not take."""
    columns = {"pid": ["-1", "1501"], "padded": ["01", "02"], "file": ["x", "ä"], "big": ["0", "9" * 19]}
    write_table(tmp_path / "t.npz", FEATURES, Manifest(["/a", "/b"], ["a", "b"], columns))
    with np.load(tmp_path / "t.npz", allow_pickle=False) as table:
        assert set(table) == {"features", "paths", *columns}
        np.testing.assert_array_equal(table["features"], FEATURES)
        assert table["features"].dtype == np.float32
        assert table["paths"].tolist() == ["a", "b"]
        assert table["pid"].tolist() == [-1, 1501]
        assert [table[name].tolist() for name in ("padded", "file", "big")] == [
            ["01", "02"],
            ["x", "ä"],
            columns["big"],
        ]


def test_csv_gives_each_float_back(tmp_path: Path) -> None:
    manifest = Manifest(["/a", "/b"], ["a, with comma", "b"], {"note": ['say "hi"', ""]})
    write_table(tmp_path / "t.csv", FEATURES, manifest)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["path", "note", "f0", "f1", "f2"]
    assert [row[:2] for row in rows] == [["a, with comma", 'say "hi"'], ["b", ""]]
    np.testing.assert_array_equal(np.array([row[2:] for row in rows]).astype(np.float32), FEATURES)


@pytest.mark.parametrize("ending", ["npz", "csv"])
def test_the_same_content_gives_the_same_file(ending: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_table(tmp_path / f"{name}.{ending}", FEATURES, Manifest(["a", "b"], ["a", "b"], {"pid": ["1", "2"]}))
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=4))
def test_any_text_goes_through_a_csv(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    folder = tmp_path_factory.mktemp("csv")
    paths = [f"{i}.jpg" for i in range(len(values))]
    write_table(folder / "t.csv", np.zeros((len(values), 0), np.float32), Manifest(paths, paths, {"note": values}))
    manifest = read_manifest(folder / "t.csv")
    assert manifest.columns == {"note": values}
    assert manifest.paths == paths
