import math

import pytest
import torch

from kdlab import chunks


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def several_chunks(monkeypatch):
    """A function that makes small problems go in several chunks, with three threads: all for each
    chunk, or, `crowded`, each for its own."""
    before = torch.get_num_threads()

    def prepare(crowded):
        torch.set_num_threads(3)
        monkeypatch.setattr(chunks, "CORE_ELEMENTS", 5)
        monkeypatch.setattr(chunks, "THREAD_ELEMENTS", 10)
        monkeypatch.setattr(chunks, "THREADED_ELEMENTS", 1)
        monkeypatch.setattr(chunks, "SLOW_MS", math.inf)
        monkeypatch.setattr(chunks, "_crowded_until", math.inf if crowded else 0.0)

    yield prepare
    torch.set_num_threads(before)
