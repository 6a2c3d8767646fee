"""Which runs are repeats of each other: what stands for all that changes what a run computes, except its seed."""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from config_keys import FREE_KEYS, KEYS

logger = logging.getLogger(__name__)

_SEED = "train.seed"
_NAMES = frozenset({"model.genotype", "nas.design.recipe"})  # of files; what they hold is part of the network


def identify_experiment(settings: Mapping[str, Any], network: Mapping[str, Any], images: str) -> str:
    """Returns 12 hex digits for all that changes what a run computes, except its seed: runs with the same are repeats.

    Args:
        settings: By full key, such as a checkpoint keeps.
        network: What the network is, in plain values, its genotype among them (see ``build.build_network``).
        images: Stands for the images that are trained and tested on.
    """
    return hash_settings(settings, {_SEED, *_NAMES}, {"network": dict(network), "images": images})


def hash_settings(settings: Mapping[str, Any], apart: Collection[str], beside: Mapping[str, Any] | None = None) -> str:
    """Returns 12 hex digits for the settings that change what is computed.

    Settings at their defaults do not enter, so a setting that is added later changes nothing; where a default changes,
    ``engine.metrics.NUMERICS`` does too. Weights to start from enter by their file's content.

    Args:
        settings: By full key.
        apart: Keys that do not enter.
        beside: What else enters, by names that are no keys.
    """
    document = list_changed(settings, apart) | dict(beside or {})
    if "model.load_weights" in document:
        document["model.load_weights"] = _hash_file(document["model.load_weights"])
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]


def list_changed(settings: Mapping[str, Any], apart: Collection[str]) -> dict[str, Any]:
    """Lists the settings that change what is computed and are not at their defaults, but for the keys in ``apart``."""
    counting = {k: v for k, v in settings.items() if k not in FREE_KEYS and k not in apart}
    return {k: v for k, v in counting.items() if k not in KEYS or v != KEYS[k].default}


def _hash_file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        logger.warning("%s, which this run started from, cannot be read any more (%s): the experiment's identity lacks "
                       "its content", path, error.strerror)  # fmt: skip
        return "unknown"
