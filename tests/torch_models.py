"""Saves PyTorch models in every form; a script for a Python with torch, onnx and onnxscript.

    python torch_models.py FOLDER

Each NAME.pt or NAME.pt2 has NAME.npz beside it: inputs as in:NAME and what PyTorch computes of
them as out:NAME.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

# The user's file of --custom-objects for weights.pt and before_1_6.pt.
CODE = """
import torch


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(5, 6, 2, batch_first=True, bidirectional=True)
        self.dense = torch.nn.Linear(12, 3)

    def forward(self, x):
        y, (h, c) = self.lstm(x)
        return self.dense(y), h


def build(weights):
    model = Tagger()
    model.load_state_dict(weights["model"])
    return model
"""

WORDS = """
from typing import Optional

import torch


class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(9, 4)
        self.lstm = torch.nn.LSTM(4, 6)

    def forward(self, words, take: int, scale: Optional[float] = None):
        y, _ = self.lstm(self.embedding(words))
        if scale is not None:
            y = y * scale
        return y[take]


class Step(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = torch.nn.LSTMCell(5, 6)
        self.dense = torch.nn.Linear(6, 2)

    def forward(self, x, h, c):
        h, c = self.cell(x, (h, c))
        return self.dense(h), h, c


class Keeping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.step = Step()
        self.h = torch.zeros(1, 6)
        self.c = torch.zeros(1, 6)

    def forward(self, x):
        y, self.h, self.c = self.step(x, self.h, self.c)
        return y
"""


def main(folder: Path) -> None:
    import torch

    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    sys.path.insert(0, str(folder))
    (folder / "tagger.py").write_text(CODE)
    (folder / "words.py").write_text(WORDS)
    tagger_module = importlib.import_module("tagger")
    words_module = importlib.import_module("words")

    def record(name: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        arrays = {f"in:{k}": v.numpy() for k, v in inputs.items()}
        np.savez(
            folder / f"{name}.npz", **arrays, **{f"out:{k}": v.numpy() for k, v in outputs.items()}
        )

    tagger = tagger_module.Tagger().eval()
    x = torch.randn(3, 7, 5)
    y, h = tagger(x)
    torch.jit.script(tagger).save(folder / "script.pt")
    record("script", {"x": x}, {"output": y, "h": h})
    torch.jit.trace(tagger, torch.zeros(2, 4, 5)).save(folder / "trace.pt")
    record("trace", {"x": x}, {"output": y, "output_1": h})
    held = {"model": tagger.state_dict(), "epoch": 3}
    torch.save(held, folder / "weights.pt")
    torch.save(held, folder / "before_1_6.pt", _use_new_zipfile_serialization=False)
    torch.save(tagger, folder / "pickled.pt")
    batch = torch.export.Dim("batch")
    program = torch.export.export(tagger, (x,), dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, folder / "program.pt2")
    record("program", {"x": x}, {"linear": y, "getitem_1": h})

    words = words_module.Words().eval()
    torch.jit.script(words).save(folder / "words.pt")
    given = torch.randint(0, 9, (7, 3))
    record("words", {"words": given}, {"output": words(given, -1, 2.0)})
    keeping = words_module.Keeping().eval()
    torch.jit.script(keeping).save(folder / "keeping.pt")
    frames = torch.randn(20, 1, 5)
    record("keeping", {"x": frames}, {"y": torch.stack([keeping(frame) for frame in frames])})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
