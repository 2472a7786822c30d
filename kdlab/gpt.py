"""A small language model of the GPT kind, whole: embeddings, causal attention, MLPs, a head.

Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2), 2019: normalisation
before each block, learned positions, GELU. Attention is PyTorch's own fused kernel.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)): (B, L, width) → (B, L, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, width / heads)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm_2(x))


class GPT(nn.Module):
    """Tokens (B, L) int64 in [0, vocabulary) → logits (B, L, vocabulary) of each next token.

    The head is the embedding, transposed (weight tying: Press and Wolf, "Using the Output Embedding
    to Improve Language Models", EACL 2017). Raises ValueError where width is no multiple of heads,
    or L is above `context`.

    >>> GPT(vocabulary=50, width=16, heads=2, layers=1)(torch.zeros(2, 8, dtype=torch.int64)).shape
    torch.Size([2, 8, 50])
    """

    def __init__(
        self, vocabulary: int, width: int = 64, heads: int = 4, layers: int = 2, context: int = 64
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width: got {width}; expected a multiple of heads={heads}")
        self.context = context
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        for embedding in (self.token, self.position):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[-1]
        if length > self.context:
            raise ValueError(f"tokens: got length {length}; expected at most {self.context}")
        x = self.token(tokens) + self.position.weight[:length]
        return F.linear(self.norm(self.blocks(x)), self.token.weight)

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        count: int,
        *,
        beta: float = 1.0,
        num_classes: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """`count` more tokens for each row of `tokens` (B, L), each drawn from softmax(β z).

        Only the first `num_classes` tokens can be drawn. Returns (B, L + count).
        """
        for _ in range(count):
            logits = self(tokens[:, -self.context :])[:, -1, :num_classes]
            drawn = torch.multinomial(torch.softmax(beta * logits, -1), 1, generator=generator)
            tokens = torch.cat((tokens, drawn), dim=1)
        return tokens
