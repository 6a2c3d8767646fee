"""Files with a network's weights, of this project or of Torchreid: read once, told apart, loaded into a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.checkpoint import FORMAT, open_document
from utils.errors import UserError
from utils.torch_file import read_torch_file
from utils.torchreid_names import TorchreidNetwork, describe_torchreid_weights, is_supernet, rename_to_torchreid
from utils.torchreid_weights import load_torchreid_weights, read_torchreid_weights
from utils.weight_check import load_tensors, read_named_tensors


@dataclass(frozen=True)
class NetworkFile:
    """A file's weights, not yet compared with any network.

    Attributes:
        path: Of the file.
        weights: Tensors on the CPU, at least one, under the names of whoever wrote the file.
        checkpoint: Everything in the file, at the newest version; None: it is not a checkpoint of this project.
    """

    path: str
    weights: Mapping[str, Tensor]
    checkpoint: Mapping[str, Any] | None

    @property
    def is_supernet(self) -> bool:
        """Whether the weights are a super-network's."""
        return "alphas" in self.weights if self.checkpoint is not None else is_supernet(self.weights)

    def describe(self) -> TorchreidNetwork:
        """Finds out from the weights alone which network they belong to.

        Raises:
            UserError: they are not of a whole OSNet.
        """
        try:
            names = self.weights if self.checkpoint is None else rename_to_torchreid(self.weights)
            return describe_torchreid_weights(names)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error


def read_network_file(path: str | Path) -> NetworkFile:
    """Reads a checkpoint of this project or a file of Torchreid's.

    Raises:
        UserError: the file cannot be read, is damaged, holds code, or holds no weights.
    """
    document = read_torch_file(path)
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        return NetworkFile(str(path), read_torchreid_weights(document, str(path)), None)
    checkpoint = open_document(document, path)
    return NetworkFile(str(path), read_named_tensors(checkpoint.get("model"), str(path)), checkpoint)


def load_network_weights(model: nn.Module, file: NetworkFile, *, with_classifier: bool = True) -> None:
    """Loads a file's weights into a child or a super-network; all or nothing.

    Every parameter and buffer must be there and fit; only the classifier may be missing or for another number of
    identities, as a whole, which the log says: the network then keeps its own.

    Args:
        model: From ``build_child`` or ``build_supernet``, any floating type, device and memory layout.
        file: From ``read_network_file``.
        with_classifier: False: the network keeps its own, whatever the file holds.

    Raises:
        UserError: names what does not fit; the model is then unchanged.
    """
    if file.checkpoint is None:
        load_torchreid_weights(model, file.weights, origin=file.path, with_classifier=with_classifier)
    else:
        load_tensors(file.path, file.weights, model.state_dict(), with_classifier=with_classifier)
