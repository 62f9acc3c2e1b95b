"""One step of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from train.checkpoint import Learner
from train.config import FitConfig
from train.data.loader import Drawn
from train.learning.distillation import Guides, StoredGuide
from train.learning.mean_teacher import (
    Guidance,
    Totals,
    costs,
    follow,
    guided_costs,
    guided_totals,
    learning_rate,
    totals_of,
    weights_of,
)
from train.learning.network import begin_step, draw_context
from train.learning.runner import Runner


@dataclass(frozen=True, slots=True)
class Learned:
    """The cost of one step, of the whole batch also where several processes share it."""

    cost: float
    terms: Mapping[str, float]  # before they are weighted
    weighted: Mapping[str, float]  # their sum is the cost


def learn(
    learner: Learner, runner: Runner, drawn: Drawn, guide: Guides | StoredGuide | None, config: FitConfig
) -> Learned:
    """Train on a batch: one step of the student, after which the teacher follows it."""
    step, device = learner.step, runner.device
    batch = drawn.batch.to(device)
    seen = {name: values.to(device) for name, values in drawn.student.items()}
    there = {name: flags.to(device) for name, flags in drawn.student_valid.items()}
    valid = torch.stack([there[name] for name in learner.student.modalities]).any(dim=0)
    for group in learner.optimiser.param_groups:
        group["lr"] = learning_rate(step, config)

    begin_step(learner.student, step, config)
    draw_context(learner.student, config)
    student_out = runner.student(seen, there)
    with torch.no_grad():
        teacher_out = runner.teacher(batch.features, batch.valid)
        guidance = {} if guide is None else {"distilled": guide.of(batch)}
        if drawn.pseudo is not None:
            guidance["pseudo"] = drawn.pseudo.to(device)
    totals, guided = _totals(drawn, guidance, valid, runner, config)
    terms = costs(student_out, teacher_out, batch, valid, config, totals)
    for name, one in guidance.items():
        terms |= guided_costs(student_out, one, valid, name, guided[name])
    weights = weights_of(step, config)
    cost = torch.stack([weights[name] * term for name, term in terms.items()]).sum()

    learner.optimiser.zero_grad()
    (cost * runner.group.size).backward()  # type: ignore[no-untyped-call]  # processes' gradients are averaged
    if config.clip_gradient:
        torch.nn.utils.clip_grad_norm_(learner.student.parameters(), config.clip_gradient)
    learner.optimiser.step()
    follow(learner.teacher, learner.student, step, config)
    learner.step = step + 1

    values = runner.group.sums(torch.stack([term.detach() for term in terms.values()]).tolist())
    named = dict(zip(terms, values, strict=True))
    weighted = {name: weights[name] * value for name, value in named.items()}
    return Learned(sum(weighted.values()), named, weighted)


def _totals(
    drawn: Drawn, guidance: Mapping[str, Guidance], valid: Tensor, runner: Runner, config: FitConfig
) -> tuple[Totals, dict[str, tuple[float, float]]]:
    """What costs are means over: of all processes' clips."""
    own = totals_of(drawn.batch, valid.cpu(), config)
    guided = [guided_totals(one.cell_weight, one.clip_weight, valid) for one in guidance.values()]
    summed = runner.group.sums([*astuple(own), *(value for pair in guided for value in pair)])
    pairs = zip(summed[4::2], summed[5::2], strict=True)
    return Totals(*summed[:4]), dict(zip(guidance, pairs, strict=True))
