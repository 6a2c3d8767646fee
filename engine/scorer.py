"""Scoring a run's network on the run's targets, during training and at its end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from engine.evaluator import EvaluationTarget, Prepare, ScoringRules, evaluate_targets
from engine.pictures import Pictures
from engine.safety import explain_faults
from engine.scores import Scores
from utils.distributed import Runtime


@dataclass(frozen=True)
class Scorer:
    """Scores one network again and again.

    Attributes:
        label: What is scored, for the reader of the scores.
        get_network: Gives the bare network to score, as it is now.
        targets: What it is tested on, by name.
        prepare: Makes images on the device from a batch.
        rules: How features are compared.
        runtime: Every process must score together.
    """

    label: str
    get_network: Callable[[], nn.Module]
    targets: Mapping[str, EvaluationTarget]
    prepare: Prepare
    rules: ScoringRules
    runtime: Runtime

    def score(self, pictures: Pictures | None = None) -> dict[str, Scores]:
        """Scores the network on every target; ``pictures`` collect what they show on the way.

        Raises:
            UserError: too little memory, or features that cannot be compared.
        """
        network = self.get_network()
        with explain_faults(self.runtime, "lower test.batch_size"):
            wrapped = self.runtime.wrap_for_evaluation(network)
            scores = evaluate_targets(wrapped, self.targets, self.prepare, self.runtime, self.rules, pictures)
        if pictures:
            pictures.keep_network(network, self.prepare)
        return scores
