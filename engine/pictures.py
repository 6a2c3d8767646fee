"""Pictures to look at after an evaluation: ranked lists, CMC curves, distances, activation maps.

What they show is collected while the evaluation runs, in little memory (no distance matrix, no feature is kept), and
drawn when its scores are safely on the disk.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.evaluator import Batches, HasQueryAndGallery, LabelArrays, Prepare
from utils.errors import UserError
from utils.files import write_atomically
from utils.histogram import DistanceHistogram
from utils.neighbours import Neighbour, RankedList, TopLists, choose_queries, watch_blocks
from utils.plots import draw_activation_maps, draw_cmc, draw_distances
from utils.rank_page import format_rank_page
from utils.rank_sheet import draw_ranked_lists, shorten
from utils.ranking import RankingResult
from utils.ranks import Protocol

logger = logging.getLogger(__name__)

QUERIES_OF_A_KIND = 10  # best, worst and random ones
MAPS_OF_A_TARGET = 24  # query images
MAPS_OF_A_SHEET = 12


@dataclass
class WatchedRanking:
    """What is kept of one target's ranking; ``result`` comes last."""

    target: HasQueryAndGallery
    distance: str
    protocol: Protocol
    lists: TopLists
    histogram: DistanceHistogram
    result: RankingResult | None = None


@dataclass(frozen=True)
class MapSheet:
    """Images (N, H, W, 3) uint8, their activation maps (N, H, W) in [0, 1], and a caption each."""

    images: np.ndarray
    maps: np.ndarray
    captions: list[str]


class Pictures:
    """Watches an evaluation's rankings, takes activation maps, and draws both."""

    def __init__(self, topk: int = 0, shown: Mapping[str, Batches] | None = None) -> None:
        """Starts with nothing collected.

        Args:
            topk: Length of the ranked lists; 0 for no pictures of rankings.
            shown: By target, the images whose activation maps are wanted.
        """
        self.topk = topk
        self.shown = dict(shown or {})
        self.rankings: dict[str, WatchedRanking] = {}
        self._network: tuple[nn.Module, Prepare] | None = None

    def watch(
        self, name: str, target: HasQueryAndGallery, blocks: Iterable[Tensor], labels: LabelArrays, distance: str
    ) -> Iterable[Tensor]:
        """Passes the blocks of a target's distance matrix on and keeps what the pictures show."""
        if not self.topk:
            return blocks
        protocol = Protocol(*labels)
        watched = WatchedRanking(
            target, distance, protocol, TopLists(len(protocol.query_pids), self.topk), DistanceHistogram()
        )
        self.rankings[name] = watched
        return watch_blocks(blocks, protocol, watched.lists, watched.histogram)

    def finish(self, name: str, result: RankingResult) -> None:
        """Takes the scores of a target whose blocks have all passed."""
        if self.topk:
            self.rankings[name].result = result

    def keep_network(self, model: nn.Module, prepare: Prepare) -> None:
        """Keeps the network that was scored, without wrappers; its last feature map, of ``conv5``, is shown."""
        self._network = model, prepare

    def write(self, folder: Path) -> None:
        """Draws all that was collected, and the activation maps of the network that was scored.

        Raises:
            UserError: the folder cannot be written or an image not read.
        """
        for name, watched in self.rankings.items():
            write_ranking(name, watched, folder)
        if self.rankings:
            results = {name: w.result for name, w in self.rankings.items() if w.result is not None}
            curves = {f"{name}: rank-1 {r.cmc[0]:.1%}, mAP {r.mAP:.1%}": r.cmc for name, r in results.items()}
            draw_cmc(curves, folder / "cmc.png")
        if self._network:
            model, prepare = self._network
            for name, batches in self.shown.items():
                write_maps(name, take_maps(model, prepare, batches), make_folder(folder / f"visactmap_{name}"))
        drawn = [f"visrank_{name}" for name in self.rankings] + [f"visactmap_{name}" for name in self.shown]
        logger.info("pictures are in %s", ", ".join(str(folder / part) for part in drawn))


def choose_shown(num_images: int, seed: int = 0) -> list[int]:
    """Chooses the query images whose activation maps are drawn: at random, the same in every run; ascending."""
    chosen = np.random.default_rng(seed).permutation(num_images)[:MAPS_OF_A_TARGET]
    return sorted(chosen.tolist())


def take_maps(model: nn.Module, prepare: Prepare, batches: Batches) -> MapSheet:
    """Computes the activation maps of some images."""
    images, maps = [], []
    for batch in batches:
        maps.append(compute_activation_maps(model, prepare(batch)).cpu())
        images.append(batch.images.cpu())
    return MapSheet(
        torch.cat(images).permute(0, 2, 3, 1).numpy(),
        torch.cat(maps).numpy(),
        [f"id {s.pid}, camera {s.camid}\n{shorten(PurePath(s.path).name, 34)}" for s in batches.samples],
    )


@torch.no_grad()
def compute_activation_maps(model: nn.Module, images: Tensor) -> Tensor:
    """Computes where a network's last feature map is strong.

    The sum over channels of the squared output of ``conv5``, scaled to length 1 over each image, brought to the
    images' size and stretched to [0, 1]; a map without any activation is 0.

    Args:
        model: Has a module ``conv5`` whose output is N×C×h×w; left in the mode it was in.
        images: N×3×H×W, as the network takes them.

    Returns:
        (N, H, W) float32.

    Source: attention transfer, Zagoruyko and Komodakis, ICLR 2017 (arXiv 1612.03928), section 3.1, with p = 2.
    """
    outputs: list[Tensor] = []
    hook = model.get_submodule("conv5").register_forward_hook(lambda module, inputs, output: outputs.append(output))
    was_training = model.training
    model.eval()
    try:
        model(images)
    finally:
        hook.remove()
        model.train(was_training)
    energy = outputs[0].float().square().sum(dim=1)  # N, h, w
    maps = F.normalize(energy.flatten(1), dim=1).view_as(energy)
    maps = F.interpolate(maps[:, None], images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)


def make_ranked_list(watched: WatchedRanking, query: int) -> RankedList:
    """Joins what was kept of a query with the images' names and labels."""
    assert watched.result is not None
    lists, protocol, samples = watched.lists, watched.protocol, watched.target.gallery.samples

    def neighbour(rank: int, index: int, distance: float) -> Neighbour:
        pid, camid = int(protocol.gallery_pids[index]), int(protocol.gallery_camids[index])
        return Neighbour(rank, samples[index].path, pid, camid, distance, pid == protocol.query_pids[query])

    found = lists.indices[query][lists.indices[query] >= 0].tolist()
    distances = lists.distances[query, : len(found)].tolist()
    pairs = zip(found, distances, strict=True)
    return RankedList(
        path=watched.target.query.samples[query].path,
        pid=int(protocol.query_pids[query]),
        camid=int(protocol.query_camids[query]),
        average_precision=float(watched.result.average_precision[query]),
        num_matches=int(lists.num_matches[query]),
        neighbours=tuple(neighbour(rank, i, d) for rank, (i, d) in enumerate(pairs, start=1)),
        first_match=neighbour(
            int(lists.first_rank[query]), int(lists.first_match[query]), float(lists.first_distance[query])
        ),
    )


def write_ranking(name: str, watched: WatchedRanking, folder: Path) -> None:
    """Draws a target's ranked lists, as a page and as sheets, and its distances."""
    result = watched.result
    assert result is not None
    chosen = choose_queries(result.average_precision, QUERIES_OF_A_KIND)
    sections = {kind: [make_ranked_list(watched, int(q)) for q in queries] for kind, queries in chosen.items()}
    into = make_folder(folder / f"visrank_{name}")
    for kind, lists in sections.items():
        chosen_from = f"{name}: {len(lists)} {kind} of {result.num_valid} queries, by {watched.distance}"
        title = f"{chosen_from}\nset apart: the first right match, where it comes later"
        draw_ranked_lists(lists, title, into / f"{kind}.png")
    summary = {
        "mAP": f"{result.mAP:.1%}",
        "rank-1": f"{result.cmc[0]:.1%}",
        "mINP": f"{result.mINP:.1%}",
        "queries": f"{result.num_valid}",
        "gallery images": f"{len(watched.protocol.gallery_pids)}",
    }
    write_atomically(into / "index.html", format_rank_page(name, summary, sections, watched.distance))
    draw_distances(watched.histogram, f"Distances on {name}", watched.distance, folder / f"distances_{name}.png")


def write_maps(name: str, sheet: MapSheet, folder: Path) -> None:
    """Draws a target's activation maps in sheets."""
    total = -(-len(sheet.images) // MAPS_OF_A_SHEET)
    for number in range(total):
        part = slice(number * MAPS_OF_A_SHEET, (number + 1) * MAPS_OF_A_SHEET)
        title = (
            f"{name}, sheet {number + 1} of {total}: where conv5 is active\n"
            "image, map, both; dark: low, bright: high, each image on its own scale"
        )
        path = folder / f"sheet_{number + 1}.png"
        draw_activation_maps(sheet.images[part], sheet.maps[part], sheet.captions[part], title, path)


def make_folder(path: Path) -> Path:
    """Makes a folder for pictures and returns it.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}") from error
    return path
