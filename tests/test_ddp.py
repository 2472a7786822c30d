"""DistributedDataParallel: two processes on halves of a batch make the whole batch's gradient.

In processes of their own, which end without Python's clearing up: a group that is taken down in a
process that goes on can hang for ever (its destructor waits, holding the interpreter's lock, for
threads that want the lock: pytorch issue #56297).
"""

import os
import time

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import kdlab

RANKS, SECONDS = 2, 120
IGNORED = -100
# The first half of the batch has five rows that count, the second has two.
LABELS = torch.tensor([3, 1, 4, 1, 5, IGNORED, IGNORED, 2, IGNORED, 0, IGNORED, IGNORED])


def batch():
    generator = torch.Generator().manual_seed(0)
    x, teacher = (torch.randn(12, n, generator=generator) for n in (5, 9))
    weight = torch.randn(9, 5, generator=generator)
    return x, teacher, weight


def linear(weight):
    model = torch.nn.Linear(5, 9, bias=False)
    model.weight.data.copy_(weight)
    return model


def rank(number, folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=number, world_size=RANKS)
    x, teacher, weight = batch()
    x, teacher, labels = (whole.chunk(RANKS)[number] for whole in (x, teacher, LABELS))
    # DDP takes the mean of the ranks' gradients, so each divides by its share of all that counts.
    count = (labels != IGNORED).sum().float()
    distributed.all_reduce(count)
    made = []
    for denominator in (count / RANKS, None):
        model = DistributedDataParallel(linear(weight))
        loss = kdlab.distillation_loss(
            model(x), teacher, labels, label_weight=0.3, denominator=denominator
        )
        loss.backward()
        made.append(model.module.weight.grad)
    torch.save(made, f"{folder}/{number}.pt")
    distributed.barrier()
    os._exit(0)


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    """Of each rank: with the shared denominator, and with each rank's own."""
    folder = tmp_path_factory.mktemp("ddp")
    running = torch.multiprocessing.start_processes(rank, (str(folder),), RANKS, join=False)
    end = time.monotonic() + SECONDS
    try:
        while not running.join(timeout=1):
            assert time.monotonic() < end, "the ranks have not come to an end"
    finally:
        for process in running.processes:
            process.kill()
    return [torch.load(folder / f"{number}.pt") for number in range(RANKS)]


def test_two_ranks_make_the_gradient_of_the_whole_batch(gradients):
    x, teacher, weight = batch()
    alone = linear(weight)
    kdlab.distillation_loss(alone(x), teacher, LABELS, label_weight=0.3).backward()
    for shared, own in gradients:
        torch.testing.assert_close(shared, alone.weight.grad)
        # The naive way: rows weigh more on the rank where fewer count.
        assert (own - alone.weight.grad).norm() > 0.05 * alone.weight.grad.norm()
