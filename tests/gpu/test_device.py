"""The kernels on a GPU: right at real sizes, past 2³¹ elements, every time, and without waiting."""

from unittest.mock import patch

import pytest
import torch

import kdlab
from kdlab import functional
from kdlab.arguments import DIVERGENCES
from tests.oracle import error, oracle

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
# What float32 arithmetic may add to the rounding of the result's own dtype.
SLACK = 2e-5


def logits(machine, rows, classes, dtype=torch.bfloat16, near=False, seed=0):
    """Student and teacher; near: a student that has almost learned its teacher."""
    generator = torch.Generator(machine.device).manual_seed(seed)

    def draw(scale):
        out = torch.empty(rows, classes, dtype=dtype, device=machine.device)
        return out.normal_(0, scale, generator=generator)

    teacher = draw(3)
    student = teacher + draw(0.02) if near else draw(3)
    return student.requires_grad_(), teacher


def loss(student, teacher, **settings):
    return kdlab.distillation_loss(student, teacher, backend="triton", **settings)


def loss_and_grad(student, teacher, **settings):
    value = loss(student, teacher, reduction="none", **settings)
    return value.detach(), torch.autograd.grad(value.sum(), student)[0]


def sum_and_grad(student, teacher, **settings):
    """The gradient made in forward, whatever the rule says of the divergence."""
    with patch.object(functional, "gradient_in_forward", lambda *_: True):
        value = loss(student, teacher, reduction="sum", **settings)
    return value.detach(), torch.autograd.grad(value, student)[0]


def check(student, teacher, rows=None, value_error=SLACK, in_forward=False, **settings):
    """Values and gradients of these rows (all, if None) against float64."""
    if in_forward:
        with torch.no_grad():
            value = loss(student, teacher, reduction="none", **settings)
        total, grad = sum_and_grad(student, teacher, **settings)
        torch.testing.assert_close(total, value.sum(), rtol=1e-4, atol=0)
    else:
        value, grad = loss_and_grad(student, teacher, **settings)
    rows = slice(None) if rows is None else torch.tensor(rows, device=student.device)
    s = student.detach()[rows]
    if "labels" in settings:
        settings["labels"] = settings["labels"][rows]
    exact, exact_grad = oracle(s, teacher[rows], **settings)
    assert error(value[rows], exact) <= value_error
    # Half precision rounds the gradient once more when it is stored: to nearest on the device; the
    # interpreter of a dry run cuts bfloat16 towards zero, up to one unit in the last place.
    stored = 1.05 * error(exact_grad.to(grad.dtype), exact_grad)
    if not grad.is_cuda and grad.dtype == torch.bfloat16:
        stored = 2**-7
    assert error(grad[rows], exact_grad) <= stored + SLACK


def test_more_than_2_to_the_31_elements(machine):
    machine.need_memory(24)
    rows, classes = machine.size(20_000, 9), machine.size(128_256, 300)
    assert machine.dry or rows * classes > 2**31
    crossing = machine.size(2**31 // 128_256, 4)
    student, teacher = logits(machine, rows, classes)
    some = [0, crossing - 1, crossing, crossing + 1, rows - 1]
    check(student, teacher, rows=some, beta=0.5)
    check(student, teacher, rows=some, beta=0.5, in_forward=True)


@pytest.mark.parametrize(
    ("rows", "classes"),
    [(2048, 9_008), (4096, 32_000), (1024, 128_256), (8, 262_144), (300, 50_257)],
)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_gradient_made_in_forward(machine, rows, classes, divergence):
    rows, classes = machine.size(rows, 3), machine.size(classes, 8_300)  # longer than a tile
    student, teacher = logits(machine, rows, classes)
    check(student, teacher, rows=[0, rows - 1], in_forward=True, divergence=divergence)
    labels = torch.randint(0, classes, (rows,), device=machine.device)
    settings = {"labels": labels, "label_weight": 0.3, "beta": 0.5, "divergence": divergence}
    check(student, teacher, rows=[0, 1, rows // 2, rows - 1], in_forward=True, **settings)


@pytest.mark.parametrize("in_forward", [False, True], ids=["backward", "in forward"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_divergence_in_every_dtype(machine, divergence, dtype, in_forward):
    student, teacher = logits(machine, 32, machine.size(32_000, 260), dtype)
    check(student, teacher, in_forward=in_forward, divergence=divergence, beta=0.5)


@pytest.mark.parametrize("divergence", ["kl", "js"])
@pytest.mark.parametrize("classes", [1, 10, 1000, 50_257, 128_256, 262_144])
def test_every_width(machine, divergence, classes):
    student, teacher = logits(machine, 16, machine.size(classes, min(classes, 137)))
    check(student, teacher, divergence=divergence, beta=0.5)


@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "mse"])
def test_a_student_near_its_teacher_keeps_its_digits(machine, divergence):
    student, teacher = logits(machine, 64, machine.size(32_000, 260), near=True)
    # The value itself is some 10⁻⁵ of the terms that it is the sum of.
    check(student, teacher, value_error=1e-3, divergence=divergence)


@pytest.mark.parametrize("once", [loss_and_grad, sum_and_grad], ids=["backward", "in forward"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_nothing_between_equals(machine, divergence, once):
    student, _ = logits(machine, 16, machine.size(32_000, 260))
    value, grad = once(student, student.detach(), divergence=divergence, beta=0.3)
    assert (value == 0).all() and (grad == 0).all()


@pytest.mark.parametrize("rows", [1, 8])
def test_few_rows_of_a_huge_vocabulary(machine, rows):
    student, teacher = logits(machine, rows, machine.size(262_144, 2_000), torch.float32)
    labels = torch.randint(0, student.shape[1], (rows,), device=machine.device)
    check(student, teacher, labels=labels, label_weight=0.3, beta=0.5)


@pytest.mark.parametrize("once", [loss_and_grad, sum_and_grad], ids=["backward", "in forward"])
@pytest.mark.parametrize(("rows", "classes"), [(4096, 32_000), (8, 262_144), (300, 50_257)])
@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_the_same_bits_every_time(machine, rows, classes, divergence, once):
    rows, classes = machine.size(rows, 3), machine.size(classes, 200)
    # In turn, so that whoever reads too early finds the other's numbers in reused memory.
    pairs = [logits(machine, rows, classes, seed=seed) for seed in (0, 1)]
    first = [once(*pair, divergence=divergence, beta=0.5) for pair in pairs]
    for _ in range(machine.size(15, 1)):
        for pair, expected in zip(pairs, first, strict=True):
            again = once(*pair, divergence=divergence, beta=0.5)
            assert torch.equal(again[0], expected[0]) and torch.equal(again[1], expected[1])


def test_strides(machine):
    rows, classes = machine.size(512, 4), machine.size(32_000, 120)
    wide, teacher = logits(machine, rows, classes + 24)
    student = wide.detach()[:, 8 : classes + 8].requires_grad_()
    check(student, teacher[:, :classes], rows=[0, rows - 1])  # padded rows
    odd = wide.detach()[:, 3 : classes + 3].requires_grad_()
    check(odd, teacher[:, 5 : classes + 5], rows=[0, rows - 1])  # rows that no wide load can start
    columns = wide.detach().T[: rows - 1].requires_grad_()  # the last dimension has a stride
    check(columns, teacher.T[: rows - 1], rows=[0, rows - 2])
    wide = wide.detach().requires_grad_()
    cut = loss(wide[:, :classes], teacher[:, :classes])
    whole = loss(wide, teacher, num_classes=classes)  # without a copy of the gradient
    assert torch.equal(whole, cut)
    assert torch.equal(torch.autograd.grad(whole, wide)[0], torch.autograd.grad(cut, wide)[0])


def test_masked_classes_and_rows(machine):
    classes = machine.size(40_000, 300)
    student, teacher = logits(machine, 8, classes)
    with torch.no_grad():
        student[0, : classes // 2] = teacher[0, : classes // 2] = -torch.inf  # whole first tiles
        teacher[1, classes // 3 :] = -torch.inf
        student[2, 5] = torch.nan
        student[3] = teacher[3] = torch.nan
    mask = torch.tensor([True, True, True, False] + [True] * 4, device=machine.device)
    labels = torch.full((8,), classes - 1, device=machine.device)
    settings = {"labels": labels, "label_weight": 0.2, "mask": mask, "beta": 0.5}
    value, grad = loss_and_grad(student, teacher, **settings)
    plain = kdlab.distillation_loss(student, teacher, reduction="none", backend="torch", **settings)
    (plain_grad,) = torch.autograd.grad(plain.sum(), student)
    assert value.isnan().tolist() == [False, False, True] + [False] * 5
    assert (grad[3] == 0).all() and (grad[0, : classes // 2] == 0).all()
    torch.testing.assert_close(value, plain.detach(), rtol=1e-4, atol=1e-5, equal_nan=True)
    torch.testing.assert_close(grad, plain_grad, rtol=1e-2, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("divergence", ["kl", "mse", "tv"])
def test_masked_classes_and_rows_in_forward(machine, divergence):
    """Many rows, so that most of a team's members need no care, and some do."""
    rows, classes = machine.size(600, 6), machine.size(40_000, 8_304)
    student, teacher = logits(machine, rows, classes)
    with torch.no_grad():
        student[::7, : classes // 2] = teacher[::7, : classes // 2] = -torch.inf
        teacher[1::7, classes // 3 :] = -torch.inf
        student[2], teacher[3] = torch.nan, torch.nan
    mask = torch.arange(rows, device=machine.device) % 6 != 2
    mask[3] = False
    labels = torch.full((rows,), classes - 1, device=machine.device)
    settings = dict(labels=labels, label_weight=0.2, mask=mask, beta=0.5, divergence=divergence)
    total, grad = sum_and_grad(student, teacher, **settings)
    plain = kdlab.distillation_loss(student, teacher, reduction="sum", backend="torch", **settings)
    (plain_grad,) = torch.autograd.grad(plain, student)
    torch.testing.assert_close(total, plain.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad, plain_grad, rtol=1e-2, atol=1e-6)
    assert (grad[~mask] == 0).all()


def test_inputs_stay_and_a_second_backward_agrees(machine):
    student, teacher = logits(machine, 64, machine.size(32_000, 200))
    before = student.detach().clone(), teacher.clone()
    value = loss(student, teacher, beta=0.5)
    (first,) = torch.autograd.grad(value, student, retain_graph=True)
    (second,) = torch.autograd.grad(value, student)
    assert torch.equal(first, second)
    assert torch.equal(student.detach(), before[0]) and torch.equal(teacher, before[1])


def test_nothing_waits_for_the_device(machine, cuda_only):
    student, teacher = logits(machine, 256, 32_000)
    labels = torch.randint(0, 32_000, (256,), device=machine.device)
    mask = labels > 100
    beta = torch.full((256,), 0.5, device=machine.device)
    settings = {"labels": labels, "mask": mask, "beta": beta, "label_weight": 0.3}
    loss(student, teacher, **settings).backward()  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(student, teacher, **settings).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("rows", "classes"), [(256, 32_000), (8, 262_144)])
def test_a_cuda_graph_replays_with_new_data(machine, cuda_only, rows, classes):
    student, teacher = logits(machine, rows, classes)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            torch.autograd.grad(loss(student, teacher, beta=0.5), student)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(student, teacher, beta=0.5)
        (grad,) = torch.autograd.grad(value, student)
    with torch.no_grad():
        student.copy_(logits(machine, rows, classes, seed=1)[0])
    graph.replay()
    expected = loss(student, teacher, beta=0.5)
    (expected_grad,) = torch.autograd.grad(expected, student)
    torch.cuda.synchronize()
    assert torch.equal(value, expected) and torch.equal(grad, expected_grad)


def test_torch_compile_keeps_the_numbers(machine, cuda_only):
    student, teacher = logits(machine, 64, 32_000)

    @torch.compile(fullgraph=True)
    def step(student, teacher):
        return loss(2 * student, teacher, beta=0.5)

    compiled = step(student, teacher)
    (grad,) = torch.autograd.grad(compiled, student)
    eager = loss(2 * student, teacher, beta=0.5)
    (eager_grad,) = torch.autograd.grad(eager, student)
    torch.testing.assert_close(compiled, eager)
    torch.testing.assert_close(grad, eager_grad)


def test_mixed_dtypes_and_autocast(machine):
    student, teacher = logits(machine, 32, machine.size(32_000, 200))
    check(student, teacher.float() * 1.001, beta=0.5)
    with torch.autocast(machine.device.type, dtype=torch.bfloat16):
        inside = loss(student, teacher, beta=0.5)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(student, teacher, beta=0.5))


def test_views_and_tensors_of_inference_mode(machine):
    """Masks and labels that memory does not hold as they are, and a teacher that autograd won't
    save as it is."""
    rows, classes = 32, machine.size(32_000, 200)
    student, teacher = logits(machine, rows, classes)
    labels = torch.arange(2 * rows, device=machine.device)[::2]
    mask = (torch.arange(2 * rows, device=machine.device) < rows)[::2]
    with torch.inference_mode():
        guessed = teacher.clone()
    for reduction in ("sum", "none"):
        given = dict(reduction=reduction, label_weight=0.5)
        dense = loss(student, teacher, labels=labels.clone(), mask=mask.clone(), **given).sum()
        views = loss(student, guessed, labels=labels, mask=mask, **given).sum()
        assert torch.equal(views, dense)
        assert torch.equal(*(torch.autograd.grad(x, student)[0] for x in (views, dense)))
    alone = loss(student, teacher, mask=mask, reduction="none")
    assert torch.equal(alone, loss(student, teacher, mask=mask.clone(), reduction="none"))


def test_a_second_gpu(machine, cuda_only):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    student, teacher = logits(machine, 32, 1000)
    other = student.detach().to("cuda:1").requires_grad_()
    value, grad = loss_and_grad(other, teacher.to("cuda:1"))
    assert torch.equal(value.cpu(), loss_and_grad(student, teacher)[0].cpu())
    assert grad.device.index == 1
