"""`distillation_loss` as a module, for those who keep their losses in one."""

from typing import Any

import torch
from torch import Tensor, nn

from kdlab.functional import distillation_loss


class DistillationLoss(nn.Module):
    """`kdlab.distillation_loss` with its settings fixed once.

    Takes every keyword of `distillation_loss` but the per-batch ones (mask, denominator), which go
    to the call. Computes (1 − α) T² D(p, q) + α CE, reduced; formula, shapes, dtypes, errors and
    sources as there. Settings are checked when the module is made.

    >>> loss = DistillationLoss(beta=0.5)
    >>> loss
    DistillationLoss(beta=0.5)
    >>> loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]))
    tensor(0.4438)
    """

    def __init__(self, **settings: Any):
        super().__init__()
        for per_batch in ("labels", "mask", "denominator"):
            if per_batch in settings:
                raise TypeError(f"{per_batch}: given to DistillationLoss; expected at the call")
        beta = settings.get("beta", 1.0)
        row_shape = beta.shape if isinstance(beta, Tensor) else ()
        probe, labels = torch.zeros(*row_shape, 2), torch.zeros(row_shape, dtype=torch.int64)
        checked = settings | {"backend": None, "num_classes": None}
        if isinstance(beta, Tensor):
            checked["beta"] = beta.detach().cpu()
        distillation_loss(probe, probe, labels, **checked)
        self.settings = settings

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        return distillation_loss(
            student_logits,
            teacher_logits,
            labels,
            mask=mask,
            denominator=denominator,
            **self.settings,
        )

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
