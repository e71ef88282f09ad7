"""`verify` of a file of `--split`: each half with its own, and both together with the model."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters import pipeline
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.flatbuffer.merge import extract
from edgelstm.converters.inspect import METADATA, read_file, read_metadata, written_by_us
from edgelstm.converters.options import ConvertOptions, Size
from edgelstm.converters.quantize.plan import STATIC
from edgelstm.converters.sources import open_source
from edgelstm.converters.spec import Array, StatePolicy, TensorSpec
from edgelstm.converters.split import save_halves
from edgelstm.converters.verify import Verification
from edgelstm.converters.verify.streaming import FRAMES, StreamingProof, compared, random_array
from edgelstm.converters.verify.tolerance import tolerance_for
from edgelstm.errors import DataError, OptionError, UnreadableModelError
from edgelstm.runtime import Session
from edgelstm.runtime.decoder import EncoderDecoder
from edgelstm.runtime.metadata import metadata_entry
from edgelstm.runtime.stream import Stream

_WAY = "encoder, then decoder one step a time"


def verify(
    source: Path, model: Path, options: ConvertOptions, *, progress: pipeline.Progress = print
) -> Verification:
    """As `pipeline.verify`, for files of `--split` too."""
    names = halves_of(model)
    if names is None:
        return pipeline.verify(source, model, options, progress=progress)
    return verify_split(source, model, options, names, progress=progress)


def halves_of(model: Path) -> tuple[str, str] | None:
    """The signatures of encoder and decoder; None for a file that was not split.

    Raises:
        UnreadableModelError: the file is no TFLite model, or tells of halves that it lacks.
    """
    read = Model.read(read_file(model), where=str(model))
    told = (read_metadata(read) or {}).get("split")
    if told is None:
        return None
    known = {each.key for each in read.signatures}
    halves = told if isinstance(told, dict) else {}
    first, second = str(halves.get("encoder")), str(halves.get("decoder"))
    if {first, second} <= known:
        return first, second
    raise UnreadableModelError(
        "The metadata tell of halves that the file does not hold.",
        where=str(model),
        cure="convert the model again",
    )


def verify_split(
    source: Path,
    model: Path,
    options: ConvertOptions,
    names: tuple[str, str],
    *,
    progress: pipeline.Progress = print,
) -> Verification:
    """Compares each half of a written file with that half of its source.

    Data of the user go to the encoder; what a decoder starts from is not among them.

    Raises:
        EdgeLstmError: as `pipeline.verify`.
    """
    if written_by_us(model).precision in STATIC:
        raise OptionError(
            "The halves of a split model hold for inputs like their calibration data, and those "
            "of the decoder are the encoder's results.",
            where=str(model),
            cure="compare them with --streaming on data of your own, in a float precision",
        )
    found: list[Verification] = []
    with tempfile.TemporaryDirectory() as folder:
        saved = save_halves(source, options, Path(folder))
        for name, (part, time) in zip(names, saved.parts(Size.SOURCE), strict=True):
            alone = Path(folder) / f"{len(found)}.tflite"
            alone.write_bytes(_alone(model, name))
            data = None if found or options.data is None else _of(options.data, alone)
            own = dataclasses.replace(options, architecture=None, time=time, data=data)
            progress(f"comparing the {name}")
            done = pipeline.verify(part, alone, own, progress=progress)
            cases = (dataclasses.replace(c, name=f"{name}, {c.name}") for c in done.cases)
            notes = (f"{name}: {note}" for note in done.notes)
            found.append(dataclasses.replace(done, cases=tuple(cases), notes=tuple(notes)))
    first, second = found
    return dataclasses.replace(
        first,
        cases=(*first.cases, *second.cases),
        notes=(*first.notes, *second.notes),
        seconds=first.seconds + second.seconds,
    )


def prove_split(source: Path, model: Path, options: ConvertOptions) -> StreamingProof:
    """Encodes one sequence, decodes step by step, and compares with the whole model.

    The decoder is given the target sequence, as in training, so that a step that is wrong does
    not hide in the tokens that it chooses.

    Raises:
        DataError: data of the user do not fit.
        EdgeLstmError: the source cannot be read.
    """
    allowed = tolerance_for(written_by_us(model).precision, options.tolerance)
    pair = EncoderDecoder(model)
    rows = next((info.shape[0] for info in pair.decoder.states), 1) or 1
    whole = open_source(source, dataclasses.replace(options, batch=rows, state=StatePolicy.RESET))
    given = _sequences(whole.inputs, rows, options.data)
    expected = whole.reference(StatePolicy.RESET).run(given)
    encoded = {info.name: given[info.name] for info in pair.encoder.inputs}
    tokens = {n: given[n] for n in (info.name for info in pair.decoder.inputs) if n in given}
    pair.decoder.set_state(pair.encode(encoded))
    steps = _steps(pair.decoder, tokens, pair.context)
    # The decoder's outputs are those of the model, then its states.
    made = dict(zip(expected, steps.values(), strict=False))
    axes = {name: 1 for name, array in made.items() if array.ndim == expected[name].ndim > 2}
    length = max((array.shape[1] for array in tokens.values()), default=1)
    results = compared(expected, axes, [(_WAY, made)], allowed)
    return StreamingProof(length, allowed.largest, results)


def _alone(model: Path, name: str) -> bytes:
    """One signature as a file of its own, its metadata included."""
    read = Model.read(read_file(model), where=str(model))
    told: dict[str, Any] = dict(read_metadata(read) or {})
    own = told.pop("signatures", {}).get(name, {})
    told.pop("split", None)
    extract(read, name)
    read.set_metadata(METADATA, metadata_entry({**told, **own}))
    return read.to_bytes()


def _of(data: Mapping[str, Array], model: Path) -> dict[str, Array]:
    """The data of a file's own inputs."""
    own = {info.name for info in Session(model).inputs}
    return {name: array for name, array in data.items() if name in own}


def _sequences(
    specs: Sequence[TensorSpec], rows: int, data: Mapping[str, Array] | None
) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    found = {}
    for spec in specs:
        shape = [rows, *(FRAMES if size is None else size for size in spec.shape[1:])]
        if data is None:
            found[spec.name] = random_array(rng, shape, spec.dtype, spec)
            continue
        array = data.get(spec.name)
        if array is None or array.ndim != len(shape) or len(array) < rows:
            told = "nothing" if array is None else str(list(array.shape))
            raise DataError(
                f"The data hold {told} for the input {spec.name!r}, which takes {list(shape)}.",
                where="--data",
                cure="give that many rows of that shape in the .npz, or leave --data out",
            )
        found[spec.name] = np.asarray(array[:rows], spec.dtype)
    return found


def _steps(
    decoder: Stream, tokens: Mapping[str, Array], context: Mapping[str, Array]
) -> dict[str, Array]:
    """All outputs, one step after another along axis 1."""
    length = max((array.shape[1] for array in tokens.values()), default=1)
    found = []
    for t in range(length):
        frame = {name: np.ascontiguousarray(array[:, t : t + 1]) for name, array in tokens.items()}
        found.append(decoder.push({**frame, **context}))
    return {
        name: np.concatenate([each[name] for each in found], axis=1) if array.ndim > 2 else array
        for name, array in found[-1].items()
    }
