"""Data of one's own: the table, the folders, and what is said where something is missing."""

from pathlib import Path

import pytest

from datasets.base import ReadOptions, Sample, Splits, check_protocol
from datasets.folder import read_folder
from utils.errors import UserError


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def write_manifest(root: Path, *lines: str, header: str = "path,pid,camid,split") -> None:
    (root / "manifest.csv").write_text("\n".join([header, *lines, ""]), encoding="utf-8")


def read(root: Path) -> Splits:
    return read_folder(root, ReadOptions())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    touch(tmp_path, "a.jpg", "b.jpg", "sub/c.PNG", "d.jpg", "e.jpg")
    return tmp_path


def test_manifest(images: Path) -> None:
    """People anna, ben, zoë and cameras door, yard are numbered in sorted order, over all parts."""
    write_manifest(
        images,
        "sub/c.PNG,zoë,yard,train",
        "a.jpg,anna,door,train",
        "b.jpg,ben,yard,query",
        f"{images}/d.jpg,ben,door,gallery",
    )
    assert read(images) == Splits(
        train=[Sample(f"{images}/a.jpg", 0, 0), Sample(f"{images}/sub/c.PNG", 2, 1)],
        query=[Sample(f"{images}/b.jpg", 1, 1)],
        gallery=[Sample(f"{images}/d.jpg", 1, 0)],
    )


def test_manifest_as_spreadsheets_write_it(images: Path) -> None:
    """A byte order mark, Windows line ends, blanks, more columns in another order."""
    text = "split, note,pid,path,camid\r\ntrain,x, 7 , a.jpg,1\r\ntrain,,8,b.jpg,1\r\n"
    (images / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [(s.path, s.pid) for s in read(images).train] == [(f"{images}/a.jpg", 0), (f"{images}/b.jpg", 1)]


@pytest.mark.parametrize("spelling", ["sub/../a.jpg", "./a.jpg", ".//sub/.././a.jpg"])
def test_manifest_knows_a_file_by_any_spelling(spelling: str, images: Path) -> None:
    write_manifest(images, f"{spelling},1,1,train", "sub/./c.PNG,1,2,train")
    assert [s.path for s in read(images).train] == [f"{images}/a.jpg", f"{images}/sub/c.PNG"]


def test_manifest_that_may_not_be_read(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    write_manifest(images, "a.jpg,1,1,train")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=f"^cannot read {images}/manifest.csv: Permission denied$"):
        read(images)


def test_manifest_leaves_junk_out(images: Path) -> None:
    write_manifest(images, "a.jpg,1,1,query", "b.jpg,1,2,gallery", "d.jpg,-1,2,gallery")
    assert len(read(images).gallery) == 1


def test_manifest_training_needs_no_camera(images: Path) -> None:
    write_manifest(images, "a.jpg,1,train", header="path,pid,split")
    assert read(images).train == [Sample(f"{images}/a.jpg", 0, 0)]


@pytest.mark.parametrize("part", ["query", "gallery"])
def test_manifest_testing_needs_cameras(part: str, images: Path) -> None:
    other = "gallery" if part == "query" else "query"
    write_manifest(images, "a.jpg,1,1," + other, f"b.jpg,1,,{part}")
    with pytest.raises(UserError, match=f"line 3: no camera is given for a {part} image.*give camid"):
        read(images)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gone.jpg,1,1,train", "line 2: no file .*gone.jpg"),
        ("a.txt,1,1,train", "line 2: a.txt is not an image by its ending"),
        ("a.jpg,,1,train", "line 2: pid is empty"),
        (",1,1,train", "line 2: path is empty"),
        ("a.jpg,1,1,val", "line 2: split is 'val', but must be train, query or gallery"),
        ("a.jpg,1,1", "line 2: split is ''"),
        ("a.jpg,1,1,query", "query images but no gallery images"),
        ("a.jpg,1,1,gallery", "gallery images but no query images"),
        ("a.jpg,-1,1,train", "no image in"),
        (f"{'a' * 300}.jpg,1,1,train", f"line 2: cannot read .*{'a' * 300}.jpg: File name too long"),
        ("sub/../a.jpg,1,1,train\n./a.jpg,1,1,train", "line 3: .*a.jpg is listed twice in train"),
        ("a.jpg,1,1,train\na.jpg,1,1,train", "line 3: .*a.jpg is listed twice in train"),
        (
            "a.jpg,1,1,train\nb.jpg,2,1,train\n./a.jpg,2,1,train",
            "line 4: .*a.jpg has pid '2', but '1' in .*manifest.csv, line 2",
        ),
        ("a.jpg,1,1,train\na.jpg,-1,1,gallery", "line 3: .*a.jpg has pid '-1', but '1' in .*line 2"),
        ("a.jpg,1,1,query\na.jpg,1,2,gallery", "line 3: .*a.jpg has camid '2', but '1' in .*line 2"),
        (
            "a.jpg,1,1,train,2",
            "line 2: '2' stands beyond the last column; put a text that holds a comma in quotation marks",
        ),
        ("a.jpg,Miller, Ann,1,train", "line 2: 'train' stands beyond the last column"),
    ],
)
def test_manifest_refuses(line: str, message: str, images: Path) -> None:
    write_manifest(images, line)
    with pytest.raises(UserError, match=message):
        read(images)


@pytest.mark.parametrize("column", ["path", "pid", "camid", "split"])
@pytest.mark.parametrize("spelling", ["{}", " {} "])
def test_manifest_with_a_column_twice(column: str, spelling: str, images: Path) -> None:
    header = f"path,pid,camid,split,{spelling.format(column)}"
    write_manifest(images, "a.jpg,1,1,train,2", header=header)
    with pytest.raises(UserError, match=f"manifest.csv has 2 columns '{column}': leave one"):
        read(images)


def test_manifest_with_columns_that_nobody_needs(images: Path) -> None:
    """Also without a name or of the same name, as spreadsheets leave them, and blanks around the names."""
    write_manifest(
        images,
        "a.jpg,1,1,train,x,y,,,",
        '"sub/c.PNG","Miller, Ann",2,train',
        "",
        header="path , pid, camid ,split,note,note,,",
    )
    splits = read(images)
    assert [splits.names.person(s.pid) for s in splits.train] == ["1", "Miller, Ann"]


def test_one_image_in_query_and_gallery(images: Path) -> None:
    write_manifest(images, "a.jpg,1,1,query", "a.jpg,1,1,gallery", "b.jpg,1,2,gallery")
    assert len(read(images).gallery) == 2


def test_names_are_kept(images: Path) -> None:
    """In a table and in folders; a camera that is not known is called so."""
    write_manifest(images, "a.jpg,zoë,,train", "b.jpg,ben,yard,query", "d.jpg,ben,door,gallery")
    splits = read(images)
    assert [splits.names.person(s.pid) for s in (*splits.train, *splits.query)] == ["zoë", "ben"]
    cameras = [splits.names.camera(s.camid) for s in (*splits.train, *splits.query, *splits.gallery)]
    assert cameras == ["unknown", "yard", "door"]
    (images / "manifest.csv").unlink()
    touch(images, "train/anna/door_1.jpg", "train/zoë/7.jpg")
    splits = read(images)
    assert [splits.names.person(s.pid) for s in splits.train] == ["anna", "zoë"]
    assert [splits.names.camera(s.camid) for s in splits.train] == ["door", "unknown"]


def test_below_the_root_like_other_data_sets(images: Path) -> None:
    """``--root X`` finds the data in X and in X/folder, but not in both."""
    root = images / "root"
    touch(root, "folder/a.jpg", "folder/b.jpg")
    write_manifest(root / "folder", "a.jpg,1,1,train", "b.jpg,2,1,train")
    assert read(root) == read(root / "folder")
    assert read(root).train[0].path == f"{root}/folder/a.jpg"
    touch(root, "train/1/x_1.jpg")
    with pytest.raises(UserError, match=r"there are data in both .* and .*/folder: give the latter another name"):
        read(root)


@pytest.mark.parametrize("header", ["path;pid;camid;split", "name,pid,camid,split", ""])
def test_manifest_without_the_columns(header: str, images: Path) -> None:
    write_manifest(images, "a.jpg,1,1,train", header=header)
    with pytest.raises(UserError, match="has no column"):
        read(images)


def test_manifest_in_another_encoding(images: Path) -> None:
    (images / "manifest.csv").write_bytes("path,pid,camid,split\na.jpg,Zoë,1,train\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read(images)


def test_folders(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *("train/anna/door_1.jpg", "train/anna/yard_1.JPG", "train/zoe/yard_7.png", "train/zoe/Thumbs.db"),
        *("query/ben/door_2.jpg", "gallery/ben/yard_3.jpg", "gallery/-1/yard_3.jpg", "gallery/empty/notes.txt"),
    )
    assert read(tmp_path) == Splits(
        train=[
            Sample(f"{tmp_path}/train/anna/door_1.jpg", 0, 0),
            Sample(f"{tmp_path}/train/anna/yard_1.JPG", 0, 1),
            Sample(f"{tmp_path}/train/zoe/yard_7.png", 2, 1),
        ],
        query=[Sample(f"{tmp_path}/query/ben/door_2.jpg", 1, 0)],
        gallery=[Sample(f"{tmp_path}/gallery/ben/yard_3.jpg", 1, 1)],
    )


def test_folders_to_train_only(tmp_path: Path) -> None:
    touch(tmp_path, "train/1/img.jpg", "train/2/img.jpg")
    assert [s.pid for s in read(tmp_path).train] == [0, 1]


def test_folders_to_test_only(tmp_path: Path) -> None:
    touch(tmp_path, "query/1/a_1.jpg", "gallery/1/b_1.jpg")
    splits = read(tmp_path)
    assert not splits.train
    check_protocol("folder", splits.query, splits.gallery)


def test_one_camera_is_refused_by_the_protocol(tmp_path: Path) -> None:
    touch(tmp_path, "query/1/a_1.jpg", "gallery/1/a_2.jpg")
    splits = read(tmp_path)
    with pytest.raises(UserError, match=r"under another camera \(1 camera"):
        check_protocol("folder", splits.query, splits.gallery)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["other/x.jpg"], "nothing to read in .*expected manifest.csv, or the folders train"),
        (["train/1/a_1.txt"], "no image in .*train"),
        (["train/a_1.jpg", "train/1/a_1.jpg"], "a_1.jpg is not in the folder of a person"),
        (["query/1/a_1.jpg"], "query images but no gallery images"),
        (["query/1/1.jpg", "gallery/1/a_1.jpg"], "query/1/1.jpg: no camera is given"),
    ],
)
def test_folders_refuse(paths: list[str], message: str, tmp_path: Path) -> None:
    touch(tmp_path, *paths)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*gone"):
        read(tmp_path / "gone")
