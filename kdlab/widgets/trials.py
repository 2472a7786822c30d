"""One student from start to end, and what is remembered of it: in memory and, if asked, on disk."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdlab.training import predict
from kdlab.widgets.classroom import Classroom, Settings
from kdlab.widgets.lanes import Runner, Schedule


class Results:
    """Which examples a student got right, by what that came from: a dictionary of plain values.

    A result has two arrays of bool, "held_out" and "test". With a folder, each is a JSON file in it
    that holds the key too, and the arrays as strings of 0 and 1: a file that cannot be read, or
    whose key is another, counts as missing.
    """

    def __init__(self, folder: str | os.PathLike | None = None) -> None:
        self._known: dict[str, dict[str, np.ndarray]] = {}
        self.folder = None if folder is None else Path(folder).expanduser()
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(
                    f"folder: got {str(folder)!r}; expected a folder or room for one ({error})"
                ) from error

    def get(self, key: dict[str, Any]) -> dict[str, np.ndarray] | None:
        name = _name(key)
        if name not in self._known and self.folder is not None:
            try:
                kept = json.loads((self.folder / name).read_text(encoding="utf-8"))
                if kept["key"] == key:
                    self._known[name] = {part: _bits(kept[part]) for part in ("held_out", "test")}
            except (OSError, ValueError, KeyError, TypeError):
                return None
        return self._known.get(name)

    def put(self, key: dict[str, Any], right: dict[str, np.ndarray]) -> None:
        name = _name(key)
        self._known[name] = right
        if self.folder is None:
            return
        # Written aside and moved, so that a reader never meets half a file.
        descriptor, aside = tempfile.mkstemp(dir=self.folder, suffix=".part")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            text = {part: "".join("01"[int(x)] for x in bits) for part, bits in right.items()}
            json.dump({"key": key, **text}, file, indent=1)
        os.replace(aside, self.folder / name)


class Trials:
    """Trains students of one classroom, each at most once for the same circumstances.

    They learn from part of the training set and are asked about the rest of it, held out, and about
    the test set. The split is the same for all.
    """

    def __init__(
        self, room: Classroom, results: Results, *, held_out: int, count: int, batch_size: int
    ) -> None:
        self.room, self._results = room, results
        self._fold = room.fold(held_out)
        self._count, self._batch_size = count, batch_size
        self._digests: dict[tuple, str] = {}

    def right(
        self, part: str, beta: float | None, seed: int, width: int, settings: Settings
    ) -> np.ndarray | None:
        """Which examples of "held_out" or "test" the student gets right; None if not trained."""
        known = self._results.get(self._key(beta, seed, width, settings))
        return None if known is None else known[part]

    def train(self, beta: float | None, seed: int, width: int, settings: Settings) -> Iterator[int]:
        """Train that student: yields the step it has taken; known from its last step on."""
        runner = Runner(
            self._fold,
            Schedule(settings),
            beta,
            seed,
            width=width,
            count=self._count,
            batch_size=self._batch_size,
            every=self._count,
        )
        while runner.step < self._count:
            runner.take_step()
            if runner.step == self._count:
                places = {"held_out": self._fold.data, "test": self.room.data}
                right = {
                    part: (predict(runner.model, data.x_test).argmax(-1) == data.y_test).numpy()
                    for part, data in places.items()
                }
                self._results.put(self._key(beta, seed, width, settings), right)
            yield runner.step

    def _key(self, beta: float | None, seed: int, width: int, settings: Settings) -> dict[str, Any]:
        from kdlab import __version__

        if beta is None:
            # Labels only: what the teacher's term is does not matter.
            settings = Settings(settings.lr, 1.0, "none")
        return {
            "kdlab": __version__,
            "torch": torch.__version__,
            "lesson": self._digest(),
            "student": self._digest(width, seed),
            "beta": beta,
            "seed": seed,
            "width": width,
            "steps": self._count,
            "batch_size": self._batch_size,
            **asdict(settings),
        }

    def _digest(self, *student: int) -> str:
        """Of the data and the teacher's outputs; or of a student (width, seed) before training."""
        if student not in self._digests:
            if student:
                model, _ = self.room.student(*student)
                text, tensors = repr(model), list(model.state_dict().values())
            else:
                data, test = self._fold.data, self.room.data
                text = "lesson"
                tensors = [data.x_train, data.y_train, data.x_test, data.y_test]
                tensors += [self._fold.train_targets, test.x_test, test.y_test]
            self._digests[student] = _hashed(text, tensors)
        return self._digests[student]


def _bits(text: str) -> np.ndarray:
    return np.array([("0", "1").index(digit) for digit in text], dtype=bool)


def _hashed(text: str, tensors: list[Tensor]) -> str:
    sha = hashlib.sha256(text.encode())
    for tensor in tensors:
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        # As bytes: NumPy has no bfloat16.
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(flat.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]


def _name(key: dict[str, Any]) -> str:
    text = json.dumps(key, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24] + ".json"
