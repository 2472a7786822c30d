"""Who is measured. Each peer is the loss as its users write it, end to end from logits.

Every loss is T² D(p, q), the mean over rows, with p = softmax(z_t / T) and q = softmax(z_s / T).
The eager forms stay in the dtype of the logits, as most hand-written losses do; "eager fp32" is
the careful form for half precision, which converts first.
"""

import importlib.util
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

import kdlab
from kdlab import functional

TEMPERATURE = 2.0
MIX = 0.5
Loss = Callable[[Tensor, Tensor], Tensor]


def _kl(z_s: Tensor, z_t: Tensor) -> Tensor:
    log_q, p = F.log_softmax(z_s / TEMPERATURE, -1), F.softmax(z_t / TEMPERATURE, -1)
    return F.kl_div(log_q, p, reduction="batchmean") * TEMPERATURE**2


def _reverse_kl(z_s: Tensor, z_t: Tensor) -> Tensor:
    log_q, log_p = F.log_softmax(z_s / TEMPERATURE, -1), F.log_softmax(z_t / TEMPERATURE, -1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * TEMPERATURE**2


def _js(z_s: Tensor, z_t: Tensor) -> Tensor:
    log_q, log_p = F.log_softmax(z_s / TEMPERATURE, -1), F.log_softmax(z_t / TEMPERATURE, -1)
    shares = torch.tensor([MIX, 1 - MIX], device=z_s.device, dtype=log_q.dtype).log()
    log_m = torch.logsumexp(torch.stack([log_p + shares[0], log_q + shares[1]]), 0)
    to_teacher = F.kl_div(log_m, log_p, reduction="batchmean", log_target=True)
    to_student = F.kl_div(log_m, log_q, reduction="batchmean", log_target=True)
    return (MIX * to_teacher + (1 - MIX) * to_student) * TEMPERATURE**2


def _mse(z_s: Tensor, z_t: Tensor) -> Tensor:
    q, p = F.softmax(z_s / TEMPERATURE, -1), F.softmax(z_t / TEMPERATURE, -1)
    return F.mse_loss(q, p, reduction="sum") / z_s.shape[0] * TEMPERATURE**2


def _mse_logits(z_s: Tensor, z_t: Tensor) -> Tensor:
    return F.mse_loss(z_s, z_t, reduction="sum") / z_s.shape[0]


def _tv(z_s: Tensor, z_t: Tensor) -> Tensor:
    q, p = F.softmax(z_s / TEMPERATURE, -1), F.softmax(z_t / TEMPERATURE, -1)
    return 0.5 * (q - p).abs().sum(-1).mean() * TEMPERATURE**2


EAGER = {
    "kl": _kl,
    "reverse_kl": _reverse_kl,
    "js": _js,
    "mse": _mse,
    "mse_logits": _mse_logits,
    "tv": _tv,
}


def _eager(divergence: str) -> Loss:
    return EAGER[divergence]


def _eager_fp32(divergence: str) -> Loss:
    return lambda z_s, z_t: EAGER[divergence](z_s.float(), z_t.float())


def _compiled(divergence: str) -> Loss:
    return torch.compile(EAGER[divergence], dynamic=False)


def _liger(divergence: str) -> Loss:
    """Liger's losses take (log-)probabilities: making them from logits is part of the price."""
    from liger_kernel.transformers.jsd import LigerJSD
    from liger_kernel.transformers.kl_div import LigerKLDIVLoss
    from liger_kernel.transformers.tvd import LigerTVDLoss

    kl, tv = LigerKLDIVLoss(reduction="batchmean"), LigerTVDLoss(reduction="batchmean")
    jsd = LigerJSD(beta=1.0 if divergence == "reverse_kl" else MIX)

    def loss(z_s: Tensor, z_t: Tensor) -> Tensor:
        x_s, x_t = z_s / TEMPERATURE, z_t / TEMPERATURE
        if divergence == "kl":
            value = kl(F.log_softmax(x_s, -1), F.softmax(x_t, -1))
        elif divergence == "tv":
            value = tv(F.softmax(x_s, -1), F.softmax(x_t, -1))
        else:
            value = jsd(F.log_softmax(x_s, -1), F.log_softmax(x_t, -1))
        return value * TEMPERATURE**2

    return loss


def _kdlab(divergence: str) -> Loss:
    return lambda z_s, z_t: kdlab.distillation_loss(
        z_s, z_t, beta=1 / TEMPERATURE, divergence=divergence, mix=MIX
    )


def _kdlab_that_makes_its_gradient(in_forward: bool) -> Callable[[str], Loss]:
    """kdlab with `gradient_in_forward` overruled: these two say what that rule should say."""

    def rule(student: Tensor, *_: object) -> bool:
        return in_forward and student.requires_grad and torch.is_grad_enabled()

    def make(divergence: str) -> Loss:
        def loss(z_s: Tensor, z_t: Tensor) -> Tensor:
            with patch.object(functional, "gradient_in_forward", rule):
                return _kdlab(divergence)(z_s, z_t)

        return loss

    return make


PEERS: dict[str, Callable[[str], Loss]] = {
    "eager": _eager,
    "eager fp32": _eager_fp32,
    "torch.compile": _compiled,
    "liger": _liger,
    "kdlab": _kdlab,
    "kdlab, gradient in forward": _kdlab_that_makes_its_gradient(in_forward=True),
    "kdlab, gradient in backward": _kdlab_that_makes_its_gradient(in_forward=False),
}


def not_run(peer: str, divergence: str, dtype: str, device: str) -> str | None:
    """Why this peer can't be measured here, or None."""
    if peer == "eager fp32" and dtype == "fp32":
        return "not run: the same as eager"
    if "gradient in" in peer and (device == "cpu" or dtype == "fp16"):
        return "not run: the rule has no choice to make here"
    if peer == "liger":
        if divergence in ("mse", "mse_logits"):
            return "not run: Liger has no such loss"
        if device == "cpu":
            return "not run: needs a GPU"
        if importlib.util.find_spec("liger_kernel") is None:
            return "not run: liger-kernel is not installed"
    return None
