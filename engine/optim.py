"""Optimisers, learning-rate schedules, and which layers learn at which rate."""

from collections.abc import Sequence
from typing import Any

from torch import nn, optim
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR

from utils.errors import UserError
from utils.suggest import nearest


def check_layers(model: nn.Module, layers: Sequence[str], key: str) -> None:
    """Checks that each name is a layer of the model (a direct child or parameter, such as ``classifier``, ``alphas``).

    Raises:
        UserError: names the unknown layer and the nearest.
    """
    known = [*(name for name, _ in model.named_children()), *(n for n, _ in model.named_parameters(recurse=False))]
    for layer in layers:
        if layer not in known:
            raise UserError(f"{key}: the network has no layer {layer!r}{nearest(layer, known)}; it has {known}")


def group_parameters(
    model: nn.Module, lr: float, new_layers: Sequence[str] | None = None, base_lr_mult: float = 0.1
) -> list[dict[str, Any]]:
    """Groups the parameters by learning rate.

    Args:
        model: The network.
        lr: Learning rate.
        new_layers: Layers that learn at ``lr`` while all others learn at ``base_lr_mult * lr``; None: all at ``lr``.
        base_lr_mult: Factor for the others.

    Returns:
        Parameter groups for an optimiser.
    """
    if new_layers is None:
        return [{"params": list(model.parameters()), "lr": lr}]
    new = [p for name, p in model.named_parameters() if name.split(".")[0] in new_layers]
    base = [p for name, p in model.named_parameters() if name.split(".")[0] not in new_layers]
    groups = [{"params": base, "lr": base_lr_mult * lr}, {"params": new, "lr": lr}]
    return [group for group in groups if group["params"]]


def build_optimizer(cfg: Any, model: nn.Module) -> optim.Optimizer:
    """Builds the optimiser of the ``train`` settings over all parameters of the model, alphas included.

    Raises:
        UserError: ``train.new_layers`` or ``train.open_layers`` names a layer that the network lacks.
    """
    train, betas = cfg.train, (cfg.adam.beta1, cfg.adam.beta2)
    if train.fixbase_epoch > 0:
        check_layers(model, train.open_layers, "train.open_layers")
    if train.staged_lr:
        check_layers(model, train.new_layers, "train.new_layers")
    groups = group_parameters(model, train.lr, train.new_layers if train.staged_lr else None, train.base_lr_mult)
    decay = train.weight_decay
    match train.optim:
        case "adam" | "amsgrad":
            return optim.Adam(groups, weight_decay=decay, betas=betas, amsgrad=train.optim == "amsgrad")
        case "sgd":
            return optim.SGD(
                groups,
                momentum=cfg.sgd.momentum,
                weight_decay=decay,
                dampening=cfg.sgd.dampening,
                nesterov=cfg.sgd.nesterov,
            )
        case "rmsprop":
            return optim.RMSprop(groups, momentum=cfg.sgd.momentum, weight_decay=decay, alpha=cfg.rmsprop.alpha)
        case "radam":
            return optim.RAdam(groups, weight_decay=decay, betas=betas)
    raise ValueError(train.optim)


def build_scheduler(cfg: Any, optimizer: optim.Optimizer) -> LRScheduler:
    """Builds the schedule of the ``train`` settings; it steps once an epoch.

    Raises:
        UserError: ``train.stepsize`` has several entries under single_step, or they do not rise under multi_step.
    """
    train = cfg.train
    match train.lr_scheduler:
        case "single_step":
            if len(train.stepsize) != 1:
                raise UserError(f"train.stepsize = {train.stepsize}: single_step takes one number of epochs")
            return StepLR(optimizer, step_size=train.stepsize[0], gamma=train.gamma)
        case "multi_step":
            if list(train.stepsize) != sorted(set(train.stepsize)):
                raise UserError(f"train.stepsize = {train.stepsize}: multi_step takes rising epochs")
            return MultiStepLR(optimizer, milestones=list(train.stepsize), gamma=train.gamma)
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=train.max_epoch)
    raise ValueError(train.lr_scheduler)
