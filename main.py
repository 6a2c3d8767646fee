"""Searches for, trains and evaluates re-identification networks.

  search      python main.py --config-file nas.yaml --root DATA
  train       python main.py --config-file child.yaml --root DATA [model.genotype log/osnet_nas/genotype.json]
  evaluate    python main.py --config-file child.yaml --root DATA test.evaluate True model.load_weights PATH
  protocol    python main.py --config-file configs/p1.yaml --root DATA
  no data?    python main.py --config-file quickstart.yaml

Any setting of config_keys.py can follow as KEY VALUE or KEY=VALUE, for example: train.lr 0.05 data.save_dir log/second
"""

from engine.interrupt import Interrupted, StopRequest, leave_at_once_when_asked, leaving_at_once
from utils.streams import open_closed_streams

if __name__ == "__main__":
    open_closed_streams()
    leave_at_once_when_asked()  # imports take seconds

import logging
import sys
from collections.abc import Sequence

from command_line import collect_overrides, parse_arguments
from default_config import list_explicit, load_config
from utils.errors import UserError
from utils.launch import is_first_on_machine, select_gpus, stop_with_launcher, wait_briefly
from utils.log import start_log

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)  # also where a process's log is silenced: any one may have to say why the run ends


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, 2 for a user error, else a signal's."""
    start_log(None)
    stop_with_launcher()
    wait_briefly()
    runtime = None
    try:
        arguments = parse_arguments(words, __doc__)
        files = [] if arguments.config_file is None else [arguments.config_file]
        overrides = collect_overrides(arguments)
        cfg = load_config(files, overrides)
        # PyTorch takes seconds to import, for which neither --help nor a mistyped setting should wait
        from engine.safety import explain_faults
        from run import build_job, run
        from utils.distributed import choose_runtime

        if arguments.gpu_devices is not None:
            select_gpus(arguments.gpu_devices)
        wanted = len(arguments.gpu_devices.split(",")) if arguments.gpu_devices else 0
        with StopRequest() as stop, stop.held(quietly=True):
            with leaving_at_once():
                runtime = choose_runtime(cfg.use_gpu, wanted)
            command = ["main.py", *(sys.argv[1:] if words is None else words)]
            with runtime, stop.released(), explain_faults(runtime, "lower train.batch_size and test.batch_size"):
                run(build_job(cfg, runtime, stop, command, list_explicit(overrides)))
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
