"""The genotype: which candidate stands in each of the six blocks. The interface between search and child network."""

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from utils.errors import UserError
from utils.files import write_atomically
from utils.read_file import read_json
from utils.suggest import nearest

CANDIDATE_NAMES = ("OSBlock", "OSBlockINv1", "OSBlockINv2", "OSBlockINv3")
STAGES = ("conv2", "conv3", "conv4")
BLOCK_NAMES = tuple(f"{stage}-{i}" for stage in STAGES for i in (1, 2))
NUM_BLOCKS, NUM_CANDIDATES = len(BLOCK_NAMES), len(CANDIDATE_NAMES)
NUM_GENOTYPES = NUM_CANDIDATES**NUM_BLOCKS
NUM_INS = (0, 1, 1, 2)  # instance norms of each candidate
BLOCK_PATHS = tuple(f"{stage}.{i}" for stage in STAGES for i in (0, 1))  # where the blocks are in a network

_FORMAT = "osnet-genotype"
_VERSION = 2  # since 2 ``found`` says of each block whether it is decided; 1 is read as well


def is_digits(text: str) -> bool:
    """Whether a text is a genotype in digits, such as ``110110``."""
    return len(text) == len(BLOCK_NAMES) and all(c in "0123" for c in text)


def number_of(digits: str) -> int:
    """Returns the number that a genotype's digits are in base 4: its place in a ranking of all 4,096."""
    return int(digits, NUM_CANDIDATES)


def digits_of(number: int) -> str:
    """Returns the digits of the genotype at a place, 0–4095, in a ranking of all."""
    return "".join(str(number // NUM_CANDIDATES**place % NUM_CANDIDATES) for place in reversed(range(NUM_BLOCKS)))


@dataclass(frozen=True)
class Genotype:
    """The candidates of the six blocks, two per stage, by name (see ``osnet_blocks.CANDIDATES``).

    ``str(genotype)`` is the paper's form, one line per block; ``repr(genotype)`` is what is pasted into
    ``osnet_child.py``. Names are checked where a genotype is used or loaded (``check``), so that a slip in an edited
    line is reported as a user error.

    Attributes:
        conv2: First and second block at a quarter of the input's height and width.
        conv3: First and second block at an eighth.
        conv4: First and second block at a sixteenth.
        found: How it was found (alphas, probabilities, data, epochs, …); kept in the JSON file, never compared.
    """

    conv2: tuple[str, str]
    conv3: tuple[str, str]
    conv4: tuple[str, str]
    found: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The six candidates in the order of the network."""
        return (*self.conv2, *self.conv3, *self.conv4)

    @property
    def indices(self) -> tuple[int, ...]:
        """The six candidates as rows of the candidate table, 0–3."""
        return tuple(CANDIDATE_NAMES.index(name) for name in self.blocks)

    @property
    def digits(self) -> str:
        """The six candidates as digits, such as ``110110`` for OSNet-AIN: how tables and rankings name a genotype."""
        return "".join(map(str, self.indices))

    def __str__(self) -> str:
        return "\n".join(f"- {block} Block={name}" for block, name in zip(BLOCK_NAMES, self.blocks, strict=True))

    def check(self) -> Self:
        """Returns itself when each stage has two blocks with names from the candidate table.

        Raises:
            UserError: a stage has another number of blocks, or a name is unknown.
        """
        for stage in STAGES:
            names = getattr(self, stage)
            if not isinstance(names, Sequence) or isinstance(names, str) or len(names) != 2:
                raise UserError(f"genotype: {stage} needs two block names, got {names!r}")
            for name in names:
                if name not in CANDIDATE_NAMES:
                    raise UserError(
                        f"genotype: {stage} names the block {name!r}{nearest(str(name), CANDIDATE_NAMES)}; "
                        f"allowed are {', '.join(CANDIDATE_NAMES)}"
                    )
        return self

    @classmethod
    def from_blocks(cls, blocks: Sequence[str], found: Mapping[str, Any] | None = None) -> Self:
        """Builds a genotype from six candidate names in the order of the network.

        Raises:
            UserError: not six names, or an unknown one.
        """
        if len(blocks) != len(BLOCK_NAMES):
            raise UserError(f"genotype: {len(BLOCK_NAMES)} blocks are needed, got {len(blocks)}")
        first, second, third, fourth, fifth, sixth = blocks
        return cls((first, second), (third, fourth), (fifth, sixth), found or {}).check()

    @classmethod
    def named(cls, name: str) -> Self:
        """Returns a published network's genotype: ``osnet``, ``osnet_ibn`` or ``osnet_ain``.

        Its stem norm is in ``NAMED_STEM_NORMS``.

        Raises:
            UserError: the name is unknown.
        """
        if name not in _NAMED:
            raise UserError(f"no published genotype {name!r}{nearest(name, _NAMED)}; known are {', '.join(_NAMED)}")
        return cls.from_blocks(_NAMED[name])

    @classmethod
    def from_digits(cls, digits: str) -> Self:
        """Returns the genotype of six digits, rows of the candidate table.

        Raises:
            UserError: not six digits from 0 to 3.
        """
        if not is_digits(digits):
            raise UserError(f"{digits!r} is no genotype: six digits from 0 to {len(CANDIDATE_NAMES) - 1}, as in 110110")
        return cls.from_blocks([CANDIDATE_NAMES[int(digit)] for digit in digits])

    def to_json(self, path: str | Path) -> None:
        """Writes the genotype and how it was found as versioned JSON, all or nothing."""
        document = {
            "format": _FORMAT,
            "version": _VERSION,
            **{stage: list(getattr(self, stage)) for stage in STAGES},
            "found": dict(self.found),
        }
        write_atomically(path, json.dumps(document, indent=2) + "\n")

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Loads and checks a genotype file.

        Raises:
            UserError: no such file, not JSON, not a genotype, of a newer version, or with unknown blocks.
        """
        document = read_json(path, "genotype")
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise UserError(f'{path} is not a genotype file: it lacks "format": "{_FORMAT}"')
        if document.get("version") not in range(1, _VERSION + 1):
            raise UserError(f"{path}: genotype version {document.get('version')!r}; this program reads 1 to {_VERSION}")
        missing = [stage for stage in STAGES if stage not in document]
        if missing:
            raise UserError(f"{path}: genotype lacks {', '.join(missing)}")
        stages = {s: tuple(document[s]) if isinstance(document[s], list) else document[s] for s in STAGES}
        found = {} if document.get("found") is None else document["found"]
        if not isinstance(found, dict):
            raise UserError(f"{path}: found is {reprlib.repr(found)}, expected is an object")
        try:
            return cls(**stages, found=found).check()
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


_NAMED = {
    "osnet": ("OSBlock",) * 6,
    "osnet_ibn": ("OSBlockINv2", "OSBlockINv2", "OSBlock", "OSBlock", "OSBlock", "OSBlock"),
    "osnet_ain": ("OSBlockINv1", "OSBlockINv1", "OSBlock", "OSBlockINv1", "OSBlockINv1", "OSBlock"),
}
NAMED_STEM_NORMS = {"osnet": "batch", "osnet_ibn": "instance", "osnet_ain": "instance"}
