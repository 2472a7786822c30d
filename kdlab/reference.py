"""Each formula once, in plain PyTorch, the way the paper or the article writes it.

These functions are the definition that everything else is tested against. They keep whole tensors
of probabilities in memory and let autograd find the gradients; they are for reading and for
checking, not for speed. All work on the last dimension and in the dtype they are given, so
`.double()` inputs make them a float64 oracle.
"""

import torch
from torch import Tensor


def log_soften(logits: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """log softmax(β z): the softened log-probabilities, same shape as `logits`."""
    return torch.log_softmax(beta * logits, dim=-1)


def soften(logits: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """softmax(β z) = softmax(z / T): the softened probabilities, same shape as `logits`.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, equation 1.

    >>> soften(torch.tensor([2.0, 0.0]), beta=0.5)
    tensor([0.7311, 0.2689])
    """
    return log_soften(logits, beta).exp()


def kl(student_logits: Tensor, teacher_logits: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q), with p the softened teacher and q the softened student.

    A class that the teacher masks (logit −inf, so p = 0) contributes nothing, since x log x → 0. A
    class that only the student masks makes the divergence +inf.
    Hinton, Vinyals, Dean 2015, section 2, with the teacher's entropy that they leave out.

    >>> kl(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor(0.1109)
    """
    log_q, log_p = log_soften(student_logits, beta), log_soften(teacher_logits, beta)
    masked = teacher_logits == -torch.inf
    return (log_p.exp() * (log_p - log_q).masked_fill(masked, 0.0)).sum(-1)


def reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, beta: float | Tensor = 1.0
) -> Tensor:
    """KL(q ‖ p) = Σ q (log q − log p): the student is punished for what the teacher would not say.

    Gu, Dong, Wei, Huang, "MiniLLM: Knowledge Distillation of Large Language Models", ICLR 2024,
    equation 1.

    >>> reverse_kl(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor(0.1201)
    """
    return kl(teacher_logits, student_logits, beta)


def js(
    student_logits: Tensor,
    teacher_logits: Tensor,
    beta: float | Tensor = 1.0,
    mix: float = 0.5,
) -> Tensor:
    """mix · KL(p ‖ m) + (1 − mix) · KL(q ‖ m) with m = mix · p + (1 − mix) · q: generalised JS.

    mix = ½ is the Jensen-Shannon divergence, at most log 2. Where both sides mask a class the value
    is right, but autograd's gradient is NaN.
    Agarwal et al., "On-Policy Distillation of Language Models: Learning from Self-Generated
    Mistakes" (GKD), ICLR 2024, equation 1; their β is `mix` here.

    >>> js(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor(0.0285)
    """
    q, p = soften(student_logits, beta), soften(teacher_logits, beta)
    m = mix * p + (1 - mix) * q
    # x log x → 0: xlogy is 0 where a class is masked
    to_p = torch.xlogy(p, p) - torch.xlogy(p, m)
    to_q = torch.xlogy(q, q) - torch.xlogy(q, m)
    return (mix * to_p + (1 - mix) * to_q).sum(-1)


def tv(student_logits: Tensor, teacher_logits: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """½ ‖p − q‖₁: total variation, the largest difference in probability of any set of classes.

    Wen, Li, Du, Mou, "f-Divergence Minimization for Sequence-Level Knowledge Distillation", ACL
    2023, use it to distil language models.

    >>> tv(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor(0.2311)
    """
    return 0.5 * (soften(teacher_logits, beta) - soften(student_logits, beta)).abs().sum(-1)


def mse(student_logits: Tensor, teacher_logits: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """Σ (p − q)²: the article's squared norm (section 3.2.3) on softened outputs.

    >>> mse(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor(0.1068)
    """
    return (soften(teacher_logits, beta) - soften(student_logits, beta)).square().sum(-1)


def mse_logits(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Σ (z_t − z_s)²: the article's squared norm (section 3.2.3) on raw outputs.

    Classes that both mask (−inf) contribute nothing.
    Ba, Caruana, "Do Deep Nets Really Need to be Deep?", 2014, equation 1, is the same up to ½.

    >>> mse_logits(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 2.0]))
    tensor(5.)
    """
    both_masked = (teacher_logits == -torch.inf) & (student_logits == -torch.inf)
    return (teacher_logits - student_logits).masked_fill(both_masked, 0.0).square().sum(-1)


def cross_entropy(student_logits: Tensor, labels: Tensor) -> Tensor:
    """−log softmax(z_s)[label]: the hard-label term, at T = 1.

    >>> cross_entropy(torch.tensor([0.0, 0.0]), torch.tensor(1))
    tensor(0.6931)
    """
    log_q = log_soften(student_logits)
    return -log_q.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def l_teach(teacher_outputs: Tensor, student_outputs: Tensor) -> Tensor:
    """L_teach = (1/N) Σᵢ ‖yᵢ − ŷᵢ‖²: the article's distillation loss (sections 3.2.3 and 3.3.2).

    y are the large model's outputs and ŷ the sub-model's, both (N, V). The norm sums over classes,
    so this is V times what `torch.nn.MSELoss` gives.

    >>> l_teach(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.zeros(2, 2))
    tensor(2.5000)
    """
    return (teacher_outputs - student_outputs).square().sum(-1).mean()


_SOFTENED = {"kl": kl, "reverse_kl": reverse_kl, "mse": mse, "tv": tv}


def distillation_rows(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    beta: float | Tensor = 1.0,
    divergence: str = "kl",
    mix: float = 0.5,
    label_weight: float = 0.0,
    temperature_scaling: bool = True,
) -> Tensor:
    """(1 − α) T² D(p, q) + α CE(z_s, label), for each row: shape (...,) from logits (..., V).

    >>> distillation_rows(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]), beta=0.5)
    tensor([0.4438])
    """
    row_beta = beta.unsqueeze(-1) if isinstance(beta, Tensor) and beta.dim() else beta
    if divergence in _SOFTENED:
        soft = _SOFTENED[divergence](student_logits, teacher_logits, row_beta)
    elif divergence == "js":
        soft = js(student_logits, teacher_logits, row_beta, mix)
    elif divergence == "mse_logits":
        soft = mse_logits(student_logits, teacher_logits)
    else:
        raise ValueError(f"divergence: no reference formula for {divergence!r}")
    if temperature_scaling and divergence != "mse_logits":
        soft = soft / beta**2
    if label_weight == 0:
        return soft
    if labels is None:
        raise ValueError(f"labels: got None; label_weight={label_weight} needs them")
    hard = cross_entropy(student_logits, labels)
    return hard if label_weight == 1 else (1 - label_weight) * soft + label_weight * hard
