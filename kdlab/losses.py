"""`distillation_loss` as a module, for those who keep their losses in one."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from kdlab.arguments import check_settings
from kdlab.functional import distillation_loss


class DistillationLoss(nn.Module):
    """`kdlab.distillation_loss` with its settings fixed once.

    Takes every keyword of `distillation_loss` but the per-batch ones (mask, denominator), which go
    to the call. Computes (1 − α) T² D(p, q) + α CE, reduced; formula, shapes, dtypes, errors and
    sources as there. Settings are checked when the module is made, and again when it is called, so
    that they may be changed in between (`loss.beta = 0.1`).

    A `beta` that is an `nn.Parameter` is the module's parameter: optimizers find it, and
    `state_dict` keeps it. Another tensor is a buffer, and moves with the module. Either is one for
    good: its value is changed in place (`loss.beta.data.fill_(0.1)`).

    >>> import torch
    >>> loss = DistillationLoss(beta=0.5)
    >>> loss
    DistillationLoss(beta=0.5)
    >>> loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]))
    tensor(0.4438)
    >>> learnt = DistillationLoss(beta=nn.Parameter(torch.tensor(0.5)))
    >>> [name for name, _ in learnt.named_parameters()]
    ['beta']
    """

    def __init__(
        self,
        *,
        beta: float | Tensor = 1.0,
        divergence: str = "kl",
        mix: float = 0.5,
        label_weight: float = 0.0,
        temperature_scaling: bool = True,
        ignore_index: int = -100,
        num_classes: int | None = None,
        reduction: str = "mean",
        backend: str | None = None,
    ) -> None:
        """Fix the settings; each as for `distillation_loss`."""
        super().__init__()
        check_settings(beta, divergence, mix, label_weight, temperature_scaling, ignore_index,
                       num_classes, reduction, backend)  # fmt: skip
        # Numbers as Python's: torch.compile cannot check NumPy's.
        if isinstance(beta, nn.Parameter) or not isinstance(beta, Tensor):
            self.beta = beta if isinstance(beta, Tensor) else float(beta)
        else:
            self.register_buffer("beta", beta)
        self.divergence = divergence
        self.mix = float(mix)
        self.label_weight = float(label_weight)
        self.temperature_scaling = temperature_scaling
        self.ignore_index = int(ignore_index)
        self.num_classes = None if num_classes is None else int(num_classes)
        self.reduction = reduction
        self.backend = backend

    def _settings(self) -> dict:
        return {name: getattr(self, name) for name in _DEFAULTS}

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        denominator: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch; arguments and result as for `distillation_loss`."""
        return distillation_loss(
            student_logits,
            teacher_logits,
            labels,
            mask=mask,
            denominator=denominator,
            **self._settings(),
        )

    if TYPE_CHECKING:  # a type checker takes a module's call for anything
        __call__ = forward

    def extra_repr(self) -> str:
        settings = self._settings().items()
        changed = {k: v for k, v in settings if isinstance(v, Tensor) or v != _DEFAULTS[k]}
        return ", ".join(
            f"{k}=tensor of shape {tuple(v.shape)}" if isinstance(v, Tensor) else f"{k}={v!r}"
            for k, v in changed.items()
        )


_DEFAULTS = DistillationLoss.__init__.__kwdefaults__ or {}
