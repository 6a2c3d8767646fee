"""Optimisers, learning-rate schedules, and which layers learn at which rate."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn, optim
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR

from engine.parameters import ARCHITECTURE, WEIGHTS, architecture_parameters, named_weights
from utils.errors import UserError
from utils.suggest import nearest

logger = logging.getLogger(__name__)

_PLACE = ("last_epoch", "_step_count", "_last_lr")  # where a schedule is; its other state is its settings
ALPHA_BETAS = (0.5, 0.999)  # a short memory: the weights that the alphas answer to change from step to step


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
    parameters: Iterable[tuple[str, nn.Parameter]],
    lr: float,
    new_layers: Sequence[str] | None = None,
    base_lr_mult: float = 0.1,
) -> list[dict[str, Any]]:
    """Groups parameters by learning rate.

    Args:
        parameters: With their names, whose first part is the layer's.
        lr: Learning rate.
        new_layers: Layers that learn at ``lr`` while all others learn at ``base_lr_mult * lr``; None: all at ``lr``.
        base_lr_mult: Factor for the others.

    Returns:
        Parameter groups for an optimiser.
    """
    named = list(parameters)
    if new_layers is None:
        return [{"params": [p for _, p in named], "lr": lr}]
    new = [p for name, p in named if name.split(".")[0] in new_layers]
    base = [p for name, p in named if name.split(".")[0] not in new_layers]
    groups = [{"params": base, "lr": base_lr_mult * lr}, {"params": new, "lr": lr}]
    return [group for group in groups if group["params"]]


def build_optimizers(cfg: Any, model: nn.Module) -> dict[str, optim.Optimizer]:
    """Builds the optimisers by name: the weights', and the alphas' where held-out images teach them.

    The alphas' is Adam without weight decay, which would draw all of them towards each other. Else the weights' is over
    both, as in the paper.

    Raises:
        UserError: a setting names a layer that the network lacks.
    """
    alphas = architecture_parameters(model)
    if not alphas or cfg.nas.alpha_data == "train":
        return {WEIGHTS: build_optimizer(cfg, model, model.named_parameters())}
    return {
        WEIGHTS: build_optimizer(cfg, model, named_weights(model)),
        ARCHITECTURE: optim.Adam(alphas, lr=cfg.nas.alpha_lr, betas=ALPHA_BETAS),
    }


def build_optimizer(cfg: Any, model: nn.Module, parameters: Iterable[tuple[str, nn.Parameter]]) -> optim.Optimizer:
    """Builds the optimiser of the ``train`` settings over named parameters of the model.

    Raises:
        UserError: ``train.new_layers`` or ``train.open_layers`` names a layer that the network lacks.
    """
    train, betas = cfg.train, (cfg.adam.beta1, cfg.adam.beta2)
    if train.fixbase_epoch > 0:
        check_layers(model, train.open_layers, "train.open_layers")
    if train.staged_lr:
        check_layers(model, train.new_layers, "train.new_layers")
    groups = group_parameters(parameters, train.lr, train.new_layers if train.staged_lr else None, train.base_lr_mult)
    decay = train.weight_decay
    match train.optim:
        case "adam" | "amsgrad":
            return optim.Adam(groups, weight_decay=decay, betas=betas, amsgrad=train.optim == "amsgrad", fused=True)
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
    """Builds the schedule of the ``train`` settings; it steps once per epoch.

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


def continue_schedule(scheduler: LRScheduler, saved: Mapping[str, Any]) -> None:
    """Sets a schedule to where a saved one of the same settings was; the optimiser was restored before.

    A cosine over another number of epochs than the saved one goes on at the rate that it has at that epoch itself.
    """
    scheduler.load_state_dict({key: saved[key] for key in _PLACE if key in saved})
    if not isinstance(scheduler, CosineAnnealingLR) or saved.get("T_max") == scheduler.T_max:
        return
    share = (1 + math.cos(math.pi * scheduler.last_epoch / scheduler.T_max)) / 2
    rates = [base * share for base in scheduler.base_lrs]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler.load_state_dict({"_last_lr": rates})
    logger.warning("train.lr_scheduler cosine depends on train.max_epoch: the learning rate goes on at %.3g, as in a "
                   "run of %d epochs, which began with other rates", rates[-1], scheduler.T_max)  # fmt: skip
