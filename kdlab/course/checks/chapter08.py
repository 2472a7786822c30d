"""Exercises of 08_hints."""

import torch
from torch import nn

from kdlab import data, metrics, models
from kdlab.course.exercises import Hint, exercise
from kdlab.training import predict, train


@exercise("8.1", "What the regressor costs")
def _(regressor_parameters) -> None:
    for guided, hint in ((32, 256), (3, 7)):
        answer = regressor_parameters(guided, hint)
        if answer is None or answer is ...:
            raise Hint("the function returns nothing yet; how many weights has nn.Linear(2, 3)?")
        if answer == guided * hint:
            raise Hint("the weights are right; what else does a linear layer learn?")
        if answer == (hint + 1) * guided:
            raise Hint("turned round: the biases belong to the outputs, the hint's side")
        if answer != metrics.parameter_count(nn.Linear(guided, hint)):
            raise Hint(f"for {guided} → {hint}: got {answer}; count nn.Linear({guided}, {hint})")


class _Counting(nn.Sequential):
    """Counts its forward passes."""

    passes = 0

    def forward(self, x):
        self.passes += 1
        return super().forward(x)


@exercise("8.2", "Several layers in one pass")
def _(tap) -> None:
    torch.manual_seed(0)
    model = _Counting(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.randn(7, 4)
    layers = [model[3], model[0], model[2]]
    with torch.no_grad():
        expected = [model[:4](x), model[:1](x), model[:3](x)]
    model.passes = 0
    answer = tap(model, layers, x)
    if answer is None or answer is ...:
        raise Hint("the function returns nothing yet; start with register_forward_hook on each")
    if model.passes != 1:
        raise Hint(f"the model ran {model.passes} times; one pass is enough for all layers")
    left = sum(len(module._forward_hooks) for module in model.modules())
    if left:
        raise Hint(f"{left} hooks are still on the model; keep the handles and remove them")
    if len(answer) != 3:
        raise Hint(f"it returns {len(answer)} outputs for 3 layers")
    if all(torch.equal(a, answer[0]) for a in answer):
        raise Hint("every entry is the same layer's output: does each hook know its own number?")
    if any(a.shape != b.shape or not torch.allclose(a, b) for a, b in zip(answer, expected)):  # noqa: B905
        raise Hint("the outputs should come in the order of `layers`, not in the order of running")
    if any(a.requires_grad for a in answer):
        raise Hint("the outputs carry gradients; run the model under torch.no_grad()")


@exercise("8.3", "The hint loss")
def _(hint_loss) -> None:
    torch.manual_seed(0)
    regressor = nn.Linear(3, 5)
    guided, hint = torch.randn(8, 3), torch.randn(8, 5, requires_grad=True)
    expected = (hint - regressor(guided)).square().sum().item() / 16
    answer = hint_loss(guided, hint, regressor)
    if answer is None or answer is ...:
        raise Hint("the function returns nothing yet; what does the regressor make of `guided`?")
    if answer.dim():
        raise Hint(f"it returns the shape {tuple(answer.shape)}; a mean over rows is one number")
    if abs(answer.item() - 2 * expected) < 1e-4:
        raise Hint("twice too large: the ½")
    if abs(answer.item() - expected / 5) < 1e-4:
        raise Hint("the norm is a sum over the hint's entries; only the rows are averaged")
    if abs(answer.item() - expected) > 1e-4:
        raise Hint(f"got {answer.item():.4f}, expected {expected:.4f} for one random case")
    answer.backward()
    if hint.grad is not None:
        raise Hint("a gradient reached the hint: the teacher would be trained too")
    if regressor.weight.grad is None:
        raise Hint("no gradient reaches the regressor; what did you detach?")


@exercise("8.4", "Their λ, our α")
def _(label_weight) -> None:
    for lam in (1.0, 4.0, 0.25, 0.0):
        alpha = label_weight(lam)
        if alpha is None or alpha is ...:
            raise Hint("the function returns nothing yet; divide CE + λS by something")
        if lam and abs(alpha - lam / (1 + lam)) < 1e-9 and lam != 1:
            raise Hint("that is 1 − α, the weight of the soft term")
        if abs(alpha - 1 / (1 + lam)) > 1e-9:
            raise Hint(f"λ = {lam:g}: got α = {alpha:g}; the ratio (1 − α)/α should be λ")


@exercise("8.5", "Get the deep student to work")
def _(train_deep) -> None:
    everything = data.digits()
    torch.manual_seed(1)
    teacher = models.MLP(64, [256, 256], 10)
    train(teacher, everything, epochs=15, lr=3e-3, progress=False)
    student = train_deep(teacher, everything.subset(200, seed=1))
    if student is None or student is ...:
        raise Hint("the function returns nothing yet; begin with the deep student of the notebook")
    linear = [m for m in student.modules() if isinstance(m, nn.Linear)]
    if len(linear) < 9:
        raise Hint(f"{max(len(linear) - 1, 0)} hidden linear layers; at least eight, please")
    if max(m.out_features for m in linear) > 32:
        raise Hint("a hidden layer is wider than 32")
    right = metrics.accuracy(predict(student, everything.x_test), everything.y_test)
    if right < 0.85:
        raise Hint(f"{right:.0%} right, 85 % wanted; does the signal survive eight layers?")
