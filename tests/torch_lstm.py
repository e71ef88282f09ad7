"""Trains nn.LSTM for integers; a script for a Python with torch and numpy.

    python torch_lstm.py FOLDER PRECISION

Writes FOLDER/lstm.npz (the exchange file) and FOLDER/io.npz: x [B, T, F]; `float`, what nn.LSTM
gives; `quantized`, what the module gives before training; `trained`, `h` and `c` what it gives
afterwards; `losses` while it trained; `gradients`, their norms by weight.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

FEATURES, UNITS, STEPS = 5, 6, 3


def main(folder: Path, precision: str) -> None:
    import torch

    from edgelstm.converters.qat.torch import QuantizedLSTM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    lstm = torch.nn.LSTM(FEATURES, UNITS, 2, bidirectional=True, batch_first=True)
    x = torch.randn(4, 5, FEATURES)
    with torch.no_grad():
        plain = lstm(x)[0]
    made = QuantizedLSTM.from_float(lstm, precision)
    made.eval()
    with torch.no_grad():
        quantized = made(x)[0]
    made.train()
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    losses, gradients = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = ((made(x)[0] - 0.3) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        gradients = [float(p.grad.norm()) for p in made.parameters()]
    made.eval()
    with torch.no_grad():
        trained, (h, c) = made(x)
    made.export(folder / "lstm.npz")
    arrays = {"x": x, "float": plain, "quantized": quantized, "trained": trained, "h": h, "c": c}
    np.savez(
        folder / "io.npz",
        losses=np.asarray(losses),
        gradients=np.asarray(gradients),
        **{name: tensor.numpy() for name, tensor in arrays.items()},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
