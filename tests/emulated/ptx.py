"""Run PTX on the CPU: a program's threads side by side in NumPy, an instruction after the other.

Enough of NVIDIA's PTX ISA for what Triton makes of kdlab's kernels. Registers hold bits; types are
in the instructions. Loads and stores reach the memory of torch tensors, and an access that is
outside of all of them, or not aligned to its width, raises: on a GPU it would be a fault, or worse,
none. (What lies between the rows of a view belongs to its tensor.)

Threads whose branches differ run in turns, those furthest behind first, until they meet again.
Nothing here is weaker than a GPU's memory: what one thread writes all others see at once.
"""

import re
import struct
from collections.abc import Callable, Iterator
from functools import reduce

import numpy as np

WARP = 32
FLOAT = {"f16": np.float16, "f32": np.float32, "f64": np.float64}
INTEGER = {
    f"{kind}{bits}": np.dtype(f"{sign}{bits // 8}")
    for kind, sign in (("s", "i"), ("u", "u"), ("b", "u"))
    for bits in (8, 16, 32, 64)
}
REGISTER = {"%rs": np.uint16, "%rd": np.uint64, "%r": np.uint32, "%p": np.bool_}
COMPARE = {
    "eq": np.equal,
    "ne": lambda a, b: (a < b) | (a > b),  # false where one is NaN, as all of these
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
}
COMPARE |= {  # true where one is NaN
    f"{name}u": lambda a, b, of=of: of(a, b) | np.isnan(a) | np.isnan(b)
    for name, of in COMPARE.items()
    if name not in ("nan", "num")
}


class Memory:
    """Buffers by their addresses."""

    def __init__(self):
        self.buffers: list[tuple[int, np.ndarray]] = []

    def add(self, address: int, content: np.ndarray) -> None:
        if content.size:
            self.buffers.append((address, content))

    def place(self, addresses: np.ndarray, width: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The buffer that holds all these, as numbers of `width` bytes, and indices into it."""
        if (addresses % (width * count)).any():
            raise MemoryError(f"{count} × {width} bytes at an address that is no multiple of that")
        first = int(addresses[0])
        for start, content in self.buffers:
            if start <= first < start + content.size:
                offsets = addresses - np.uint64(start)
                if (addresses < start).any() or (offsets + width * count > content.size).any():
                    raise MemoryError("an access outside of its tensor")
                return content[: content.size // width * width].view(f"u{width}"), offsets // width
        raise MemoryError("an access outside of all tensors")


def number(text: str) -> int | None:
    """The bits of a literal, or None."""
    if re.fullmatch(r"0[fFdD][0-9A-Fa-f]+", text):
        return int(text[2:], 16)
    return int(text, 0) if re.fullmatch(r"-?(0x[0-9A-Fa-f]+|\d+)", text) else None


def split(text: str) -> list[str]:
    """Operands, at the commas that are not within braces or brackets."""
    return [part.strip() for part in re.split(r",(?![^{\[]*[}\]])", text) if part.strip()]


def narrow_bf16(x: np.ndarray) -> np.ndarray:
    """float32 to bits of bfloat16, to nearest, ties to even."""
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), 0x7FFF, rounded).astype(np.uint16)


def widen_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Code:
    """An entry of a PTX module: its parameters, labels and instructions."""

    def __init__(self, ptx: str):
        ptx = re.sub(r"//.*", "", ptx)
        entry = re.search(r"\.entry\s+\w+\((.*?)\)(.*?)\{(.*)\}", ptx, re.DOTALL)
        assert entry
        self.parameters = re.findall(r"\.param\s+\.(\w+).*?(\w+)\s*(?:,|$)", entry[1].strip())
        reqntid = re.search(r"\.reqntid\s+(\d+)", entry[2])
        assert reqntid
        self.threads = int(reqntid[1])
        self.labels: dict[str, int] = {}
        self.instructions: list[tuple[str, bool, str, list[str]]] = []
        for line in entry[3].split("\n"):
            line = re.sub(r"^\{ \.reg .*?;\s*(.*)\}$", r"\1", line.strip()).strip()
            if label := re.fullmatch(r"(\$\w+):", line):
                self.labels[label[1]] = len(self.instructions)
            found = re.fullmatch(r"(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)\s*(.*);", line)
            if found:
                self.instructions.append(
                    (found[2] or "", bool(found[1]), found[3], split(found[4]))
                )
            elif line.endswith(";") and not line.startswith("."):
                raise NotImplementedError(line)


class Block:
    """One program: its registers, shared memory, and threads on their ways through the code."""

    def __init__(self, code: Code, parameters: dict, memory: Memory, shared: int, ids: dict):
        self.code, self.parameters, self.memory = code, parameters, memory
        self.shared = Memory()
        self.shared.add(0, np.full(shared, 0xFF, np.uint8))  # NaN until something is written
        self.registers: dict[str, np.ndarray] = {}
        self.special = {"%tid.x": np.arange(code.threads, dtype=np.uint32)}
        self.special |= {name: np.uint32(value) for name, value in ids.items()}

    def run(self) -> Iterator[None]:
        """Runs the program, pausing before and after all that other programs could have changed."""
        ways = {0: np.ones(self.code.threads, bool)}  # where threads are
        while ways:
            at = min(ways)
            here = ways.pop(at)
            predicate, negated, name, operands = self.code.instructions[at]
            active = here
            if predicate:
                condition = self.registers[predicate]
                active = here & (~condition if negated else condition)
            if name.startswith("bra"):
                self.join(ways, self.code.labels[operands[0]], active)
                self.join(ways, at + 1, here & ~active)
                continue
            if name == "ret":
                self.join(ways, at + 1, here & ~active)
                continue
            if name.startswith("bar") and (ways or not here.all()):
                raise RuntimeError("a barrier that not all threads reach together")
            contended = name.startswith("atom") or "acquire" in name or "volatile" in name
            if contended:
                yield
            if name.startswith("atom"):  # each thread's by itself: others may see only some of them
                for thread in np.flatnonzero(active):
                    self.step(name, operands, np.arange(self.code.threads) == thread)
                    yield
            elif active.any():
                self.step(name, operands, active)
                if contended:
                    yield
            self.join(ways, at + 1, here)

    @staticmethod
    def join(ways: dict, at: int, threads: np.ndarray) -> None:
        if threads.any():
            ways[at] = ways[at] | threads if at in ways else threads

    def read(self, text: str, kind: str) -> np.ndarray:
        """An operand as numbers of this type, one a thread or one for all."""
        bits = number(text)
        if bits is not None:
            size = 8 if kind == "pred" else int(re.sub(r"\D", "", kind.replace("bf", "b")))
            raw = np.array(bits & (2**size - 1), f"u{size // 8}")
        elif text in self.special:
            raw = self.special[text]
        elif text == "global_smem":
            raw = np.uint32(0)
        elif text in self.registers:
            raw = self.registers[text]
        else:  # never written: packed into something of which only the rest is used
            raw = np.invert(np.zeros((), self.bits(text)))
        if kind in FLOAT:
            return raw.view(FLOAT[kind])
        if kind in ("bf16", "pred"):
            return raw
        wanted = INTEGER[kind]
        return raw.view(wanted) if raw.dtype.itemsize == wanted.itemsize else raw.astype(wanted)

    @staticmethod
    def bits(register: str) -> np.dtype:
        return np.dtype(next(t for prefix, t in REGISTER.items() if register.startswith(prefix)))

    def write(self, register: str, value: np.ndarray, active: np.ndarray) -> None:
        """Bits of `value` into a register, widened with its sign if it has one."""
        dtype = self.bits(register)
        value = np.broadcast_to(value, active.shape)
        if value.dtype.kind == "f":
            value = np.ascontiguousarray(value).view(f"u{value.dtype.itemsize}")
        value = value.astype(dtype)
        if not active.all():
            value = np.where(active, value, self.registers.get(register, dtype.type(0)))
        self.registers[register] = value

    def step(self, name: str, operands: list[str], active: np.ndarray) -> None:
        base, *modifiers = name.replace("::", "_").split(".")
        kind = modifiers[-1] if modifiers else ""
        if base in ("ld", "st", "atom"):
            self.access(base, modifiers, operands, active)
        elif base == "mov":
            self.move(kind, *operands, active=active)
        elif base == "cvt":
            self.write(operands[0], self.convert(modifiers, operands[1:]), active)
        elif base == "setp":
            self.compare(modifiers, operands, active)
        elif base == "selp":
            choice = self.registers[operands[3]]
            picked = np.where(choice, self.read(operands[1], kind), self.read(operands[2], kind))
            self.write(operands[0], picked, active)
        elif base == "shfl":
            self.shuffle(modifiers, operands, active)
        elif base == "redux":
            assert modifiers[:2] == ["sync", "max"] and active.all(), "another kind of redux"
            lanes = self.read(operands[1], kind).reshape(-1, WARP)
            most = np.fmax.reduce(lanes, axis=1)  # NaN loses
            self.write(operands[0], np.repeat(most, WARP), active)
        elif base == "ldmatrix":
            self.matrices(modifiers, *operands, active=active)
        elif base == "stmatrix":
            self.matrices(modifiers, operands[1], operands[0], active=active, store=True)
        elif base not in ("bar", "createpolicy"):
            self.write(operands[0], self.compute(base, modifiers, operands[1:]), active)

    def compute(self, base: str, modifiers: list[str], operands: list[str]) -> np.ndarray:
        kind = modifiers[-1]
        if "wide" in modifiers:
            wide = np.dtype(INTEGER[kind].kind + "8")
            a, b = (self.read(x, kind).astype(wide) for x in operands[:2])
            product = a * b
            if base == "mul":
                return product
            return product + self.read(operands[2], f"{kind[0]}64")
        if base in ("shl", "shr"):
            x, by = self.read(operands[0], kind), self.read(operands[1], "u32").astype(np.uint8)
            inside = np.minimum(by, x.dtype.itemsize * 8 - 1).astype(x.dtype)
            shifted = x << inside if base == "shl" else x >> inside
            emptied = (by >= x.dtype.itemsize * 8) & (base == "shl" or x.dtype.kind == "u")
            return np.where(emptied, x.dtype.type(0), shifted)
        if base not in COMPUTE:
            raise NotImplementedError(f"the instruction {base}.{'.'.join(modifiers)}")
        if kind == "f32x2":  # two numbers a register, on a B200
            pairs = [self.read(x, "b64").view(np.float32).reshape(-1, 2) for x in operands]
            result = COMPUTE[base](*pairs).astype(np.float32)
            return np.ascontiguousarray(result).view(np.uint64)[:, 0]
        x, *rest = (self.read(operand, kind) for operand in operands)
        if modifiers[-2:] == ["f32", "bf16"]:  # the first is a bfloat16, the result and others not
            x, rest = widen_bf16(x), [self.read(operand, "f32") for operand in operands[1:]]
        return COMPUTE[base](x, *rest).astype(x.dtype)

    def compare(self, modifiers: list[str], operands: list[str], active: np.ndarray) -> None:
        relation, kind = COMPARE[modifiers[0]], modifiers[-1]
        targets = operands[0].split("|")
        if kind in ("bf16", "bf16x2", "f16x2"):
            pair = [self.read(x, "b32" if "x2" in kind else "bf16") for x in operands[1:]]
            halves = [(x & 0xFFFF, x >> 16) for x in map(np.uint32, pair)]
            view = widen_bf16 if "bf" in kind else lambda x: x.astype(np.uint16).view(np.float16)
            for target, a, b in zip(targets, *halves, strict=False):
                self.write(target, relation(view(a), view(b)), active)
            return
        a, b = (self.read(x, kind) for x in operands[1:])
        self.write(targets[0], relation(a, b), active)

    def convert(self, modifiers: list[str], operands: list[str]) -> np.ndarray:
        to, source = modifiers[-2:]
        if to in ("bf16x2", "f16x2"):
            high, low = (self.convert([to[:-2], source], [x]) for x in operands)
            return (high.view(np.uint16).astype(np.uint32) << 16) | low.view(np.uint16)
        x = self.read(operands[0], source)
        if source == "bf16":
            x = widen_bf16(x)
        if to == "bf16":
            return narrow_bf16(x.astype(np.float32))
        return x.astype(FLOAT.get(to) or INTEGER[to])

    def move(self, kind: str, to: str, source: str, *, active: np.ndarray) -> None:
        """Also packing registers into a wider one, and the way back; the first has the low bits."""
        if "{" in source:
            value = np.uint64(0)
            parts = split(source.strip("{} "))
            for i, part in enumerate(parts):
                bits = self.read(part, f"u{int(kind[1:]) // len(parts)}").astype(np.uint64)
                value = value | bits << np.uint64(i * int(kind[1:]) // len(parts))
            self.write(to, value, active)
        elif "{" in to:
            parts = split(to.strip("{} "))
            width = int(kind[1:]) // len(parts)
            value = self.read(source, kind)
            for i, part in enumerate(parts):
                if part.startswith("%"):
                    self.write(part, value >> value.dtype.type(i * width), active)
        else:
            self.write(to, self.read(source, kind), active)

    def shuffle(self, modifiers: list[str], operands: list[str], active: np.ndarray) -> None:
        assert modifiers[:2] == ["sync", "bfly"] and active.all(), "another kind of shuffle"
        lanes = np.arange(active.size) ^ int(number(operands[2]) or 0)
        self.write(operands[0], self.read(operands[1], "b32")[lanes], active)

    def matrices(
        self,
        modifiers: list[str],
        registers: str,
        place: str,
        *,
        active: np.ndarray,
        store: bool = False,
    ) -> None:
        """Matrices of 8 × 8 half words a warp: thread 8 i + j has the address of row j of the i-th,
        and thread t has or gets 4 bytes of row t / 4 of each."""
        assert modifiers[:3] == ["sync", "aligned", "m8n8"] and "trans" not in modifiers
        address = self.address(place, "u32")
        thread = np.arange(active.size)
        for i, register in enumerate(split(registers.strip("{} "))):
            row = address[thread // WARP * WARP + 8 * i + thread % WARP // 4] + 4 * (thread % 4)
            content, index = self.shared.place(row.astype(np.uint64), 4, 1)
            if store:
                content[index] = self.read(register, "b32")
            else:
                self.write(register, content[index], active)

    def address(self, operand: str, kind: str) -> np.ndarray:
        pointer, _, offset = operand.strip("[] ").partition("+")
        base = self.read(pointer.strip(), kind).astype(np.uint64)
        return np.broadcast_to(base + np.uint64(int(offset or 0)), (self.code.threads,))

    def access(
        self, base: str, modifiers: list[str], operands: list[str], active: np.ndarray
    ) -> None:
        kind = modifiers[-1]
        if modifiers[0] == "param":
            self.write(
                operands[0], self.parameters[operands[1].strip("[] ")].astype(INTEGER[kind]), active
            )
            return
        shared = modifiers[0] in ("shared", "shared_cta")
        brackets = next(x for x in operands if x.startswith("["))
        address = self.address(brackets, "u32" if shared else "u64")
        width = int(kind[1:]) // 8
        registers = [x for x in operands if not x.startswith("[")][:1]
        registers = split(registers[0].strip("{} "))
        memory = self.shared if shared else self.memory
        content, index = memory.place(address[active], width, len(registers))
        if base == "atom":
            self.atomic(modifiers, content, index, operands, active)
            return
        for i, register in enumerate(registers):
            if base == "st":
                content[index + i] = np.broadcast_to(
                    self.read(register, f"u{width * 8}"), active.shape
                )[active]
            else:
                loaded = np.zeros(active.shape, content.dtype)
                loaded[active] = content[index + i]
                self.write(register, loaded, active)

    def atomic(
        self,
        modifiers: list[str],
        content: np.ndarray,
        index: np.ndarray,
        operands: list[str],
        active: np.ndarray,
    ) -> None:
        assert "add" in modifiers or "exch" in modifiers, "another kind of atomic operation"
        old = np.zeros(active.shape, content.dtype)
        values = np.broadcast_to(self.read(operands[2], f"u{content.itemsize * 8}"), active.shape)
        for thread, place in zip(np.flatnonzero(active), index, strict=True):
            old[thread] = content[place]
            content[place] = values[thread] + (old[thread] if "add" in modifiers else 0)
        self.write(operands[0], old, active)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """In twice the precision for float32, in what the processor has to offer for float64."""
    return a.astype(np.float64 if a.dtype == np.float32 else np.longdouble) * b + c


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return a / b
    return np.trunc(a.astype(np.float64) / b)  # towards zero


def bit_field(x: np.ndarray, at: np.ndarray, count: np.ndarray) -> np.ndarray:
    """`count` bits from `at` on; of a signed number, the last of them is the sign."""
    above = x.dtype.type(x.dtype.itemsize * 8) - count
    return x << (above - at) >> above


COMPUTE: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mad": lambda a, b, c: a * b + c,
    "fma": fma,
    "div": divide,
    "min": lambda *x: reduce(np.fmin if x[0].dtype.kind == "f" else np.minimum, x),  # NaN loses
    "max": lambda *x: reduce(np.fmax if x[0].dtype.kind == "f" else np.maximum, x),
    "neg": np.negative,
    "abs": np.abs,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "ex2": lambda x: np.exp2(x.astype(np.float64)),
    "lg2": lambda x: np.log2(x.astype(np.float64)),
    "rsqrt": lambda x: 1 / np.sqrt(x.astype(np.float64)),
    "rcp": lambda x: 1 / x,
    "bfe": bit_field,
}


def pack(kind: str, value: object) -> np.ndarray:
    """A kernel's argument as the bits that a register would hold."""
    letter = {"f64": "d", "f32": "f"}.get(kind)
    if letter:
        bits = struct.unpack("Q" if kind == "f64" else "I", struct.pack(letter, value))[0]
        return np.array(bits, np.uint64 if kind == "f64" else np.uint32)
    return np.array(int(value) & (2 ** int(kind[1:]) - 1), f"u{int(kind[1:]) // 8}")  # type: ignore[call-overload]
