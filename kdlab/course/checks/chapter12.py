"""Exercises of 12_language_model."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlab.course.exercises import Hint, exercise


def _begun(result: object, name: str) -> None:
    if result is None or result is ...:
        raise Hint(f"`{name}` returns nothing yet")


@exercise("12.1", "Nats to bits per byte")
def _(answer: float) -> None:
    bits = float(answer)
    if abs(bits - 3.2 / 1.88) < 0.01:
        raise Hint("those are nats per byte; how many nats is one bit?")
    if abs(bits - 3.2 / math.log(2)) < 0.01:
        raise Hint("those are bits per *token*")
    if abs(bits - 3.2 / math.log(2) / 1.88) > 0.01:
        raise Hint("nats → bits: divide by ln 2; token → byte: divide by the bytes of a token")


@exercise("12.2", "Attention by hand")
def _(causal_attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 5, 4, generator=generator, dtype=torch.float64)
    mixed = causal_attention(query, key, value)
    _begun(mixed, "causal_attention")
    if mixed.shape != query.shape:
        raise Hint(f"(B, H, L, d) → (B, H, L, d); got {tuple(mixed.shape)}")
    if torch.allclose(mixed, F.scaled_dot_product_attention(query, key, value)):
        raise Hint("right, but each position also looks at later ones: mask those scores")
    unscaled = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
    if torch.allclose(mixed, unscaled):
        raise Hint("the scores still need their 1/√d")
    if not torch.allclose(mixed[:, :, 0], value[:, :, 0]):
        raise Hint("the first position sees only itself: its output should be its own value")
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    if not torch.allclose(mixed, expected):
        raise Hint("softmax over the keys (last dimension), after masking the scores with −inf")


@exercise("12.3", "Texts of unequal length")
def _(pad: Callable[[list[list[int]], int], tuple[Tensor, Tensor]]) -> None:
    result = pad([[5, 6, 7], [1, 2, 3, 4, 9], [8], [1, 2, 3, 4]], 4)
    _begun(result, "pad")
    tokens, labels = result
    if tuple(tokens.shape) != (4, 4) or tuple(labels.shape) != (4, 4):
        raise Hint("four texts, length 4: both results are (4, 4)")
    if tokens.tolist() != [[5, 6, 7, 0], [1, 2, 3, 4], [8, 0, 0, 0], [1, 2, 3, 4]]:
        raise Hint("tokens: each text from the left, cut at `length`, filled up with 0")
    if labels[0].tolist() == [5, 6, 7, -100]:
        raise Hint("labels are the *next* tokens: shift by one")
    if labels[1].tolist()[-1] != 9:
        raise Hint("the second text goes on beyond the cut: its last position has a label, 9")
    if labels[0].tolist() != [6, 7, -100, -100] or labels[2].tolist() != [-100] * 4:
        raise Hint("a text's own last token has no next one: −100 there and in the padding")
    if labels[3].tolist() != [2, 3, 4, -100]:
        raise Hint("the fourth text ends at the cut: nothing follows its last token")


@exercise("12.4", "Forward covers, reverse chooses")
def _(best_centre: Callable[[Tensor, bool], float]) -> None:
    classes = torch.arange(21, dtype=torch.float64)
    p = 0.6 * (-((classes - 4) ** 2) / 2).softmax(-1) + 0.4 * (-((classes - 16) ** 2) / 2).softmax(
        -1
    )
    forward, backward = best_centre(p.log(), False), best_centre(p.log(), True)
    _begun(forward, "best_centre")
    _begun(backward, "best_centre")
    if abs(forward - 4) < 0.5 and abs(backward - 8.8) < 0.5:
        raise Hint("it looks as if the two are exchanged: reverse is KL(q ‖ p), weighted by q")
    if abs(forward - 8.8) > 0.15:
        raise Hint(f"forward KL should put c near the *mean* of p, 8.8 here; got {forward:.1f}")
    if abs(backward - 4) > 0.15:
        raise Hint(f"reverse KL should sit on the larger mode, at 4; got {backward:.1f}")


@exercise("12.5", "A student that drafts")
def _(speculative: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]) -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    q = torch.tensor([0.1, 0.4, 0.2, 0.1, 0.2])
    rows = 40_000
    result = speculative(p.expand(rows, 5), q.expand(rows, 5), generator)
    _begun(result, "speculative")
    tokens, accepted = result
    share = torch.bincount(tokens, minlength=5) / rows
    kept = accepted.float().mean().item()
    if torch.allclose(share, q, atol=0.015):
        raise Hint("the tokens are distributed as the *student*: refuse with 1 − p/q, redraw")
    if abs(kept - torch.minimum(p, q).sum().item()) > 0.02:
        raise Hint(f"accepted {kept:.2f} of the drafts; Σ min(p, q) is 0.60 here")
    if not torch.allclose(share, p, atol=0.015):
        raise Hint("after a refusal draw from max(p − q, 0), normalised, not from p")
    with_itself = speculative(p.expand(100, 5), p.expand(100, 5), generator)
    if not with_itself[1].all():
        raise Hint("a student that equals its teacher is never refused")
