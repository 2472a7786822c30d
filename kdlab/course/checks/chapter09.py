"""Exercises of 09_prune_then_distil."""

import warnings

import torch
from torch import Tensor, nn

from kdlab import data, metrics, models
from kdlab.course.exercises import Hint, exercise
from kdlab.training import predict, train

_EMPTY = "the function returns nothing yet"


@exercise("9.1", "Sparsity")
def _(sparsity) -> None:
    masks = [torch.ones(2, 2), torch.zeros(10, 10), torch.eye(3)]
    answer = sparsity(masks)
    if answer is None or answer is ...:
        raise Hint(f"{_EMPTY}; count the zeros, and all entries, over all masks")
    answer = float(answer)
    expected = 106 / 113
    if abs(answer - (1 - expected)) < 1e-6:
        raise Hint("that is the share kept")
    if abs(answer - sum(1 - m.mean().item() for m in masks) / 3) < 1e-6:
        raise Hint("the mean of the layers' shares; the large mask should count for more")
    if abs(answer - expected) > 1e-6:
        raise Hint(f"for masks with 106 zeros of 113 entries it says {answer:.3f}")


@exercise("9.2", "Exactly so many")
def _(magnitude_mask) -> None:
    generator = torch.Generator().manual_seed(0)
    ties = torch.tensor([[1.0, -1.0, 1.0], [0.5, -1.0, 1.0]])
    for weight, count in ((torch.randn(7, 5, generator=generator), 9), (ties, 3)):
        mask = magnitude_mask(weight.clone(), count)
        if mask is None or mask is ...:
            raise Hint(f"{_EMPTY}; topk finds the largest entries of a flat tensor")
        if not isinstance(mask, Tensor) or mask.shape != weight.shape:
            raise Hint("the mask should be a tensor with the weight's shape")
        if not ((mask == 0) | (mask == 1)).all():
            raise Hint("a mask holds zeros and ones only")
        if int(mask.sum()) != count:
            raise Hint(f"asked for {count} ones, got {int(mask.sum())}; what about equal sizes?")
        kept, cut = weight.abs()[mask == 1], weight.abs()[mask == 0]
        if kept.min() < cut.max():
            raise Hint("a weight was kept though a larger one was cut; is the sign in the way?")


@exercise("9.3", "The surgeon's rule")
def _(spliced) -> None:
    weight = torch.tensor([0.1, -0.1, 0.5, -0.5, 0.9, -0.9, 0.8])
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    answer = spliced(mask.clone(), weight.clone(), 0.3, 0.8)
    if answer is None or answer is ...:
        raise Hint(f"{_EMPTY}; torch.where takes a condition and two values, and can be nested")
    answer = answer.float()
    if answer[:2].any():
        raise Hint("below `low` the mask is 0, whatever it was")
    if answer[5] == 0:
        raise Hint("a weight of −0.9 with high = 0.8 comes back: the size counts, not the sign")
    if answer[6] == 0:
        raise Hint("|w| = high counts as restored")
    if not torch.equal(answer[2:4], mask[2:4]):
        raise Hint("between the thresholds the mask stays as it was: that is its memory")
    if not torch.equal(answer, torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0])):
        raise Hint(f"got {answer.tolist()} for weights {[round(w, 1) for w in weight.tolist()]}")


@exercise("9.4", "Does it pay?")
def _(csr_bytes) -> None:
    for rows, columns, nonzero in ((10, 64, 37), (128, 128, 800)):
        answer = csr_bytes(rows, columns, nonzero)
        if answer is None or answer is ...:
            raise Hint(f"{_EMPTY}; look at values(), col_indices() and crow_indices()")
        flat = torch.zeros(rows * columns)
        flat[:nonzero] = 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Sparse CSR tensor support is in beta"
            matrix = flat.reshape(rows, columns).to_sparse_csr()
        parts = (matrix.values(), matrix.col_indices(), matrix.crow_indices())
        expected = sum(part.numel() * part.element_size() for part in parts)
        if answer == expected - 8:
            raise Hint("a row pointer is missing: there is one more of them than rows")
        if answer == 4 * nonzero:
            raise Hint("those are the values alone; where they stand has to be stored too")
        if answer != expected:
            raise Hint(f"{rows} × {columns} with {nonzero} values: {expected} bytes, got {answer}")


@exercise("9.5", "Four in a hundred")
def _(prune) -> None:
    digits = data.digits()
    torch.manual_seed(1)
    dense = models.MLP(64, [128, 128], 10)
    train(dense, digits, epochs=20, lr=3e-3, progress=False)
    before = [p.detach().clone() for p in dense.parameters()]
    pruned = prune(dense, digits)
    if pruned is None or pruned is ...:
        raise Hint(f"{_EMPTY}; begin with a copy of `dense` and its smallest weights")
    if any(not torch.equal(a, b) for a, b in zip(before, dense.parameters())):  # noqa: B905
        raise Hint("the dense model was changed; work on a copy")
    shapes = [m.weight.shape for m in pruned.modules() if isinstance(m, nn.Linear)]
    if shapes != [m.weight.shape for m in dense.modules() if isinstance(m, nn.Linear)]:
        raise Hint("the layout differs: prune weights, do not remove layers or units")
    matrices = [m.weight for m in pruned.modules() if isinstance(m, nn.Linear)]
    kept = sum(int((w != 0).sum()) for w in matrices) / sum(w.numel() for w in matrices)
    if kept > 0.04:
        raise Hint(f"{kept:.1%} of the weights are not zero; 4 % are allowed. Masked at the end?")
    right = metrics.accuracy(predict(pruned, digits.x_test), digits.y_test)
    if right < 0.85:
        raise Hint(f"{right:.0%} right, 85 % wanted; cut in several steps and train in between")
