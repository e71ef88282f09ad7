"""What a recurrence is, told once: the types that sources, lowerings and reports talk in."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]


class Activation(enum.Enum):
    """Cell activation that the fused op offers; the value is its name in the TFLite schema."""

    TANH = "TANH"
    RELU = "RELU"
    RELU6 = "RELU6"
    RELU_N1_TO_1 = "RELU_N1_TO_1"


class Layout(enum.Enum):
    """Axis order of a sequence tensor."""

    BATCH_MAJOR = "batch_major"  # [B, T, F]
    TIME_MAJOR = "time_major"  # [T, B, F]


class StatePolicy(enum.Enum):
    """What happens to h and c between two calls of the written model."""

    RESET = "reset"  # each call starts from zero
    CARRY = "carry"  # the state persists in the interpreter until it is reset
    EXPLICIT = "explicit"  # h and c are named inputs and outputs


class StepForm(enum.Enum):
    """How a single step of a fused recurrence is written."""

    PLAIN = "plain"  # FULLY_CONNECTED, LOGISTIC, MUL, ...: every runtime has them
    BASIC = "basic"  # the LSTM operator with the basic kernel, which GPU delegates take
    FUSED = "fused"  # the sequence operator over one step; needs variable tensors


class StreamingForms(enum.Enum):
    """Which forms of a model a file for streaming holds."""

    ALL = "all"  # the whole sequence, chunks, and single steps
    STEP = "step"  # single steps only, for runtimes that take no variable tensors


class Precision(enum.Enum):
    """How weights and activations are stored and computed."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"  # weights stored as float16, computed in float32
    DYNAMIC = "dynamic"  # int8 weights, float32 activations ("hybrid")
    INT8 = "int8"
    INT16 = "int16"


class Lowering(enum.Enum):
    """How a recurrence is written into TFLite."""

    FUSED = "fused"
    LOOP = "loop"
    UNROLLED = "unrolled"
    STEP = "step"


@dataclasses.dataclass(frozen=True)
class Gates:
    """One array per gate in the op's gate order: input, forget, cell, output.

    `i` is None where input and forget gates are coupled (i = 1 - f); `c` is None in peepholes,
    which the cell gate does not have.
    """

    i: FloatArray | None
    f: FloatArray
    c: FloatArray | None
    o: FloatArray

    def as_tuple(self) -> tuple[FloatArray | None, ...]:
        return (self.i, self.f, self.c, self.o)


@dataclasses.dataclass(frozen=True)
class LstmSpec:
    """An LSTM that UNIDIRECTIONAL_SEQUENCE_LSTM expresses exactly (TFLite schema, op 44).

    F input size, U cells, O output size (U without projection). All arrays float32.

        z_g = kernel_g x_t + recurrent_g h_{t-1} + peephole_g * c   (g in i, f, o; o sees c_t)
        z_g = layer_norm_g * normalise(z_g) + bias_g   with layer norm, else z_g + bias_g
        c_t = clip(sigmoid(z_f) * c_{t-1} + sigmoid(z_i) * act(z_c), cell_clip)
        h_t = sigmoid(z_o) * act(c_t), or clip(projection h_t + projection_bias, projection_clip)

    Attributes:
        kernel: each [U, F].
        recurrent: each [U, O], or [U] for a diagonal recurrent kernel.
        bias: each [U].
        peephole: i, f, o each [U]; None without peepholes.
        layer_norm: each [U]; None without layer normalisation.
        projection: [O, U] or None; projection_bias: [O] or None.
        cell_clip, projection_clip: 0 means no clipping.
    """

    name: str
    kernel: Gates
    recurrent: Gates
    bias: Gates
    activation: Activation = Activation.TANH
    peephole: Gates | None = None
    layer_norm: Gates | None = None
    projection: FloatArray | None = None
    projection_bias: FloatArray | None = None
    cell_clip: float = 0.0
    projection_clip: float = 0.0
    layout: Layout = Layout.BATCH_MAJOR

    @property
    def units(self) -> int:
        """U, the number of cells."""
        return int(self.kernel.f.shape[0])

    @property
    def input_size(self) -> int:
        """F, the width of the input."""
        return int(self.kernel.f.shape[1])

    @property
    def output_size(self) -> int:
        """O, the width of h."""
        return self.units if self.projection is None else int(self.projection.shape[0])

    @property
    def diagonal(self) -> bool:
        """Whether the recurrent kernel is a vector per gate (IndyLSTM)."""
        return self.recurrent.f.ndim == 1


@dataclasses.dataclass(frozen=True)
class LearnedRanges:
    """Ranges of one LSTM that quantization-aware training learned.

    Attributes:
        precision: that it was trained for, INT8 or INT16.
        x, h: smallest and largest input, and output with hidden state.
        cell: largest |c|.
        batches: how many training batches they were learned from; 0 before any.
    """

    precision: Precision
    x: tuple[float, float]
    h: tuple[float, float]
    cell: float
    batches: int


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """A named model input or output.

    Attributes:
        shape: None for a dimension that may vary from call to call.
        dtype: numpy name, e.g. "float32", "int32".
        low, high: for integers, the half-open range [low, high) of allowed values when known
            (an embedding's vocabulary); None otherwise.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    low: int | None = None
    high: int | None = None


@dataclasses.dataclass(frozen=True)
class Recurrence:
    """One recurrence of the source and what became of it; `id` ties it to its marker op."""

    id: int
    name: str
    kind: str  # "LSTM", "GRU", "ConvLSTM2D", ...
    lowering: Lowering
    reason: str
    units: int
    source: str  # where it stands in the source, e.g. "keras layer bidirectional_1/forward_lstm"
    state: StatePolicy = StatePolicy.RESET
    spec: LstmSpec | None = None  # present when lowering is FUSED
    ranges: LearnedRanges | None = None  # of layers trained for integers
    gate_probes: int = 0  # rows of random x, h and c on which spec and source were compared
    gate_error: float | None = None  # the worst difference among them


@dataclasses.dataclass(frozen=True)
class StatePair:
    """A state's input and output among the model's own, by name."""

    name: str
    input: str
    output: str
