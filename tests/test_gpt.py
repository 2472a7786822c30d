"""The small language model: causal, within its context, reproducible."""

import pytest
import torch

from kdlab.gpt import GPT


def test_no_token_sees_a_later_one():
    model, tokens = GPT(20, 16, 2, 2, context=8), torch.randint(0, 20, (3, 8))
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 20
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


def test_positions_matter():
    model = GPT(20, 16, 2, 1, context=8)
    same = model(torch.full((1, 8), 3))
    assert not torch.allclose(same[0, 0], same[0, 7])


def test_generate_extends_within_the_real_vocabulary():
    model, start = GPT(20, 16, 2, 1, context=8), torch.randint(0, 12, (2, 3))

    def run():
        generator = torch.Generator().manual_seed(0)
        return model.generate(start, 30, num_classes=12, generator=generator)

    first = run()
    assert first.shape == (2, 33) and torch.equal(first[:, :3], start)
    assert first.max() < 12 and torch.equal(first, run())


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match=r"^width: "):
        GPT(20, width=10, heads=4)
    with pytest.raises(ValueError, match=r"^tokens: "):
        GPT(20, 16, 2, 1, context=8)(torch.zeros(1, 9, dtype=torch.int64))
