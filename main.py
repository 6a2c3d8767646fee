"""Searches for, trains and evaluates re-identification networks.

  search      python main.py --config-file nas.yaml --root DATA
  train       python main.py --config-file child.yaml --root DATA [model.genotype log/osnet_nas/genotype.json]
  evaluate    python main.py --config-file child.yaml --root DATA test.evaluate True model.load_weights PATH
  protocol    python main.py --config-file configs/p1.yaml --root DATA
  no data?    python main.py --config-file quickstart.yaml

Any setting of default_config.py can follow as KEY VALUE, for example: train.lr 0.05 data.save_dir log/second
"""

from engine.interrupt import Interrupted, StopRequest, leave_at_once_when_asked, leaving_at_once

if __name__ == "__main__":
    leave_at_once_when_asked()  # the imports below take seconds

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from default_config import KEYS, load_config, parse_pairs
from engine.safety import explain_faults
from run import build_job, run
from utils.distributed import choose_runtime
from utils.errors import UserError
from utils.launch import is_first_on_machine, select_gpus
from utils.log import start_log

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)  # also where a process's log is silenced: any one may have to say why the run ends


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", metavar="FILE", help="settings in YAML: nas.yaml, child.yaml, your own")
    parser.add_argument("--root", metavar="DIR", help="folder that holds the data sets' folders")
    parser.add_argument("-s", "--sources", nargs="+", metavar="NAME", help="data sets to train on")
    parser.add_argument("-t", "--targets", nargs="+", metavar="NAME", help="data sets to test on")
    parser.add_argument("--transforms", nargs="+", metavar="NAME", help="augmentations, such as random_flip")
    parser.add_argument("--gpu-devices", metavar="0,1", help="GPUs to use (default: all that are visible)")
    parser.add_argument("settings", nargs="*", metavar="KEY VALUE", help="any setting, such as train.lr 0.05")
    return parser.parse_intermixed_args(words)


def collect_overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings given on the command line, by key.

    A flag that takes several names also takes in KEY VALUE pairs that follow it; names have no dot, keys do.
    """
    overrides = {} if arguments.root is None else {"data.root": arguments.root}
    pairs = list(arguments.settings)
    lists = {"data.sources": "sources", "data.targets": "targets", "data.transforms": "transforms"}
    for key, flag in lists.items():
        names = getattr(arguments, flag)
        if names is not None:
            end = next((i for i, name in enumerate(names) if "." in name or name in KEYS), len(names))
            overrides[key] = names[:end]
            pairs += names[end:]
    return overrides | parse_pairs(pairs)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, 2 for a person's mistake, else a signal's."""
    arguments = parse_arguments(words)
    start_log(None)
    runtime = None
    try:
        cfg = load_config([arguments.config_file] if arguments.config_file else [], collect_overrides(arguments))
        if arguments.gpu_devices:
            select_gpus(arguments.gpu_devices)
        wanted = len(arguments.gpu_devices.split(",")) if arguments.gpu_devices else 0
        with StopRequest() as stop, stop.held(quietly=True):
            with leaving_at_once():
                runtime = choose_runtime(cfg.use_gpu, wanted)
            command = sys.argv if words is None else ["main.py", *words]
            with runtime, stop.released(), explain_faults(runtime, "lower train.batch_size and test.batch_size"):
                run(build_job(cfg, runtime, stop, command))
    except UserError as error:
        if runtime is not None or is_first_on_machine():  # until then every process of torchrun's meets the same error
            print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as interruption:
        logger.info("%s", interruption)
        return interruption.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
