"""The two groups of a network's parameters: weights, and architecture parameters (a super-network's alphas).

Everything that treats the two differently asks here: freezing, optimisers, the check that gradients reach them all.
"""

from collections.abc import Iterator, Sequence

from torch import nn

ARCHITECTURE = "alphas"  # the name of a super-network's architecture parameters, and of their optimiser
WEIGHTS = "weights"  # the name of the other parameters' optimiser; the alphas' too where they have none of their own


def is_architecture(name: str) -> bool:
    """Whether a parameter's name is that of architecture parameters."""
    return name == ARCHITECTURE


def named_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields the parameters that are no architecture parameters, by name."""
    return ((name, p) for name, p in model.named_parameters() if not is_architecture(name))


def architecture_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Lists the architecture parameters; a child has none."""
    return [p for name, p in model.named_parameters() if is_architecture(name)]


def freeze_all_but(model: nn.Module, open_layers: Sequence[str]) -> None:
    """Lets only ``open_layers`` learn; the others' norms use and keep their running statistics."""
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in open_layers)
    for name, child in model.named_children():
        child.train(name in open_layers)


def unfreeze(model: nn.Module) -> None:
    """Lets every layer learn again."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.train()
