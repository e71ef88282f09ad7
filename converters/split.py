"""`--split encoder,decoder`: the two halves of a Keras encoder-decoder, as signatures of one file.

The model is cut where what depends on the encoder's inputs alone is read by what depends on the
decoder's. Each half is converted and compared with itself in Keras; constants that both use, such
as an embedding, are stored once.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from edgelstm import files
from edgelstm.converters import normalisation, pipeline
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.flatbuffer.merge import append
from edgelstm.converters.inspect import METADATA, read_metadata
from edgelstm.converters.options import ConvertOptions, OverwritePolicy, Size
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.sources.keras.engine import KerasEngine, active_engine
from edgelstm.converters.sources.keras.load import load_keras
from edgelstm.converters.sources.pytorch.export import FORMS
from edgelstm.converters.sources.sniff import SourceKind, sniff
from edgelstm.errors import OptionError, UnsupportedModelError
from edgelstm.runtime.metadata import metadata_entry

_NO_KERAS = {
    *FORMS,
    SourceKind.TFLITE,
    SourceKind.ONNX,
    SourceKind.GRAPHDEF,
    SourceKind.GRAPHDEF_TEXT,
    SourceKind.META_GRAPH,
    SourceKind.CHECKPOINT,
    SourceKind.SAVED_MODEL_DIR,
    SourceKind.SAVED_MODEL_FILE,
}


@dataclasses.dataclass(frozen=True)
class Halves:
    """Two Keras models.

    Attributes:
        handed: how many of the decoder's last inputs are the encoder's outputs, in their order.
        context: whether some of them are no states, such as what attention looks at.
    """

    encoder: Any
    decoder: Any
    handed: int
    context: bool


@dataclasses.dataclass(frozen=True)
class SavedHalves:
    """Both halves of a model as files of its own framework.

    Attributes:
        sha256: of the whole model's file.
    """

    halves: Halves
    encoder: Path
    decoder: Path
    sha256: str

    def parts(self, time: int | Size) -> tuple[tuple[Path, int | Size], tuple[Path, int | Size]]:
        """Each half with the number of steps that it is written for."""
        # The sequence that attention looks at has a length of its own.
        return (self.encoder, time), (self.decoder, time if self.halves.context else 1)


def convert_as_asked(
    source: Path,
    output: Path,
    options: ConvertOptions,
    names: tuple[str, str] | None,
    *,
    progress: pipeline.Progress = print,
) -> ConversionReport:
    """As `pipeline.convert`; with a signature for each half where names for them are given."""
    if names is None:
        return pipeline.convert(source, output, options, progress=progress)
    return convert_split(source, output, options, names, progress=progress)


def convert_split(
    source: Path,
    output: Path,
    options: ConvertOptions,
    names: tuple[str, str],
    *,
    progress: pipeline.Progress = print,
) -> ConversionReport:
    """Converts an encoder-decoder into one file with a signature for each half.

    Args:
        names: of the signatures; `serving_default` is the encoder too.

    Raises:
        EdgeLstmError: nothing is written then.
    """
    if sniff(source) in _NO_KERAS:
        raise OptionError(
            "Only Keras models are split: a graph does not say where its decoder begins.",
            where="--split",
            cure="cut the graph into two files with --inputs and --outputs",
        )
    if options.streaming is not None or options.state is not None:
        raise OptionError(
            "The halves of a split model have states of their own.",
            where="--split",
            cure="leave --streaming and --state out",
        )
    pipeline.check_output(output, options.overwrite, besides=(source,))
    batch = 1 if options.batch is Size.SOURCE else options.batch
    base = dataclasses.replace(
        options,
        batch=batch,
        architecture=None,
        overwrite=OverwritePolicy.REPLACE,
        normalisation={},  # the names are those of both halves together
    )
    with tempfile.TemporaryDirectory() as folder:
        saved = save_halves(source, options, Path(folder))
        halves = saved.halves
        made: list[tuple[ConversionReport, Model]] = []
        for name, (part, time) in zip(names, saved.parts(options.time), strict=True):
            written = part.with_suffix(".tflite")
            progress(f"converting the {name}")
            report = pipeline.convert(
                part, written, dataclasses.replace(base, time=time), progress=progress
            )
            made.append((report, Model.read(written.read_bytes())))
    (encoder, model), (decoder, other) = made
    told, told_decoder = read_metadata(model) or {}, read_metadata(other) or {}
    (own,) = model.signatures
    model.set_signature(names[0], inputs=own.inputs, outputs=own.outputs)
    append(model, other, names[1])
    given = [spec.name for spec in decoder.signatures["serving_default"].inputs]
    results = [spec.name for spec in encoder.signatures["serving_default"].outputs]
    handed = dict(zip(given[len(given) - halves.handed :], results, strict=True))
    for name in handed:
        told_decoder["time_axes"]["inputs"].pop(name, None)
    both = [report.signatures["serving_default"] for report in (encoder, decoder)]
    tensors = [spec for half in both for spec in (*half.inputs, *half.outputs)]
    normalisation.check(options.normalisation, tensors, {})
    passed = [{"input": given, "output": result} for given, result in handed.items()]
    normalisation.refuse_states(options.normalisation, [*passed, *told_decoder["states"]])
    told |= normalisation.to_metadata(options.normalisation)
    kept = ("state_policy", "states", "time_axes")
    told |= {
        "source": told["source"] | {"path": str(source), "sha256": saved.sha256},
        "signatures": {names[1]: {key: told_decoder[key] for key in kept}},
        "split": {
            "encoder": names[0],
            "decoder": names[1],
            "handed": handed,
        },
    }
    model.set_metadata(METADATA, metadata_entry(told))
    content = model.to_bytes()
    files.write_atomically(output, content)
    return _joined(encoder, decoder, names, model, len(content), source)


def save_halves(source: Path, options: ConvertOptions, folder: Path) -> SavedHalves:
    """Cuts a Keras model in two and saves the halves into a folder.

    Raises:
        UnsupportedModelError: it is no encoder-decoder that can be cut.
        EdgeLstmError: it cannot be read.
    """
    loaded = load_keras(
        source,
        architecture=options.architecture,
        custom_objects=options.custom_objects,
        code=options.code,
        nan=options.nan,
    )
    suffix = ".keras" if loaded.engine is KerasEngine.KERAS3 else ".h5"
    with active_engine(loaded.engine):
        halves = split_keras(loaded.model, loaded.engine.module, str(source))
        paths = []
        for number, half in enumerate((halves.encoder, halves.decoder)):
            paths.append(folder / f"{number}{suffix}")
            half.save(paths[-1])
    return SavedHalves(halves, paths[0], paths[1], loaded.sha256)


def _joined(
    encoder: ConversionReport,
    decoder: ConversionReport,
    names: tuple[str, str],
    model: Model,
    size: int,
    source: Path,
) -> ConversionReport:
    compared = decoder.verification
    worst = (
        max((o.relative_error for case in compared.cases for o in case.outputs), default=0.0)
        if compared is not None
        else 0.0
    )
    note = (
        f"The {names[1]} equals its half of the model within {worst:.1e} of the range; the table "
        f"is the {names[0]}'s."
    )
    return dataclasses.replace(
        encoder,
        source=dataclasses.replace(encoder.source, path=str(source)),
        recurrences=(*encoder.recurrences, *decoder.recurrences),
        signatures={
            names[0]: encoder.signatures["serving_default"],
            names[1]: decoder.signatures["serving_default"],
        },
        ops=model.op_counts(),
        bytes=size,
        notes=tuple(dict.fromkeys((*encoder.notes, *decoder.notes, note))),
        seconds={k: v + decoder.seconds.get(k, 0.0) for k, v in encoder.seconds.items()},
    )


def split_keras(model: Any, keras: Any, where: str) -> Halves:
    """Cuts a functional model in two.

    Raises:
        UnsupportedModelError: no recurrence starts from states that depend on other inputs than
            its own, or a decoder's layer does not return its states.
    """
    nodes = _nodes(model)
    seen: dict[int, frozenset[int]] = {id(t): frozenset({id(t)}) for t in model.inputs}
    for given, made, _ in nodes:
        reach = frozenset().union(*(seen.get(id(t), frozenset()) for t in given))
        for tensor in made:
            seen.setdefault(id(tensor), reach)
    started = [
        (given, made, layer)
        for given, made, layer in nodes
        if hasattr(layer, "cell") and len(given) > 1
    ]
    encoders: frozenset[int] = frozenset()
    for given, _, _ in started:
        states = frozenset().union(*(seen[id(t)] for t in given[1:]))
        if not states & seen[id(given[0])]:
            encoders |= states
    if not encoders:
        raise UnsupportedModelError(
            "No recurrent layer starts from states that another input's layers give.",
            where=where,
            cure="leave --split out, or build the decoder with initial_state= of the encoder",
        )
    handed: dict[int, Any] = {}
    after: list[Any] = []
    states_in: set[int] = set()
    for given, made, layer in nodes:
        if seen[id(made[0])] <= encoders:
            continue
        inside = [t for t in given if seen.get(id(t)) and seen[id(t)] <= encoders]
        handed.update({id(t): t for t in inside})
        if hasattr(layer, "cell") and inside and len(given) > 1:
            if len(made) != len(given):
                raise UnsupportedModelError(
                    "A layer of the decoder keeps its last states to itself.",
                    where=f"layer {layer.name} in {where}",
                    cure="build it with return_state=True",
                )
            after += made[1:]
            states_in |= {id(t) for t in given[1:]}
    cut = list(handed.values())
    first = [t for t in model.inputs if id(t) in encoders]
    rest = [t for t in model.inputs if id(t) not in encoders]
    decoder = keras.Model([*rest, *cut], [*model.outputs, *after])
    _name_handed(decoder, cut)
    return Halves(keras.Model(first, cut), decoder, len(cut), bool(handed.keys() - states_in))


def _name_handed(decoder: Any, cut: list[Any]) -> None:
    """Names what the encoder hands over by the layers that it comes from.

    Keras numbers such inputs by what the process has made before.
    """
    taken = {layer.name for layer in decoder.layers}
    for tensor, own in zip(decoder.inputs[len(decoder.inputs) - len(cut) :], cut, strict=True):
        base = f"from_{_layer_of(own).name}"
        name, number = base, 1
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        layer = _layer_of(tensor)
        setattr(layer, "_name" if hasattr(layer, "_name") else "name", name)
    mapped = getattr(decoder, "_init_graph_network", None)
    if mapped is not None:  # Keras 2 finds the nodes of a model by their layers' names
        mapped(decoder.inputs, decoder.outputs)


def _layer_of(tensor: Any) -> Any:
    history = tensor._keras_history
    return getattr(history, "operation", None) or history.layer


def _nodes(model: Any) -> list[tuple[list[Any], list[Any], Any]]:
    """(inputs, outputs, layer) of the calls in a functional model, inputs first."""
    found = []
    by_depth = getattr(model, "_nodes_by_depth", None) or {}
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            given = _tensors(getattr(node, "input_tensors", []))
            layer = getattr(node, "operation", None) or getattr(node, "layer", None)
            made = _tensors(node.outputs)
            if not getattr(node, "is_input", False) and given and made:
                found.append((given, made, layer))
    return found


def _tensors(nested: Any) -> list[Any]:
    if isinstance(nested, dict):
        return [t for each in nested.values() for t in _tensors(each)]
    if isinstance(nested, list | tuple):
        return [t for each in nested for t in _tensors(each)]
    return [] if nested is None else [nested]
