"""What is inside a .tflite file: its recurrences, how they are written, signatures and sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgelstm.converters.flatbuffer import Model, Op, Subgraph, Tensor, schema
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.options import RangeSource, Target
from edgelstm.converters.report import SignatureReport
from edgelstm.converters.spec import Lowering, Precision, StatePolicy, TensorSpec
from edgelstm.errors import UnreadableModelError
from edgelstm.runtime.metadata import parse_metadata
from edgelstm.runtime.normalisation import read_constants

METADATA = "edgelstm"
METADATA_FORMAT = 1

_BIDIRECTIONAL, _STEP, _WHILE = "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "WHILE"
# The clip that TensorFlow's converter writes into every fused LSTM, whatever the model had.
_STOCK_CELL_CLIP = 10.0
_BASIC_KERNEL = 1
_CURE = "give the path of a .tflite file"


@dataclasses.dataclass(frozen=True)
class WrittenByUs:
    """What our metadata say of a file.

    Attributes:
        calibrated_steps: how long the calibration data went on; None where no range comes of them.
        calibrated_from: the fewest steps of a call that ranges hold for; None for any number.
    """

    precision: Precision
    state_policy: StatePolicy
    ranges: RangeSource
    target: Target
    calibrated_steps: int | None = None
    calibrated_from: int | None = None


def inspect_model(path: Path) -> dict[str, Any]:
    """A JSON object about a .tflite file.

    Keys: recurrences (name, kind, lowering, reason, units, precision, source each), signatures,
    ops (count by name), bytes, precision and state_policy (None without our metadata),
    normalisation (mean and std by input or output, or None), metadata (ours, or None), subgraphs (count), flex (names of operators that need TensorFlow's delegate),
    notes.

    Raises:
        UnreadableModelError: the file is missing, a folder, empty, damaged, or no TFLite model.
    """
    data = read_file(path)
    model = Model.read(data, where=str(path))
    ours = read_metadata(model)
    recurrences = _from_metadata(ours)
    if recurrences is None:
        recurrences = find_recurrences(model)
    ops = model.op_counts()
    flex = sorted(name for name in ops if name.startswith("Flex"))
    return {
        "recurrences": recurrences,
        "signatures": {name: each.to_json() for name, each in signatures_of(model).items()},
        "ops": ops,
        "bytes": len(data),
        "precision": None if ours is None else ours.get("precision"),
        "state_policy": None if ours is None else ours.get("state_policy"),
        "normalisation": _normalisation(ours),
        "metadata": ours,
        "subgraphs": len(model.subgraphs),
        "flex": flex,
        "notes": _notes(recurrences, flex),
    }


def written_by_us(path: Path) -> WrittenByUs:
    """Precision and state policy of a file that this tool wrote.

    Raises:
        UnreadableModelError: the file is no TFLite model, or holds no metadata of ours.
    """
    ours = read_metadata(Model.read(read_file(path), where=str(path)))
    try:
        if ours is not None:
            return WrittenByUs(
                Precision(ours["precision"]),
                StatePolicy(ours["state_policy"]),
                RangeSource(ours.get("ranges", RangeSource.CALIBRATION.value)),
                Target(ours.get("target", Target.CPU.value)),
                _steps(ours.get("calibrated_steps")),
                _steps(ours.get("calibrated_from")),
            )
    except (KeyError, ValueError, TypeError):
        pass
    raise UnreadableModelError(
        "the file does not say how it was converted: it holds no EdgeLSTM metadata",
        where=str(path),
        cure="verify a file that `edgelstm convert` wrote",
    )


def _steps(told: object) -> int | None:
    return told if isinstance(told, int) and told > 0 else None


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        UnreadableModelError: it is missing, a folder, or cannot be read.
    """
    where = str(path)
    if path.is_dir():
        raise UnreadableModelError("this is a folder, not a .tflite file", where=where, cure=_CURE)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableModelError("the file does not exist", where=where, cure=_CURE) from None
    except OSError as error:
        raise UnreadableModelError(
            f"the file cannot be read: {error.strerror}",
            where=where,
            cure="check the path and who may read it",
        ) from None


def read_metadata(model: Model) -> dict[str, Any] | None:
    """Our metadata; None when the file has none, or none that this version understands."""
    try:
        found = parse_metadata(model.metadata.get(METADATA), "")
    except UnreadableModelError:
        return None
    return None if found is None or found.get("format") != METADATA_FORMAT else found


def _normalisation(ours: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        constants = read_constants(ours, "")
    except UnreadableModelError:
        return None
    return {name: own.to_json() for name, own in constants.items()} or None


def _from_metadata(ours: dict[str, Any] | None) -> list[dict[str, Any]] | None:
    report = None if ours is None else ours.get("report")
    found = report.get("recurrences") if isinstance(report, dict) else None
    if isinstance(found, list) and all(isinstance(entry, dict) for entry in found):
        return found
    return None


def find_recurrences(model: Model) -> list[dict[str, Any]]:
    """The recurrences that the operators themselves show, in execution order."""
    found = []
    for subgraph in model.subgraphs:
        for op in subgraph.ops:
            if op.name == FUSED_OP:
                found.append(_sequence(op))
            elif op.name == _BIDIRECTIONAL:
                found.append(_bidirectional(op))
            elif op.name == _STEP:
                found.append(_step(op))
            elif op.name == _WHILE:
                found.append(_loop(model, op))
    return found


def _entry(
    op: Op, *, name: str, kind: str, lowering: Lowering, reasons: list[str], units: int,
    precision: str,
) -> dict[str, Any]:  # fmt: skip
    return {
        "name": name,
        "kind": kind,
        "lowering": lowering.value,
        "reason": "; ".join(reasons),
        "units": units,
        "precision": precision,
        "source": f"{op.name} in {op.subgraph.name}",
    }


def _sequence(op: Op) -> dict[str, Any]:
    return _entry(
        op,
        name=layer_name(op),
        kind="LSTM",
        lowering=Lowering.FUSED,
        reasons=_clips(op),
        units=_rows(op.input(2)),
        precision=_precision(op, 0, 4),
    )


def _bidirectional(op: Op) -> dict[str, Any]:
    merged = " merged into one output" if op.option("merge_outputs") else ""
    return _entry(
        op,
        name=op.output(0).name if op.outputs else op.name,
        kind="Bidirectional LSTM",
        lowering=Lowering.FUSED,
        reasons=[f"both directions in one operator{merged}", *_clips(op)],
        units=_rows(op.input(2)),
        precision=_precision(op, 0, 4),
    )


def _step(op: Op) -> dict[str, Any]:
    basic = op.option("kernel_type") == _BASIC_KERNEL
    weights = op.input(2)
    return _entry(
        op,
        name=op.output(0).name if op.outputs else op.name,
        kind="LSTM",
        lowering=Lowering.STEP,
        reasons=["one step, basic kernel"] if basic else ["one step, full kernel", *_clips(op)],
        units=_rows(weights) // 4 if basic else _rows(weights),
        precision=_precision(op, 0, 2 if basic else 4),
    )


def _loop(model: Model, op: Op) -> dict[str, Any]:
    body = model.subgraphs[op.option("body_subgraph_index")]
    cond = model.subgraphs[op.option("cond_subgraph_index")]
    return _entry(
        op,
        name=op.output(0).name if op.outputs else op.name,
        kind="loop",
        lowering=Lowering.LOOP,
        reasons=[
            f"WHILE with condition {cond.name} and body {body.name} of {len(body.ops)} operators"
        ],
        units=_widest_state(body),
        precision=_body_precision(body),
    )


def _clips(op: Op) -> list[str]:
    found = []
    cell, projection = float(op.option("cell_clip")), float(op.option("proj_clip"))
    if cell == _STOCK_CELL_CLIP:
        found.append(f"cell_clip {cell:g} written by the stock converter")
    elif cell:
        found.append(f"cell_clip {cell:g}")
    if projection:
        found.append(f"projection_clip {projection:g}")
    activation = schema.activation_name(op.option("fused_activation_function"))
    if activation != "TANH":
        found.append(f"activation {activation}")
    return found


def _rows(tensor: Tensor | None) -> int:
    return tensor.shape[0] if tensor is not None and tensor.shape else 0


def _precision(op: Op, input_at: int, weights_at: int) -> str:
    """Precision by the types of an operator's input and of one of its weight tensors."""
    x, weights = op.input(input_at), op.input(weights_at)
    if x is None or weights is None:
        return "unknown"
    if x.dtype == "int16":
        return Precision.INT16.value
    if x.dtype in ("int8", "uint8"):
        return Precision.INT8.value
    if weights.dtype in ("int8", "uint8"):
        return Precision.DYNAMIC.value
    # Where the batch is dynamic, float16 weights are stored as int16 with a scale.
    if op.subgraph.stored(weights.index).dtype in ("float16", "int16"):
        return Precision.FLOAT16.value
    return Precision.FLOAT32.value


def _body_precision(body: Subgraph) -> str:
    types = {tensor.dtype for tensor in body.tensors if tensor.constant and tensor.nbytes > 64}
    for dtype, precision in (
        ("int8", Precision.DYNAMIC), ("float16", Precision.FLOAT16),
    ):  # fmt: skip
        if dtype in types:
            return precision.value
    return Precision.FLOAT32.value


def _widest_state(body: Subgraph) -> int:
    """Width of the widest [B, U] float tensor that a loop's body hands on; 0 when none."""
    handed_on = [body.tensor(index) for index in body.outputs if index not in body.inputs]
    return max(
        (t.shape[-1] for t in handed_on if len(t.shape) == 2 and t.dtype == "float32"), default=0
    )


def signatures_of(model: Model, order: Sequence[str] = ()) -> dict[str, SignatureReport]:
    """What the file takes and gives, by signature; by tensors' names where it has none.

    Args:
        order: names of inputs and outputs that come first, in this order.
    """
    found = {}
    for signature in model.signatures:
        subgraph = model.subgraphs[signature.subgraph]
        found[signature.key or "serving_default"] = SignatureReport(
            _tensors(subgraph, signature.inputs, order),
            _tensors(subgraph, signature.outputs, order),
        )
    if not found:
        main = model.main
        found["serving_default"] = SignatureReport(
            _tensors(main, {main.tensor(i).name: i for i in main.inputs}, order),
            _tensors(main, {main.tensor(i).name: i for i in main.outputs}, order),
        )
    return found


def _tensors(
    subgraph: Subgraph, indices: dict[str, int], order: Sequence[str]
) -> tuple[TensorSpec, ...]:
    place = {name: number for number, name in enumerate(order)}
    found = []
    for name in sorted(indices, key=lambda name: place.get(name, len(place))):
        tensor = subgraph.tensor(indices[name])
        shape = tuple(None if size < 0 else size for size in tensor.signature)
        found.append(TensorSpec(name, shape, tensor.dtype))
    return tuple(found)


def _notes(recurrences: list[dict[str, Any]], flex: list[str]) -> list[str]:
    found = []
    if not recurrences:
        found.append("No LSTM operator and no loop: an unrolled recurrence is not recognised here.")
    if flex:
        found.append(f"Needs TensorFlow's Flex delegate for {', '.join(flex)}.")
    return found
