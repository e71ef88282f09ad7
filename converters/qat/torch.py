"""Quantization-aware training in PyTorch.

Like this, from a trained nn.LSTM to a file that Keras and `edgelstm convert` take:

    lstm = QuantizedLSTM.from_float(trained, precision="int8")
    ...  # train it in the place of nn.LSTM
    lstm.export("lstm.npz")

    from edgelstm.converters.qat.keras import from_exchange
    keras.Sequential([keras.Input((None, F)), *from_exchange("lstm.npz")]).save("aware.keras")
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgelstm.converters.qat.exchange import TrainedLstm, write_exchange
from edgelstm.converters.qat.step import IntegerStep, Ranges
from edgelstm.converters.qat.torch_operations import TorchOperations
from edgelstm.converters.spec import LearnedRanges, Precision
from edgelstm.errors import OptionError, UnsupportedModelError

MOMENTUM = 0.95
States = tuple[torch.Tensor, torch.Tensor]


class _Direction(nn.Module):  # type: ignore[misc]
    """One direction of one layer; weights as in nn.LSTM, the two biases as one.

    Both frameworks order the gates i, f, c, o (PyTorch calls c g).
    """

    def __init__(self, features: int, units: int, precision: Precision, momentum: float) -> None:
        super().__init__()
        self.precision, self.momentum, self.units = precision, momentum, units
        self.weight_ih = nn.Parameter(torch.zeros(4 * units, features))
        self.weight_hh = nn.Parameter(torch.zeros(4 * units, units))
        self.bias = nn.Parameter(torch.zeros(4 * units))
        self.register_buffer("x_range", torch.zeros(2))
        self.register_buffer("h_range", torch.tensor([-1.0, 1.0]))
        self.register_buffer("cell_range", torch.tensor(8.0))
        self.register_buffer("batches_seen", torch.tensor(0))

    def forward(self, x: torch.Tensor, states: States, backwards: bool) -> tuple[Any, States]:
        """x [T, B, F] and states [B, U] each to outputs [T, B, U] and last states."""
        with torch.no_grad():
            seen = torch.stack([x.min().clamp(max=0.0), x.max().clamp(min=0.0)])
            if self.training:
                self.x_range.copy_(self._moved(self.x_range, seen))
        x_range = self.x_range if int(self.batches_seen) or self.training else seen
        h_range = self.h_range
        ranges = Ranges(x_range[0], x_range[1], h_range[0], h_range[1], self.cell_range)
        integers = IntegerStep(
            TorchOperations(x.device),
            self.weight_ih.T,
            self.weight_hh.T,
            self.bias,
            ranges,
            self.precision,
        )
        projected = integers.project(x)
        steps = range(len(x) - 1, -1, -1) if backwards else range(len(x))
        h, c = states
        outputs: list[Any] = [None] * len(x)
        low, high, cell = [], [], []
        for number in steps:
            done = integers.step(projected[number], h, c)
            h, c = done.h, done.c
            outputs[number] = h
            low.append(done.raw_h.detach().min())
            high.append(done.raw_h.detach().max())
            cell.append(done.raw_c.detach().abs().max())
        if self.training:
            extremes = torch.stack([torch.stack(low).min(), torch.stack(high).max()])
            self._observe(extremes, torch.stack(cell).max())
        return torch.stack(outputs), (h, c)

    def _observe(self, h: torch.Tensor, cell: torch.Tensor) -> None:
        zero = torch.zeros_like(h)
        h = torch.stack([torch.minimum(h, zero)[0], torch.maximum(h, zero)[1]])
        self.h_range.copy_(self._moved(self.h_range, h))
        # A saturated cell state stays wrong for all steps to come: its range never shrinks.
        known = self.cell_range if int(self.batches_seen) else torch.zeros_like(cell)
        self.cell_range.copy_(torch.maximum(known, cell))
        self.batches_seen += 1

    def _moved(self, old: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        kept = self.momentum if int(self.batches_seen) else 0.0
        return kept * old + (1.0 - kept) * seen

    def trained(self) -> TrainedLstm:
        """Weights and ranges in the layout of the exchange file."""

        def array(values: torch.Tensor) -> Any:
            return np.ascontiguousarray(values.detach().cpu().numpy().astype(np.float32))

        x, h = self.x_range.tolist(), self.h_range.tolist()
        ranges = LearnedRanges(
            self.precision,
            (x[0], x[1]),
            (h[0], h[1]),
            float(self.cell_range),
            int(self.batches_seen),
        )
        return TrainedLstm(
            array(self.weight_ih.T), array(self.weight_hh.T), array(self.bias), ranges
        )


class QuantizedLSTM(nn.Module):  # type: ignore[misc]
    """nn.LSTM that computes what the integer fused operator will compute; see the Keras layer.

    Ranges are learned in `train()` mode and kept in `eval()` mode. Weights are zero until
    `from_float` or `load_state_dict`.

    Args:
        input_size, hidden_size, num_layers, batch_first, dropout, bidirectional: as in nn.LSTM.
        precision: "int8" or "int16", that of the file.
        momentum: share of the old range that a training batch leaves.

    Raises:
        OptionError: another precision.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        precision: str = "int8",
        momentum: float = MOMENTUM,
    ) -> None:
        super().__init__()
        if precision not in (Precision.INT8.value, Precision.INT16.value):
            raise OptionError(
                f"{precision!r} is no precision that an LSTM trains for",
                where="QuantizedLSTM(precision=...)",
                cure="give 'int8' or 'int16'; the other precisions keep float activations",
            )
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.batch_first, self.bidirectional = batch_first, bidirectional
        self.dropout = nn.Dropout(dropout)
        ways = 2 if bidirectional else 1
        self.directions = nn.ModuleList(
            _Direction(
                input_size if layer == 0 else ways * hidden_size,
                hidden_size,
                Precision(precision),
                momentum,
            )
            for layer in range(num_layers)
            for _ in range(ways)
        )

    @staticmethod
    def from_float(
        lstm: nn.LSTM, precision: str = "int8", momentum: float = MOMENTUM
    ) -> QuantizedLSTM:
        """With the weights of a float LSTM, its two biases added together.

        Raises:
            UnsupportedModelError: it has a projection, which a Keras file cannot hold.
        """
        if lstm.proj_size:
            raise UnsupportedModelError(
                "nn.LSTM with a projection (proj_size) has no Keras layer to convert through",
                cure="train without proj_size",
            )
        made = QuantizedLSTM(
            lstm.input_size,
            lstm.hidden_size,
            lstm.num_layers,
            batch_first=lstm.batch_first,
            dropout=lstm.dropout,
            bidirectional=lstm.bidirectional,
            precision=precision,
            momentum=momentum,
        )
        with torch.no_grad():
            for name, direction in zip(made._names(), made.directions, strict=True):
                direction.weight_ih.copy_(getattr(lstm, f"weight_ih_{name}"))
                direction.weight_hh.copy_(getattr(lstm, f"weight_hh_{name}"))
                if lstm.bias:
                    both = getattr(lstm, f"bias_ih_{name}") + getattr(lstm, f"bias_hh_{name}")
                    direction.bias.copy_(both)
        made.to(lstm.weight_ih_l0.device)
        return made

    def forward(self, x: torch.Tensor, states: States | None = None) -> tuple[torch.Tensor, States]:
        """As nn.LSTM on a batch of sequences.

        Args:
            x: float32 [T, B, F], or [B, T, F] with `batch_first`.
            states: h and c, [layers * directions, B, U] each; None for zeros.

        Returns:
            Outputs in the layout of x, last axis directions * U, and the last h and c.
        """
        rows = x.transpose(0, 1) if self.batch_first else x
        ways = 2 if self.bidirectional else 1
        if states is None:
            zeros = x.new_zeros(self.num_layers * ways, rows.shape[1], self.hidden_size)
            states = (zeros, zeros)
        last_h, last_c = [], []
        for layer in range(self.num_layers):
            if layer:
                rows = self.dropout(rows)
            made = []
            for way in range(ways):
                number = layer * ways + way
                start = (states[0][number], states[1][number])
                outputs, (h, c) = self.directions[number](rows, start, way == 1)
                made.append(outputs)
                last_h.append(h)
                last_c.append(c)
            rows = torch.cat(made, dim=-1)
        outputs = rows.transpose(0, 1) if self.batch_first else rows
        return outputs, (torch.stack(last_h), torch.stack(last_c))

    def export(self, path: str | Path) -> None:
        """Writes weights and ranges as the .npz file that `exchange.py` describes."""
        ways = 2 if self.bidirectional else 1
        trained = [direction.trained() for direction in self.directions]
        stack = [trained[at : at + ways] for at in range(0, len(trained), ways)]
        write_exchange(Path(path), stack)

    def _names(self) -> Iterator[str]:
        for layer in range(self.num_layers):
            yield f"l{layer}"
            if self.bidirectional:
                yield f"l{layer}_reverse"
