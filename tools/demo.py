"""The whole path on drawn pedestrians: search, retrain what was found, compare on a seen and two unseen domains.

The search trains 32 small networks (quickstart.yaml) and says how sure its answer is.

  python -m tools.demo [--folder demo]

Plain OSNet and the published OSNet-AIN are trained the same way beside the found network. A demo that was stopped
continues where it was. Takes 12 minutes on two slow CPU cores.
"""

from utils.launch import wait_briefly

if __name__ == "__main__":
    wait_briefly()  # before PyTorch is imported

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.synthetic import SyntheticSize
from default_config import load_config
from genotype import Genotype
from main import main as run_main
from tools.make_synthetic import draw_sheet
from utils.contact_sheet import save_contact_sheet
from utils.drawing import Figure
from utils.log import format_table
from utils.plots import save_figure
from utils.tool import tool

ROOT = Path(__file__).parents[1]
MAX_JOBS = 8
DOMAINS = {"synthetic_a": "seen", "synthetic_b": "unseen", "synthetic_c": "unseen"}


def run_step(folder: Path, config: str, *settings: str) -> None:
    """Runs main into ``folder``, continuing what is there; leaves the program if it fails."""
    resume = ["model.resume", "auto", "data.root", str(folder.parent / "data"), "data.save_dir", str(folder)]
    code = run_main(["--config-file", str(ROOT / config), *resume, *settings])
    if code:
        sys.exit(code)


def read_scores(folder: Path) -> dict[str, dict[str, float]]:
    """Returns the scores that a run has left, by target."""
    return json.loads((folder / "metrics.json").read_text())["targets"]


def draw_comparison(scores: dict[str, dict[str, dict[str, float]]]) -> Figure:
    """Draws mAP of every network on every domain as bars."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(scores)
    for i, (network, by_domain) in enumerate(scores.items()):
        places = np.arange(len(DOMAINS)) + (i - (len(scores) - 1) / 2) * width
        bars = axes.bar(places, [100 * by_domain[d]["mAP"] for d in DOMAINS], width * 0.92, label=network)
        axes.bar_label(bars, fmt="%.0f", padding=2)
    axes.set_xticks(range(len(DOMAINS)), [f"{name} ({kind})" for name, kind in DOMAINS.items()])
    axes.set_ylabel("mAP, %")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=len(scores))
    axes.set_title("Trained on synthetic_a only", loc="left")
    return figure


@tool("demo")
def main(words: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where everything goes (default: demo)")
    folder = parser.parse_args(words).folder
    jobs = min(MAX_JOBS, len(os.sched_getaffinity(0)))
    recipe = str(ROOT / "quickstart_short.yaml")
    run_step(folder / "search", "quickstart.yaml", "nas.design.recipe", recipe, "nas.design.jobs", str(jobs))
    found = folder / "search" / "genotype.json"
    networks = {"OSNet": "osnet", "OSNet-AIN": "osnet_ain", "found": str(found)}
    for name, genotype in networks.items():
        run_step(folder / name, "quickstart_child.yaml", "model.genotype", genotype)
    scores = {name: read_scores(folder / name) for name in networks}
    save_figure(draw_comparison(scores), folder / "comparison.png")
    size = SyntheticSize(**load_config([ROOT / "quickstart.yaml"]).synthetic)
    people = draw_sheet([d.removeprefix("synthetic_") for d in DOMAINS], size, folder / "data", 4)
    save_contact_sheet(people, folder / "people.png")
    header = ["trained on synthetic_a", *(f"{name} ({kind}) mAP / rank-1" for name, kind in DOMAINS.items())]
    rows = [
        [name, *(f"{by_domain[d]['mAP']:.1%} / {by_domain[d]['rank1']:.1%}" for d in DOMAINS)]
        for name, by_domain in scores.items()
    ]
    answer = Genotype.from_json(found)
    print(f"\nfound by the search:\n{answer}\n{answer.found['verdict']}\n\n{format_table(header, rows)}\n")
    print(f"pages and pictures: {folder}/search/report.html, {folder}/comparison.png, {folder}/people.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
