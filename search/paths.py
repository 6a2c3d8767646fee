"""What a step of a search runs: path weights, drawn from the architecture parameters.

Source: arXiv 1910.06827, section on differentiable architecture search.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

_TINY = 1e-12


class GumbelSoftmax:
    """The paper's relaxation: relu(α) is a candidate's unnormalised probability; a draw is a softmax with Gumbel noise.

    One deviation: an alpha is kept at ``floor`` or above. At 0 and below, relu(α) has no gradient, so in the published
    procedure a candidate that weight decay or one large step has pushed there can never come back.

    Args:
        floor: Lowest alpha, above 0.
    """

    def __init__(self, floor: float = 0.01) -> None:
        self.floor = floor

    def sample(
        self,
        alphas: Tensor,
        temperature: float,
        generator: Generator | None = None,
        uniform: Tensor | None = None,
    ) -> Tensor:
        """Draws relaxed one-hot weights over every block's candidates.

        z = log(relu(α)) + g with Gumbel noise g = −log(−log u), u uniform in (0, 1); weights = softmax(z / λ).

        Args:
            alphas: Architecture parameters, (L, K), or any number of such, (…, L, K).
            temperature: λ > 0, unitless; near one-hot as it falls to 0.
            generator: Where the noise is drawn from (on the CPU: every device sees the same); default PyTorch's.
            uniform: The noise u itself, of the alphas' shape, in [0, 1), in place of a draw.

        Returns:
            The alphas' shape, non-negative, rows sum to 1, differentiable in ``alphas``.

        Raises:
            ValueError: ``temperature`` is not positive.
        """
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if uniform is None:
            uniform = torch.rand(alphas.shape, generator=generator)
        uniform = uniform.to(alphas)
        gumbel = -torch.log(-torch.log(uniform + _TINY))
        return F.softmax((torch.log(F.relu(alphas) + _TINY) + gumbel) / temperature, dim=-1)

    def probabilities(self, alphas: Tensor) -> Tensor:
        """Computes each candidate's probability, relu(α) over its sum in the block: (L, K), rows sum to 1."""
        weights = F.relu(alphas.detach()) + _TINY
        return weights / weights.sum(dim=-1, keepdim=True)

    def most_probable(self, alphas: Tensor) -> Tensor:
        """Returns the one-hot path weights (L, K) of the most probable candidates: what evaluation runs with."""
        return F.one_hot(alphas.detach().argmax(dim=-1), alphas.shape[-1]).to(alphas)

    @torch.no_grad()
    def keep_alive(self, alphas: Tensor) -> None:
        """Lifts every alpha to the floor, where it still has a gradient."""
        alphas.clamp_(min=self.floor)

    def find_dead(self, alphas: Tensor) -> Tensor:
        """Finds the candidates at the floor, which are hardly ever drawn: (L, K) bool."""
        return alphas.detach() <= self.floor


sample_path_weights = GumbelSoftmax().sample


def compute_entropy(probabilities: Tensor) -> Tensor:
    """Computes the entropy of each row in nats: 0 for a settled block, log K for an open one."""
    return -(probabilities * probabilities.clamp(min=1e-12).log()).sum(dim=-1)


def compute_margins(probabilities: Tensor) -> Tensor:
    """Computes by how much each row's largest probability exceeds the second, (L,) in [0, 1]."""
    first, second = probabilities.topk(2, dim=-1).values.unbind(dim=-1)
    return first - second


def temperature_at(
    epoch: int, initial: float, minimum: float, decay_step: int, decay_rate: float, fixed: bool
) -> float:
    """Computes λ(epoch) = max(minimum, initial · decay_rate^⌊epoch / decay_step⌋); ``initial`` if fixed or step −1."""
    if fixed or decay_step == -1:
        return initial
    return max(minimum, initial * decay_rate ** (epoch // decay_step))
