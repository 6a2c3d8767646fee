"""The genotype: six choices in and out of JSON, printed and pasted."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genotype import BLOCK_NAMES, CANDIDATE_NAMES, NAMED_STEM_NORMS, Genotype
from osnet_blocks import CANDIDATES
from utils.errors import UserError

AIN = Genotype(("OSBlockINv1", "OSBlockINv1"), ("OSBlock", "OSBlockINv1"), ("OSBlockINv1", "OSBlock"))

documents = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def write(folder: Path, **changes: Any) -> Path:
    """Writes AIN's file with some entries changed; None takes an entry out."""
    path = folder / "genotype.json"
    AIN.to_json(path)
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return path


def test_names_are_those_of_the_candidate_table() -> None:
    assert tuple(CANDIDATES) == CANDIDATE_NAMES == ("OSBlock", "OSBlockINv1", "OSBlockINv2", "OSBlockINv3")
    assert [tuple(placement) for placement in CANDIDATES.values()] == [
        (False, False),
        (True, False),
        (False, True),
        (True, True),
    ]
    assert BLOCK_NAMES == ("conv2-1", "conv2-2", "conv3-1", "conv3-2", "conv4-1", "conv4-2")


def test_all_4096_go_to_text_and_back() -> None:
    printed = set()
    for indices in itertools.product(range(4), repeat=6):
        genotype = Genotype.from_blocks([CANDIDATE_NAMES[i] for i in indices])
        assert genotype.indices == indices
        assert (*genotype.conv2, *genotype.conv3, *genotype.conv4) == genotype.blocks
        assert eval(repr(genotype), {"Genotype": Genotype}) == genotype
        printed.add(str(genotype))
    assert len(printed) == 4096


def test_printed_form_is_the_papers() -> None:
    assert str(AIN) == (
        "- conv2-1 Block=OSBlockINv1\n"
        "- conv2-2 Block=OSBlockINv1\n"
        "- conv3-1 Block=OSBlock\n"
        "- conv3-2 Block=OSBlockINv1\n"
        "- conv4-1 Block=OSBlockINv1\n"
        "- conv4-2 Block=OSBlock"
    )


def test_published_networks() -> None:
    assert Genotype.named("osnet").indices == (0, 0, 0, 0, 0, 0)
    assert Genotype.named("osnet_ibn").indices == (2, 2, 0, 0, 0, 0)
    assert Genotype.named("osnet_ain").indices == (1, 1, 0, 1, 1, 0)
    assert Genotype.named("osnet_ain") == AIN
    assert NAMED_STEM_NORMS == {"osnet": "batch", "osnet_ibn": "instance", "osnet_ain": "instance"}
    with pytest.raises(UserError, match=r"'osnet_aim'; did you mean 'osnet_ain'\?"):
        Genotype.named("osnet_aim")


@given(
    blocks=st.lists(st.sampled_from(CANDIDATE_NAMES), min_size=6, max_size=6),
    found=st.dictionaries(st.text(), documents, max_size=4),
)
def test_json_keeps_everything(tmp_path_factory: pytest.TempPathFactory, blocks: list[str], found: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "genotype.json"
    genotype = Genotype.from_blocks(blocks, found)
    genotype.to_json(path)
    loaded = Genotype.from_json(path)
    assert loaded == genotype
    assert loaded.found == found
    assert isinstance(loaded.conv2, tuple)
    assert Genotype.from_json(str(path)).blocks == tuple(blocks)


def test_how_it_was_found_is_not_compared() -> None:
    assert Genotype.from_blocks(AIN.blocks, {"epochs": 120}) == AIN
    assert "epochs" not in repr(Genotype.from_blocks(AIN.blocks, {"epochs": 120}))


def test_file_is_versioned(tmp_path: Path) -> None:
    document = json.loads(write(tmp_path).read_text())
    assert document["format"] == "osnet-genotype"
    assert document["version"] == 2
    assert document["conv3"] == ["OSBlock", "OSBlockINv1"]


def test_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    assert Genotype.from_json(write(tmp_path, version=1)) == AIN


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 3}, "version 3"),
        ({"version": None}, "version None"),
        ({"format": None}, "not a genotype file"),
        ({"format": "other"}, "not a genotype file"),
        ({"conv3": None}, "lacks conv3"),
        ({"conv3": ["OSBlock"]}, "conv3 needs two"),
        ({"conv3": ["OSBlock"] * 3}, "conv3 needs two"),
        ({"conv3": "OSBlock"}, "conv3 needs two"),
        ({"conv3": {"OSBlock": 1, "OSBlockINv1": 2}}, "conv3 needs two"),
        ({"conv3": 7}, "conv3 needs two"),
        ({"conv3": ["OSBlock", "OSBlockInv1"]}, "'OSBlockInv1'; did you mean 'OSBlockINv1'?"),
        ({"conv3": ["OSBlock", 3]}, "conv3 names the block 3"),
        ({"conv3": ["OSBlock", ["OSBlock"]]}, "conv3 names the block ['OSBlock']"),
        ({"conv3": ["OSBlock", None]}, "conv3 names the block None"),
        ({"found": [{"sources": ["synthetic_b"]}]}, "found is [{'sources': ['synthetic_b']}], expected is an object"),
    ],
)
def test_damaged_file_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(UserError) as caught:
        Genotype.from_json(path)
    message = str(caught.value)
    assert str(path) in message
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"nonsense", b"\xff\xfe\x00", b"[1, 2]", b'"text"', b"null", b"{}", b"[" * 100_000,
     b'{"format": "osnet-genotype", "conv2": [], "conv2": []}'],
)  # fmt: skip
def test_foreign_file_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "genotype.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a genotype file"):
        Genotype.from_json(path)


def test_unreadable_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(UserError, match=f"cannot read genotype {path}"):
            Genotype.from_json(path)


@given(document=documents)
def test_any_json_is_loaded_or_refused(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    """No document, however odd, ends in anything but a UserError."""
    path = write(tmp_path_factory.getbasetemp(), conv4=document)
    with pytest.raises(UserError):
        Genotype.from_json(path)


def test_wrong_number_of_blocks() -> None:
    for count in (0, 5, 7):
        with pytest.raises(UserError, match=f"6 blocks are needed, got {count}"):
            Genotype.from_blocks(["OSBlock"] * count)


def test_edited_line_is_checked() -> None:
    with pytest.raises(UserError, match="'OSBlokc'; did you mean 'OSBlock'"):
        Genotype(("OSBlokc", "OSBlock"), ("OSBlock", "OSBlock"), ("OSBlock", "OSBlock")).check()
    assert AIN.check() is AIN
