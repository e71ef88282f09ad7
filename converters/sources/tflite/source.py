"""A finished .tflite file as a source: its recurrences become fused ops, all else stays."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

from edgelstm.converters.flatbuffer import Model, Op, Tensor
from edgelstm.converters.inspect import read_file
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.lowering.refuse import Int8Weights, Refused, refuse
from edgelstm.converters.options import ClipPolicy, ConvertOptions, Size
from edgelstm.converters.recurrence.import_tflite import import_tflite
from edgelstm.converters.recurrence.ir import LOOP, topological
from edgelstm.converters.recurrence.pairing import check_told, pair_steps
from edgelstm.converters.report import FUSED_OPS, SourceReport
from edgelstm.converters.sources.graph.masks import padded_inputs
from edgelstm.converters.sources.keras.names import StateHome, StateSlot
from edgelstm.converters.sources.source import Finished
from edgelstm.converters.sources.tflite.reference import GraphReference, SessionReference
from edgelstm.converters.spec import (
    Lowering,
    Precision,
    Recurrence,
    StatePair,
    StatePolicy,
    TensorSpec,
)
from edgelstm.converters.verify import Reference
from edgelstm.errors import OptionError
from edgelstm.runtime.model_file import read_model_file

# The clip that TensorFlow's converter writes into every fused LSTM, whatever the model had.
DEFAULT_CELL_CLIP = 10.0
_FLEX = "Flex"


class TfliteSource:
    """A .tflite file, read once, ready to be re-fused and to be the reference.

    Attributes:
        notes: what the user should know about the file and what became of it.
        sha256: of the file.
    """

    def __init__(self, path: Path, options: ConvertOptions) -> None:
        self._options = options
        content = read_file(path)
        self.path = path
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.notes: list[str] = []
        model = Model.read(content, where=str(path))
        self._flex = any(_flex_ops(model))
        self._spare: tuple[Model, Refused] | None = None  # re-fused already, for the next who asks
        clipped = _default_clips(model)
        if clipped and options.clip is ClipPolicy.DROP_DEFAULT:
            for op in clipped:
                op.set_option("cell_clip", 0.0)
            content = model.to_bytes()
            self.notes.append(
                f"{_ops(len(clipped))}: cell_clip=10, which TensorFlow's converter writes into "
                "every model, is removed, in the reference too."
            )
        elif clipped:
            self.notes.append(
                f"{_ops(len(clipped))} with cell_clip=10, which TensorFlow's converter writes into "
                "every model whatever its source had: --drop-default-clip removes it."
            )
        self._content = content
        self._file = read_model_file(content)
        self._model = Model.read(content, where=str(path))
        self._policy = StatePolicy.CARRY if self._file.variables[0] else StatePolicy.RESET
        if options.state not in (None, self._policy):
            raise OptionError(
                f"The file's states are of the policy '{self._policy.value}', and re-fusing keeps "
                f"them: --state {options.state.value} cannot change it.",
                where=str(path),
                cure="leave --state out, or convert from the model that the file was made of",
            )
        if self._file.variables[0]:
            self.notes.append(
                "The file keeps states from call to call, and so does the written one."
            )

    @property
    def precision(self) -> Precision:
        """How the file's weights and activations are stored."""
        tensors = [t for s in self._model.subgraphs for t in s.tensors]
        if any(t.dtype in ("int8", "uint8") and _quantized(t) and not t.constant for t in tensors):
            return Precision.INT8
        if any(t.dtype == "int16" and _quantized(t) and not t.constant for t in tensors):
            return Precision.INT16
        if any(t.dtype == "int8" and t.constant and _quantized(t) for t in tensors):
            return Precision.DYNAMIC
        halves = any(t.dtype == "float16" and t.constant for t in tensors)
        return Precision.FLOAT16 if halves else Precision.FLOAT32

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The file's inputs, by the names of its first signature, else of its tensors."""
        return tuple(self._spec(name, index) for name, index in self._names(True).items())

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The file's outputs, named likewise."""
        return tuple(self._spec(name, index) for name, index in self._names(False).items())

    def _names(self, inputs: bool) -> dict[str, int]:
        signatures = {s.name: s for s in self._file.signatures if s.subgraph == 0}
        found = signatures.get("serving_default") or next(iter(signatures.values()), None)
        if found is not None:
            return dict(found.inputs if inputs else found.outputs)
        main = self._model.main
        indices = main.inputs if inputs else main.outputs
        return {main.tensor(index).name: index for index in indices}

    def _spec(self, name: str, index: int) -> TensorSpec:
        tensor = self._model.main.tensor(index)
        shape = tuple(None if size < 0 else size for size in tensor.signature)
        return TensorSpec(name, shape, tensor.dtype)

    @property
    def time_axes(self) -> Mapping[str, int]:
        """Axis 1 of the inputs with three axes; 0 of those that a loop reads as they are."""
        swapped = {int(index) for index in self._time_major}
        names = self._names(True)
        return {s.name: int(names[s.name] not in swapped) for s in self.inputs if len(s.shape) >= 3}

    @functools.cached_property
    def _time_major(self) -> list[str]:
        """Inputs [T, B, ...] with open T, by tensor index."""
        graph = import_tflite(self._model).graph
        loops = [node for node in topological(graph.outputs.values()) if node.op == LOOP]
        return [
            index
            for index, value in graph.inputs.items()
            if self._model.main.tensor(int(index)).signature[:1] == (-1,)
            and any(value in loop.inputs for loop in loops)
        ]

    @property
    def output_time_axes(self) -> Mapping[str, int]:
        """The axis of the outputs that have an axis of the inputs' time."""
        axes = self.time_axes
        times = {s.shape[axes[s.name]] for s in self.inputs if s.name in axes}
        axis = max(axes.values(), default=1)
        return {s.name: axis for s in self.outputs if len(s.shape) >= 3 and s.shape[axis] in times}

    @property
    def mask_values(self) -> Mapping[str, float]:
        """Files do not tell."""
        return {}

    @functools.cached_property
    def padded(self) -> frozenset[str]:
        """Inputs by whose values the file may count the valid steps of a row."""
        found = padded_inputs(import_tflite(self._model).graph)
        return frozenset(name for name, index in self._names(True).items() if str(index) in found)

    @property
    def states(self) -> tuple[StatePair, ...]:
        """None: states that the file takes and gives are inputs and outputs like others."""
        return ()

    @property
    def slots(self) -> tuple[StateSlot, ...]:
        """The states that the file keeps from call to call."""
        main = self._model.main
        return tuple(
            StateSlot(
                StatePair(main.tensor(i).name, "", ""), main.tensor(i).signature, StateHome.OP
            )
            for i in self._file.variables[0]
        )

    def report(self) -> SourceReport:
        """What the report says of the source."""
        return SourceReport(
            path=str(self.path), format="a TFLite model", framework="TFLite", sha256=self.sha256
        )

    @property
    def verified_as(self) -> Precision:
        """The precision whose tolerance the written file is held to.

        The same weights give the same results up to float32's rounding, except where products
        quantize what they read.
        """
        return Precision.DYNAMIC if self.precision is Precision.DYNAMIC else Precision.FLOAT32

    def finished(self) -> Finished:
        """The file with its recurrences fused, and what became of each.

        Weights keep their form. Only in a file that needs TensorFlow's Flex delegate, which runs
        next to nowhere, int8 weights that the fused op cannot take are widened.
        """
        _check_options(self._options)
        model, done = self._refused()
        notes = list(done.notes)
        made = {r.name for r in done.recurrences if r.spec is not None}
        kept = [_kept(op) for op in _fused_ops(model) if layer_name(op) not in made]
        custom = sorted({o.custom_code for s in model.subgraphs for o in s.ops if o.custom_code})
        if custom:
            notes.append(f"Operators that need their own delegate stay: {', '.join(custom)}.")
        if not done.recurrences and not kept:
            notes.append("No recurrence was found in the file.")
        states, told = self._paired
        return Finished(
            model,
            (*done.recurrences, *kept),
            self.precision,
            self.verified_as,
            (*notes, *told),
            states=states,
        )

    def _refused(self) -> tuple[Model, Refused]:
        """The file re-fused, for the caller to edit."""
        if self._spare is not None:
            done, self._spare = self._spare, None
            return done
        model = Model.read(self._content, where=str(self.path))
        return model, refuse(model, Int8Weights.WIDEN if self._flex else Int8Weights.KEEP)

    @functools.cached_property
    def needs_flex_after(self) -> bool:
        """Whether operators of TensorFlow's are left when its recurrences are fused."""
        if not self._flex:
            return False
        self._spare = self._refused()
        return any(_flex_ops(self._spare[0]))

    @property
    def ends(self) -> tuple[list[tuple[TensorSpec, int]], list[tuple[TensorSpec, int]]]:
        """Inputs and outputs with their tensor indices."""
        inputs, outputs = self._names(True), self._names(False)
        return (
            [(spec, inputs[spec.name]) for spec in self.inputs],
            [(spec, outputs[spec.name]) for spec in self.outputs],
        )

    @functools.cached_property
    def _paired(self) -> tuple[tuple[StatePair, ...], list[str]]:
        """The states of steps that stand alone, and those that the user told; with notes."""
        imported = import_tflite(self._model)
        found = pair_steps(imported.graph, imported.sizes)
        inputs = {str(index): name for name, index in self._names(True).items()}
        outputs = {str(index): name for name, index in self._names(False).items()}
        proven = {inputs[i]: outputs[o] for i, o in found.items() if i in inputs and o in outputs}
        told = check_told(self._options.states, self.inputs, self.outputs, proven, str(self.path))
        notes = [
            f"{i} and {o} are one state: {why}."
            for pairs, why in (
                (proven, "proven by the LSTM step that reads the one and makes the other"),
                ({i: o for i, o in told.items() if i not in proven}, "told, not proven"),
            )
            for i, o in pairs.items()
        ]
        return tuple(StatePair(i, i, o) for i, o in {**proven, **told}.items()), notes

    def reference(self, policy: StatePolicy) -> Reference:
        """The file as it is, in the interpreter; in TensorFlow where it needs Flex operators."""
        if self._flex:
            return GraphReference(
                self._content, str(self.path), self._names(True), self._names(False), policy
            )
        return SessionReference(self._content, policy)


def _quantized(tensor: Tensor) -> bool:
    found = tensor.quantization
    return found is not None and any(found.scale)


def _flex_ops(model: Model) -> list[Op]:
    return [o for s in model.subgraphs for o in s.ops if o.custom_code.startswith(_FLEX)]


def _fused_ops(model: Model) -> list[Op]:
    return [op for subgraph in model.subgraphs for op in subgraph.ops if op.name in FUSED_OPS]


def _default_clips(model: Model) -> list[Op]:
    return [op for op in _fused_ops(model) if float(op.option("cell_clip")) == DEFAULT_CELL_CLIP]


def _ops(count: int) -> str:
    return "One fused op" if count == 1 else f"{count} fused ops"


def _kept(op: Op) -> Recurrence:
    """A recurrence that the file had fused already."""
    basic = op.name == "LSTM" and int(op.option("kernel_type")) == 1
    weights = op.input(2)
    rows = 0 if weights is None or not weights.shape else int(weights.shape[0])
    name = layer_name(op) if op.name == FUSED_OP else op.output(0).name
    return Recurrence(
        id=-1,
        name=name,
        kind="LSTM",
        lowering=Lowering.STEP if op.name == "LSTM" else Lowering.FUSED,
        reason=f"kept: it is {op.name} already",
        units=rows // 4 if basic else rows,
        source=f"{op.name} in {op.subgraph.name}",
    )


def _check_options(options: ConvertOptions) -> None:
    """Raise for what re-fusing a finished file cannot do."""
    asked = {
        "--batch": options.batch is not Size.SOURCE,
        "--time": options.time is not Size.SOURCE,
        "--architecture": options.architecture is not None,
        "--custom-objects": options.custom_objects is not None,
    }
    for option, given in asked.items():
        if given:
            raise OptionError(
                f"A .tflite file keeps its sizes and its layers: {option} does not apply to it.",
                cure=f"leave {option} out, or convert from the model that the file was made of",
            )
