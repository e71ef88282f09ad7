"""Takes needless steps out between integers and float32."""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Model, Op, Quantization, Subgraph, Tensor
from edgelstm.converters.lowering.fused import C_STATE, FUSED_OP, H_STATE

# Operators that move values without computing, with int8 and int16 kernels in every interpreter.
MOVES = frozenset("EXPAND_DIMS SQUEEZE RESHAPE REVERSE_V2 TRANSPOSE BROADCAST_TO".split())
_VERSIONS = {"REVERSE_V2": 3, "TRANSPOSE": 2, "BROADCAST_TO": 3}
_QUANTIZE_VERSION = 2


def tidy(model: Model) -> None:
    """Moves values as integers, reads sizes from integers, and requantizes directly.

    DEQUANTIZE then MOVE becomes MOVE then DEQUANTIZE; SHAPE of a widened tensor that of the stored
    one; DEQUANTIZE then QUANTIZE one QUANTIZE between integers, or nothing where scale, zero point
    and type agree. Prunes the model.
    """
    subgraph = model.main
    changed = True
    while changed:
        changed = any([_sink(subgraph, op) for op in subgraph.find("DEQUANTIZE")])
    _raise_all(subgraph)
    _merge(subgraph)
    for op in subgraph.find("QUANTIZE"):
        _shorten(subgraph, op)
    _name_outputs(subgraph)
    model.prune()
    # LiteRT's XNNPACK requantizes a tensor of changing size with the size that it had before.
    _raise_all(subgraph)


def _sink(subgraph: Subgraph, widen: Op) -> bool:
    stored, wide = widen.input(0), widen.output(0)
    if stored is None or stored.constant:
        return False
    changed = False
    for reader in subgraph.consumers(wide.index):
        if reader.name == "SHAPE":
            reader.inputs = [stored.index]
            changed = True
        elif reader.name in MOVES and reader.inputs[0] == wide.index:
            _move_integers(subgraph, reader, stored)
            changed = True
        elif reader.name != "QUANTIZE" and reader.output(0).dtype == stored.dtype:
            # The quantizer leaves this where the tensor is an output of the model too.
            reader.inputs = [stored.index if i == wide.index else i for i in reader.inputs]
            changed = True
    return changed


def _move_integers(subgraph: Subgraph, move: Op, stored: Tensor) -> None:
    wide = move.output(0)
    made = _as_stored(subgraph, wide, stored)
    _move(move, stored.index, made)
    version = 2 if stored.dtype == "int8" else 3
    subgraph.add_op("DEQUANTIZE", [made], [wide.index], version=version, after=move)


def _as_stored(subgraph: Subgraph, shaped: Tensor, stored: Tensor) -> int:
    """A new tensor of the shape of one and the integers of the other."""
    return subgraph.add_tensor(
        f"{shaped.name}_{stored.dtype}",
        shaped.signature,
        stored.dtype,
        quantization=stored.quantization,
    )


def _move(move: Op, source: int, target: int) -> None:
    """Lets an operator move integers."""
    move.inputs = [source, *move.inputs[1:]]
    move.outputs = [target]
    move.version = max(move.version, _VERSIONS.get(move.name, 1))


def _raise_all(subgraph: Subgraph) -> None:
    changed = True
    while changed:
        changed = any([_rise(subgraph, op) for op in subgraph.find("QUANTIZE")])


def _rise(subgraph: Subgraph, narrow: Op) -> bool:
    """MOVE then QUANTIZE becomes QUANTIZE then MOVE where nothing else reads what is moved."""
    source, target = narrow.input(0), narrow.output(0)
    move = None if source is None else subgraph.producer(source.index)
    if source is None or move is None or move.name not in MOVES or move not in subgraph.ops:
        return False
    wide = move.input(0)
    readers = [] if wide is None else subgraph.consumers(source.index)
    if (
        wide is None
        or wide.dtype not in ("float32", "int8", "int16")
        or wide.constant
        or _is_state(subgraph, wide)
        or source.index in subgraph.outputs
        or [op for op in readers if op.name != "SHAPE"] != [narrow]
    ):
        return False
    for op in readers:
        op.inputs = [target.index if i == source.index else i for i in op.inputs]
    made = _as_stored(subgraph, wide, target)
    subgraph.add_op("QUANTIZE", [wide.index], [made], version=narrow.version, before=move)
    _move(move, made, target.index)
    subgraph.remove_op(narrow)
    return True


def _lift(subgraph: Subgraph, widen: Op, narrow: Op) -> None:
    """As `_rise` does, for both together."""
    stored, wide, target = widen.input(0), widen.output(0), narrow.output(0)
    move = None if stored is None else subgraph.producer(stored.index)
    if stored is None or move is None or move.name not in MOVES:
        return
    source = move.input(0)
    readers = subgraph.consumers(stored.index)
    if (
        source is None
        or _is_state(subgraph, source)
        or [op for op in readers if op.name != "SHAPE"] != [widen]
        or subgraph.consumers(wide.index) != [narrow]
        or {stored.index, wide.index} & {*subgraph.outputs}
    ):
        return
    for op in readers:
        op.inputs = [target.index if i == stored.index else i for i in op.inputs]
    between = subgraph.add_tensor(f"{source.name}_float32", source.signature)
    made = _as_stored(subgraph, source, target)
    first = subgraph.add_op(
        "DEQUANTIZE", [source.index], [between], version=widen.version, before=move
    )
    second = subgraph.add_op("QUANTIZE", [between], [made], version=narrow.version, before=move)
    _move(move, made, target.index)
    subgraph.remove_op(widen)
    subgraph.remove_op(narrow)
    _lift(subgraph, first, second)


def _is_state(subgraph: Subgraph, tensor: Tensor) -> bool:
    """Whether an LSTM writes it in place. What reads it before an op that waits for the LSTM, as the
    copies of final states do by their shape, may run earlier: delegates go by the tensors alone."""
    return tensor.is_variable or any(
        tensor.index in (op.inputs[H_STATE], op.inputs[C_STATE]) for op in subgraph.find(FUSED_OP)
    )


def _merge(subgraph: Subgraph) -> None:
    """One QUANTIZE where several give the same."""
    first: dict[tuple[int, str, Quantization | None], int] = {}
    for op in subgraph.find("QUANTIZE"):
        target = op.output(0)
        key = (op.inputs[0], target.dtype, target.quantization)
        if key not in first:
            first[key] = target.index
        elif target.index not in subgraph.outputs:
            subgraph.rewire(target.index, first[key])
            subgraph.remove_op(op)


def _name_outputs(subgraph: Subgraph) -> None:
    """Gives an output the name that its integers have taken over."""
    for index in dict.fromkeys(subgraph.outputs):
        widen = subgraph.producer(index)
        stored = widen.input(0) if widen is not None and widen.name == "DEQUANTIZE" else None
        if stored is None or subgraph.tensor(index).name != f"{stored.name}_dequant":
            continue
        name = stored.name
        stored.name = f"{name}_{stored.dtype}"
        subgraph.tensor(index).name = name


def _shorten(subgraph: Subgraph, narrow: Op) -> None:
    source = narrow.input(0)
    widen = None if source is None else subgraph.producer(source.index)
    if widen is None or widen.name != "DEQUANTIZE":
        return
    stored, target = widen.input(0), narrow.output(0)
    if stored is None or stored.constant:
        return
    if (stored.dtype, stored.quantization) == (target.dtype, target.quantization):
        if target.index in subgraph.outputs:
            return
        subgraph.rewire(target.index, stored.index)
        subgraph.remove_op(narrow)
        return
    if (stored.dtype, target.dtype) == ("int8", "int16"):
        # tflite-runtime 2.14 has no such QUANTIZE.
        _lift(subgraph, widen, narrow)
        return
    narrow.inputs = [stored.index]
    narrow.version = max(narrow.version, _QUANTIZE_VERSION)
