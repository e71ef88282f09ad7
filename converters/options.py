"""The choices of one conversion, as the command line and Python give them."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path

from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.graph_io import GraphIo
from edgelstm.converters.quantize.input_form import InputForm
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.quantize.plan import Plan, coarsest
from edgelstm.converters.quantize.rounding import RoundingPolicy
from edgelstm.converters.quantize.rows import RowRounding
from edgelstm.converters.spec import Array, Precision, StatePolicy, StepForm, StreamingForms
from edgelstm.runtime.normalisation import Constants


class Target(enum.Enum):
    """What a written file is to run on."""

    CPU = "cpu"  # the Interpreter
    GPU = "gpu"  # LiteRT's GPU accelerator, all of it
    COMPILED = "compiled"  # LiteRT's CompiledModel
    TFLM = "tflm"  # TensorFlow Lite Micro


class Size(enum.Enum):
    """A batch or time size that is not a number."""

    SOURCE = "source"  # as the source has it
    DYNAMIC = "dynamic"
    ONE = "one"  # 1 where the source leaves it open


class CodePolicy(enum.Enum):
    """Whether code that stands in the model file may run (Lambda layers)."""

    REFUSE = "refuse"
    ALLOW = "allow"


class NanPolicy(enum.Enum):
    """What to do with NaN or infinite weights."""

    REFUSE = "refuse"
    KEEP = "keep"


class FusePolicy(enum.Enum):
    """Whether a recurrence that does not fuse is an error."""

    PREFER = "prefer"
    REQUIRE = "require"


class OverwritePolicy(enum.Enum):
    """What to do when the output file exists."""

    KEEP = "keep"
    REPLACE = "replace"


class ClipPolicy(enum.Enum):
    """What to do with cell_clip=10 in a .tflite source, which TensorFlow's converter writes."""

    KEEP = "keep"
    DROP_DEFAULT = "drop default"


class MeasurePolicy(enum.Enum):
    """Whether it is measured what quantization costs, per layer, gate and step."""

    SKIP = "skip"
    TRY = "try"  # where something is quantized; a failure is a note
    REQUIRE = "require"


class RangeSource(enum.Enum):
    """Where ranges of int8 and int16 activations come from."""

    CALIBRATION = "calibration"  # data that run through the model
    MODEL = "from-model"  # its LSTM layers learned theirs in training; the rest from data


@dataclasses.dataclass(frozen=True)
class TensorChoice:
    """A tensor that the user makes an input.

    Attributes:
        shape: None for a size that varies; None altogether where the graph says it.
    """

    name: str
    shape: tuple[int | None, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Streaming:
    """What a file that is to be streamed holds."""

    forms: StreamingForms = StreamingForms.ALL
    step: StepForm = StepForm.PLAIN


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """How to convert. Defaults are those of `edgelstm convert`.

    Attributes:
        precision: of everything; with a plan, its coarsest.
        plan: of each layer; None for one precision.
        state: None follows the source: `carry` for stateful Keras layers, else `reset`.
        batch, time: a number fixes the size; `Size.SOURCE` keeps what the source has.
        inputs, outputs: tensors of a graph; none for the graph's own.
        fix: values of constants and placeholders of a graph, as text, by name.
        states: outputs by the inputs that they are the next value of, as the user tells them.
        data: inputs by name for verification, besides random ones.
        calibration: what int8 and int16 take their ranges from; other precisions need none.
        ranges: where ranges come from; observer: how those of data are chosen.
        rounding: how weights of int8 and int16 layers are rounded.
        input_form: how int8 layers take an input that is float32 in the file.
        graph_io: what a quantized model takes and gives.
        rows: how fused ops in dynamic precision round what they multiply.
        streaming: None writes one form of the model.
        normalisation: what the file tells of its inputs and outputs by name; nothing is computed
            with it here.
        measure: takes `data`, else `calibration`, else random numbers.
        tolerance: largest error relative to an output's range; None takes the precision's own.
    """

    precision: Precision = Precision.FLOAT32
    state: StatePolicy | None = None
    batch: int | Size = Size.SOURCE
    time: int | Size = Size.SOURCE
    inputs: tuple[TensorChoice, ...] = ()
    outputs: tuple[str, ...] = ()
    fix: Mapping[str, str] = dataclasses.field(default_factory=dict)
    states: Mapping[str, str] = dataclasses.field(default_factory=dict)
    architecture: Path | None = None
    custom_objects: Path | None = None
    code: CodePolicy = CodePolicy.REFUSE
    nan: NanPolicy = NanPolicy.REFUSE
    fuse: FusePolicy = FusePolicy.PREFER
    overwrite: OverwritePolicy = OverwritePolicy.KEEP
    data: Mapping[str, Array] | None = None
    tolerance: float | None = None
    calibration: CalibrationData | None = None
    ranges: RangeSource = RangeSource.CALIBRATION
    observer: ObserverKind = ObserverKind.AUTO
    rounding: RoundingPolicy = RoundingPolicy.CALIBRATED
    input_form: InputForm = InputForm.AUTO
    graph_io: GraphIo = GraphIo.FLOAT
    clip: ClipPolicy = ClipPolicy.KEEP
    rows: RowRounding = RowRounding.SYMMETRIC
    streaming: Streaming | None = None
    normalisation: Mapping[str, Constants] = dataclasses.field(default_factory=dict)
    measure: MeasurePolicy = MeasurePolicy.SKIP
    plan: Plan | None = None
    target: Target = Target.CPU

    def __post_init__(self) -> None:
        if self.plan is not None:
            object.__setattr__(self, "precision", self.plan.coarsest)

    @property
    def step_only(self) -> bool:
        """Whether single steps and nothing else are written."""
        return self.streaming is not None and self.streaming.forms is StreamingForms.STEP

    @property
    def quantization(self) -> Plan:
        """The precision of each layer, and how it takes its input."""
        plan = dataclasses.replace(self.plan or Plan.of(self.precision), form=self.input_form)
        # Integers leave nothing to split.
        if self.graph_io is not GraphIo.FLOAT:
            plan = plan.without_automatic_forms()
        return plan

    @property
    def recurrences_as(self) -> Precision:
        """The coarsest precision of a recurrence: some forms of it need float32 weights."""
        return coarsest(self.quantization.of_recurrences)
