"""A driver for Triton whose device is `ptx.py`: kernels are compiled for a GPU and run on the CPU.

Everything up to the launch is Triton's own: how arguments are bound and specialised, the compiler,
its cache. Only tensors on the CPU can be arguments.
"""

import ctypes
import random
from itertools import islice
from types import SimpleNamespace

import numpy as np
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.cache import get_cache_manager

from tests.emulated.ptx import Block, Code, Memory, pack


class Launcher:
    """A compiled kernel, called by Triton with a grid and arguments."""

    resident = 1  # programs at a time; more than one take turns, at random
    rng = random.Random(0)
    most_turns = 100_000

    def __init__(self, src, metadata):
        files = get_cache_manager(metadata.hash).get_group(f"{metadata.name}.json")
        with open(files[f"{metadata.name}.ptx"]) as file:
            self.code = Code(file.read())
        self.given = [kind != "constexpr" for kind in src.signature.values()]
        self.shared = metadata.shared

    def __call__(self, x, y, z, _stream, _function, _packed, _metadata, _enter, _exit, *arguments):
        arguments = [a for a, given in zip(arguments, self.given, strict=True) if given]
        parameters, memory = {}, Memory()
        for (kind, name), value in zip(self.code.parameters, [*arguments, 0, 0], strict=True):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                buffer = (ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr())
                memory.add(storage.data_ptr(), np.frombuffer(buffer, np.uint8))
                value = value.data_ptr()
            parameters[name] = pack(kind, value)
        sizes = {f"%nctaid.{axis}": n for axis, n in zip("xyz", (x, y, z), strict=True)}
        programs = (
            Block(
                self.code,
                parameters,
                memory,
                self.shared,
                sizes | {"%ctaid.x": i, "%ctaid.y": j, "%ctaid.z": k},
            ).run()
            for k in range(z)
            for j in range(y)
            for i in range(x)
        )
        self.run(programs)

    def run(self, programs):
        """As on a GPU, the next program starts where one has ended."""
        working, speeds = [], []
        with np.errstate(all="ignore"):
            for _ in range(self.most_turns):
                for program in islice(programs, self.resident - len(working)):
                    working.append(program)
                    speeds.append(1.0)
                if not working:
                    return
                (i,) = self.rng.choices(range(len(working)), speeds)
                speeds[i] = 10 ** self.rng.uniform(-2, 0)  # now and then one is slow
                if next(working[i], self) is self:
                    del working[i], speeds[i]
        raise TimeoutError(f"{len(working)} programs wait for each other")


class Driver:
    """The device: a GPU of this architecture (90: an H100)."""

    launcher_cls = Launcher
    utils = SimpleNamespace(
        load_binary=lambda name, *_: (name, name, 0, 0, 1024),
        get_device_properties=lambda _: {"max_shared_mem": 227 * 1024},
    )

    def __init__(self, architecture=90):
        self.architecture = architecture

    def get_current_target(self):
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self):
        return f"emulated sm_{self.architecture}"

    def get_current_stream(self, _device):
        return 0
