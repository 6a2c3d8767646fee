"""The designed experiment: short trainings of real children, chosen as an orthogonal array, and what follows from them.

Nothing is shared between the trainings, so nothing misleads, and they spread over any number of machines. A first
round tells what each candidate is worth in each block and predicts all 4,096 genotypes; a second one trains the most
promising and the known ones anew, with new seeds, and the best of those by their means is the answer.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search.answer import Answer, list_digits
from search.arrays import plan_runs
from search.confirm import CONFIRM_SEEDS, choose_for_confirmation, compare_confirmed, format_confirmed
from search.decide_effects import log_fit, log_leaders, make_answer, observe
from search.effects import EffectsFit, fit_effects
from search.launcher import Launcher
from search.trials import Trial, TrialResult, check_plan, complete_trials, write_plan
from utils.errors import UserError

logger = logging.getLogger(__name__)

TRIALS_NAME = "runs"


@dataclass(frozen=True)
class Design:
    """What is trained.

    Attributes:
        runs: Trainings of the orthogonal array, 32 or 64.
        extra_runs: Of further architectures, drawn at random.
        confirm: Architectures of the second round; 0: none.
        num_folds: Folds of the held-out images.
        seed: Of the plan; trainings have this seed and those that follow.
    """

    runs: int
    extra_runs: int
    confirm: int
    num_folds: int
    seed: int

    def list_first_round(self) -> list[Trial]:
        """Lists the trainings of the first round."""
        planned = plan_runs(self.runs, self.seed, self.num_folds, self.extra_runs)
        return [Trial(run.digits, self.seed + run.seed_index, run.fold) for run in planned]

    def list_second_round(self, architectures: Sequence[str]) -> list[Trial]:
        """Lists the trainings of the second: each architecture with the same new seeds and folds, so that they pair."""
        return [
            Trial(digits, self.seed + 2 + i, i % self.num_folds)
            for i in range(CONFIRM_SEEDS)
            for digits in architectures
        ]


class DesignedSearch:
    """Trains what a design asks for and answers; started again, it goes on where it was.

    Args:
        folder: The search's folder; trainings go to ``runs/`` below it.
        design: What is trained.
        make_command: Returns a training's command line, given where trainings go.
        launch: Runs command lines.
        conditions: What must be the same for all trainings (recipe, data, versions), in plain values.
    """

    def __init__(
        self,
        folder: Path,
        design: Design,
        make_command: Callable[[Trial, Path], list[str]],
        launch: Launcher,
        conditions: Mapping[str, Any],
    ) -> None:
        self.folder, self.design, self.make_command, self.launch = folder, design, make_command, launch
        self.conditions = dict(conditions)
        self.trials_folder = folder / TRIALS_NAME

    def run(self) -> tuple[Answer, list[TrialResult]]:
        """Trains both rounds and returns the answer, with all trainings' results.

        Raises:
            UserError: too many trainings failed for the effects to be told.
        """
        first = self._complete(self.design.list_first_round(), "first round")
        fit = fit_effects(observe(first))
        log_fit(fit)
        if not self.design.confirm:
            best = list_digits()[int(fit.predictions.argmax())]
            return make_answer(fit, best, "it has the best prediction", [], first), first
        chosen = choose_for_confirmation(fit, first, self.design.confirm)
        logger.info("second round, trained anew: %s", ", ".join(f"{d} ({why})" for d, why in chosen.items()))
        second = self._complete(self.design.list_second_round(list(chosen)), "second round")
        return self._confirm(fit, chosen, first, second)

    def _confirm(
        self, fit: EffectsFit, chosen: Mapping[str, str], first: list[TrialResult], second: list[TrialResult]
    ) -> tuple[Answer, list[TrialResult]]:
        """Answers with the best of the confirmed architectures by their means over the new trainings."""
        table = compare_confirmed(chosen, second)
        if not table:
            raise UserError("no training of the second round is finished; see the errors above, and start again")
        logger.info("trained anew:\n%s", format_confirmed(table))
        why = f"of {len(table)} architectures trained anew it has the highest mean"
        results = [*first, *second]
        return make_answer(fit, table[0].digits, why, [c.as_document() for c in table], results), results

    def keep_plan(self) -> None:
        """Writes the plan, which comes before anything else, or checks that the folder's is the same.

        Raises:
            UserError: it differs; the message shows where.
        """
        plan = {"design": asdict(self.design), "conditions": self.conditions}
        check_plan(self.folder, plan, "data.save_dir", free={"confirm"})
        write_plan(self.folder, plan)
        self.trials_folder.mkdir(exist_ok=True)

    def _complete(self, trials: Sequence[Trial], what: str) -> list[TrialResult]:
        """Trains what is not finished and returns all results."""
        return complete_trials(trials, self.trials_folder, self.make_command, self.launch, what, log_leaders)
