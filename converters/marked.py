"""A marked model after the stock converter, written as TFLite."""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.bind_state import StatePair as Bound
from edgelstm.converters.lowering.bind_state import bind_states
from edgelstm.converters.lowering.dense import keep_dense_axes
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.sources.keras.names import StateHome
from edgelstm.converters.sources.keras.trace import MarkedModel
from edgelstm.errors import UnsupportedModelError


def write_recurrences(marked: MarkedModel) -> Model:
    """The marked model with its fused ops, its own names, and its states where they belong."""
    model = Model.read(marked.flatbuffer)
    keep_dense_axes(model)
    name_signature(model, marked)
    specs = {r.id: r.spec for r in marked.recurrences if r.spec is not None}
    lower_markers(model, specs, policy={r.id: r.state for r in marked.recurrences})
    bind_carried(model, marked)
    return model


def refuse_foreign_ops(model: Model) -> None:
    """Raise where the stock converter left an op that only TensorFlow can run.

    Raises:
        UnsupportedModelError: custom ops had to be allowed for the markers; no other may remain.
    """
    foreign = {
        op.custom_code: op.output(0).name
        for subgraph in model.subgraphs
        for op in subgraph.ops
        if op.custom_code
    }
    if foreign:
        name, place = next(iter(foreign.items()))
        raise UnsupportedModelError(
            f"TensorFlow Lite has no builtin operator for {', '.join(sorted(foreign))}.",
            where=f"{name} that computes {place}",
            cure="replace the layer that uses it by one of builtin operations",
        )


def bind_carried(model: Model, marked: MarkedModel) -> None:
    """Keep the states that live in the file, outside its fused ops, from call to call."""
    (signature,) = model.signatures
    pairs = [
        Bound(
            s.pair.name,
            signature.inputs[s.pair.input],
            signature.outputs[s.pair.output],
            s.pair.output,
        )
        for s in marked.slots
        if s.home is StateHome.FILE
    ]
    if pairs:
        bind_states(model, pairs)


def name_signature(model: Model, marked: MarkedModel) -> None:
    """Give the signature and its tensors the source's own names.

    The traced function numbers them in_000, out_000, ..., since a source's names need not be
    legal in a SavedModel, and a SavedModel sorts them.
    """
    (signature,) = model.signatures
    inputs = dict(zip(marked.inputs, _numbered(signature.inputs), strict=True))
    outputs = dict(zip(marked.outputs, _numbered(signature.outputs), strict=True))
    model.set_signature("serving_default", inputs=inputs, outputs=outputs)
    for name, index in [*outputs.items(), *inputs.items()]:
        model.main.tensor(index).name = name
    for index, rank in zip(outputs.values(), marked.output_ranks, strict=False):
        tensor = model.main.tensor(index)
        if rank and not tensor.signature:
            # The stock converter forgets the shape of a conditional whose sides differ in theirs.
            tensor.set_shape((-1,) * rank)
    model.main.inputs = list(inputs.values())
    model.main.outputs = list(outputs.values())


def _numbered(entries: dict[str, int]) -> list[int]:
    return [entries[name] for name in sorted(entries)]
