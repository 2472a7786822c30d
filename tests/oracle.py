"""What the tests share: the float64 oracle with its gradient, and plain PyTorch as the peer."""

import math

import torch
from torch.nn import functional as F

from kdlab import reference

DIVERGENCES = ["kl", "reverse_kl", "js", "mse", "mse_logits", "tv"]


def gradients(loss, student, teacher, beta, upstream=None):
    """`loss(student, teacher, beta)` a row, and its gradients for all three (0 where unused)."""
    leaves = [x.detach().clone().requires_grad_() for x in (student, teacher, beta)]
    rows = loss(*leaves)
    upstream = torch.ones_like(rows) if upstream is None else upstream.to(rows.dtype)
    found = torch.autograd.grad(rows, leaves, upstream, allow_unused=True)
    pairs = zip(found, leaves, strict=True)
    return rows.detach(), *(torch.zeros_like(x) if g is None else g for g, x in pairs)


def oracle(student, teacher, labels=None, upstream=None, **settings):
    """Row losses and the student's gradient in float64, from the definition and autograd."""
    s = student.detach().double().requires_grad_()
    rows = reference.distillation_rows(s, teacher.double(), labels, **settings)
    rows.backward(torch.ones_like(rows) if upstream is None else upstream.double())
    return rows.detach(), s.grad


def peer(student, teacher, labels=None, *, beta=1.0, divergence="kl", label_weight=0.0):
    """What people write by hand, in float32 from the same stored logits: losses and gradient."""
    s = student.detach().clone().requires_grad_()
    z_s, z_t = s.float(), teacher.float()
    if divergence == "kl":
        log_q, p = F.log_softmax(beta * z_s, -1), F.softmax(beta * z_t, -1)
        soft = F.kl_div(log_q, p, reduction="none").sum(-1) / beta**2
    elif divergence == "mse":
        soft = (F.softmax(beta * z_s, -1) - F.softmax(beta * z_t, -1)).square().sum(-1) / beta**2
    elif divergence == "reverse_kl":
        log_p, q = F.log_softmax(beta * z_t, -1), F.softmax(beta * z_s, -1)
        soft = F.kl_div(log_p, q, reduction="none").sum(-1) / beta**2
    elif divergence == "js":  # as TRL's GKDTrainer writes it, with β = ½
        log_q, log_p = F.log_softmax(beta * z_s, -1), F.log_softmax(beta * z_t, -1)
        log_m = torch.logsumexp(torch.stack([log_q, log_p]) - math.log(2), 0)
        halves = [F.kl_div(log_m, x, reduction="none", log_target=True) for x in (log_q, log_p)]
        soft = 0.5 * sum(halves).sum(-1) / beta**2
    elif divergence == "tv":
        gap = F.softmax(beta * z_s, -1) - F.softmax(beta * z_t, -1)
        soft = 0.5 * gap.abs().sum(-1) / beta**2
    else:
        soft = (z_s - z_t).square().sum(-1)
    rows = (1 - label_weight) * soft
    if label_weight > 0:
        rows = rows + label_weight * F.cross_entropy(z_s, labels, reduction="none")
    rows.sum().backward()
    return rows.detach(), s.grad


def error(got, exact):
    """‖got − exact‖ / ‖exact‖ over all elements."""
    exact = exact.double()
    return ((got.double() - exact).norm() / exact.norm().clamp_min(1e-300)).item()
