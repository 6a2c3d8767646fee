"""Files of an evaluation's pictures: ranked lists as pages and sheets, CMC curves, distances, activation maps."""

from collections.abc import Mapping
from pathlib import Path, PurePath

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.evaluator import Batches, Prepare
from engine.pictures import WatchedRanking
from utils.files import make_folder, write_atomically
from utils.label_names import LabelNames
from utils.log import progress
from utils.plots import draw_activation_maps, draw_cmc, draw_distances, save_figure
from utils.ranked_lists import Neighbour, RankedList, choose_queries
from utils.ranked_lists_page import format_ranked_lists_page
from utils.ranked_lists_sheet import draw_ranked_lists
from utils.ranking import RankingResult
from utils.thumbnails import shorten

QUERIES_OF_A_KIND = 10  # best, worst and random ones
MAPS_OF_A_SHEET = 12
_CAPTION = 34  # characters


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
    lists, rules, samples = watched.lists, watched.rules, watched.target.gallery.samples
    names = watched.target.names

    def neighbour(rank: int, index: int, distance: float) -> Neighbour:
        pid, camid = int(rules.gallery_pids[index]), int(rules.gallery_camids[index])
        is_match = pid == rules.query_pids[query]
        return Neighbour(rank, samples[index].path, names.person(pid), names.camera(camid), distance, is_match)

    found = lists.indices[query][lists.indices[query] >= 0].tolist()
    distances = lists.distances[query, : len(found)].tolist()
    pairs = zip(found, distances, strict=True)
    return RankedList(
        path=watched.target.query.samples[query].path,
        person=names.person(int(rules.query_pids[query])),
        camera=names.camera(int(rules.query_camids[query])),
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
    for kind, lists in progress(sections.items(), len(sections), f"{name} sheets"):
        chosen_from = f"{name}: {len(lists)} {kind} of {result.num_valid} queries, by {watched.distance}"
        title = f"{chosen_from}\nset apart: the first right match, where it comes later"
        save_figure(draw_ranked_lists(lists, title), into / f"{kind}.png")
    summary = {
        "mAP": f"{result.mAP:.1%}",
        "rank-1": f"{result.cmc[0]:.1%}",
        "mINP": f"{result.mINP:.1%}",
        "queries": f"{result.num_valid}",
        "gallery images": f"{len(watched.rules.gallery_pids)}",
    }
    write_atomically(into / "index.html", format_ranked_lists_page(name, summary, sections, watched.distance))
    distances = draw_distances(watched.histogram, f"Distances on {name}", watched.distance)
    save_figure(distances, folder / f"distances_{name}.png")


def write_cmc(results: Mapping[str, RankingResult], folder: Path) -> None:
    """Draws the CMC curves of all targets."""
    curves = {f"{name}: rank-1 {r.cmc[0]:.1%}, mAP {r.mAP:.1%}": r.cmc for name, r in results.items()}
    save_figure(draw_cmc(curves), folder / "cmc.png")


def write_maps(
    name: str, model: nn.Module, prepare: Prepare, batches: Batches, names: LabelNames, folder: Path
) -> None:
    """Computes a target's activation maps and draws them in sheets."""
    parts = [
        (batch.images.cpu(), compute_activation_maps(model, prepare(batch)).cpu())
        for batch in progress(batches, len(batches), f"{name} activation maps")
    ]
    images, maps = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    captions = []
    for sample in batches.samples:
        labels = f"id {names.person(sample.pid)}, camera {names.camera(sample.camid)}"
        captions.append(f"{shorten(labels, _CAPTION)}\n{shorten(PurePath(sample.path).name, _CAPTION)}")
    total = -(-len(images) // MAPS_OF_A_SHEET)
    for number in range(total):
        part = slice(number * MAPS_OF_A_SHEET, (number + 1) * MAPS_OF_A_SHEET)
        title = (
            f"{name}, sheet {number + 1} of {total}: where conv5 is active\n"
            "image, map, both; dark: low, bright: high, each image on its own scale"
        )
        figure = draw_activation_maps(images[part].transpose(0, 2, 3, 1), maps[part], captions[part], title)
        save_figure(figure, folder / f"sheet_{number + 1}.png")
