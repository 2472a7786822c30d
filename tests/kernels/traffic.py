"""Count what a launch loads and stores, by watching the interpreter's loads and stores."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
from triton._C.libtriton.ir import EVICTION_POLICY
from triton.runtime.interpreter import InterpreterBuilder

LINE = 128  # bytes: the granularity at which a GPU's L2 keeps memory


@dataclass
class Traffic:
    """Bytes loaded and stored; with a cache, loads that it holds cost nothing."""

    loaded: int = 0
    stored: int = 0
    cache: int = 0
    lines: OrderedDict = field(default_factory=OrderedDict)

    @property
    def bytes(self) -> int:
        return self.loaded + self.stored

    def load(self, addresses: np.ndarray, size: int, last: bool) -> None:
        if not self.cache:
            self.loaded += addresses.size * size
            return
        for line in np.unique(addresses // LINE).tolist():  # least recently used goes first
            self.loaded += 0 if line in self.lines else LINE
            self.lines[line] = True
            self.lines.move_to_end(line, last=not last)  # first goes what nobody needs again
            if len(self.lines) > self.cache // LINE:
                self.lines.popitem(last=False)


@contextmanager
def counted(cache: int = 0) -> Iterator[Traffic]:
    """What kernels move inside the block; `cache` is the size in bytes of an LRU cache."""
    traffic = Traffic(cache=cache)
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def size(pointers) -> int:
        return max(1, pointers.get_element_ty().primitive_bitwidth // 8)

    def counting_load(self, pointers, mask, *rest):
        addresses = np.atleast_1d(pointers.data)[np.atleast_1d(mask.data)]
        last = EVICTION_POLICY.EVICT_FIRST in rest or "evict_first" in rest
        traffic.load(addresses, size(pointers), last)
        return load(self, pointers, mask, *rest)

    def counting_store(self, pointers, value, mask, *rest):
        traffic.stored += int(np.sum(mask.data)) * size(pointers)
        return store(self, pointers, value, mask, *rest)

    patched = {"create_masked_load": counting_load, "create_masked_store": counting_store}
    if hasattr(InterpreterBuilder, "get_cache_policy"):  # Triton 3.9 lets it drop the policy
        patched["get_cache_policy"] = lambda self, cache, eviction: eviction
    with patch.multiple(InterpreterBuilder, **patched):
        yield traffic
