"""The Keras models of the corpus: found by content, converted once, run in both interpreters."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fused_models import WAYS, job, run
from keras_files import (
    CORPUS,
    CUSTOM_OBJECTS,
    chars2vec_architecture,
    textgenrnn_architecture,
    write_json,
)

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.marked import write_recurrences
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.sources.keras.engine import active_engine
from edgelstm.converters.sources.keras.load import LoadedKeras, load_keras
from edgelstm.converters.sources.keras.source import live_model
from edgelstm.converters.sources.keras.trace import MarkedModel, convert_traced, trace_model
from edgelstm.converters.spec import Array, Precision
from edgelstm.errors import VerificationFailed

# What a file of weights alone, or one with its author's own layers, needs besides itself; by the
# names that meta.json gives to the topology and the custom objects of its reference.
ARCHITECTURES: Mapping[str, Callable[[], Any]] = {
    "chars2vec": chars2vec_architecture,
    "textgenrnn": textgenrnn_architecture,
}
ANY = 100.0  # a tolerance that every finite output meets
CUSTOM: Mapping[str, str] = {"mdn": "mdn.py", "textgenrnn": "textgenrnn.py"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One Keras model of the corpus.

    Attributes:
        topology: key of ARCHITECTURES for a file of weights without its architecture.
    """

    name: str
    path: Path
    architecture: Path | None = None
    topology: str | None = None
    custom_objects: Path | None = None

    def options(self, precision: Precision = Precision.FLOAT32) -> ConvertOptions:
        """What a user would give on the command line."""
        architecture = self.architecture
        if self.topology is not None:
            architecture = write_json(
                work_folder() / f"{self.name}.json", ARCHITECTURES[self.topology]()
            )
        return ConvertOptions(
            precision=precision, architecture=architecture, custom_objects=self.custom_objects
        )

    @functools.cached_property
    def golden(self) -> dict[str, Array]:
        """Inputs `in:*`, outputs `out:*` of the model's own framework."""
        with np.load(self.path.parent / "golden.npz") as archive:
            return {name: archive[name] for name in archive.files}

    @property
    def inputs(self) -> list[Array]:
        """The golden inputs, in the model's order."""
        return [array for name, array in self.golden.items() if name.startswith("in:")]

    @property
    def outputs(self) -> list[Array]:
        """The golden outputs, in the model's order."""
        return [
            array
            for name, array in self.golden.items()
            if name.startswith("out:") and not name.startswith(("out:tap:", "out:pre:"))
        ]

    @property
    def taps(self) -> dict[str, Array]:
        """The golden outputs of recurrent layers, by layer."""
        prefix = "out:tap:"
        return {n[len(prefix) :]: a for n, a in self.golden.items() if n.startswith(prefix)}


def entries() -> list[Entry]:
    """Every folder whose reference is a Keras model, or which holds architecture and weights."""
    found = []
    for folder in sorted(CORPUS.glob("*/")):
        meta = json.loads((folder / "meta.json").read_text())
        runner = meta["runner"]
        keys = {runner.get("custom"), runner.get("builder")}
        custom = next((CUSTOM_OBJECTS / CUSTOM[key] for key in keys if key in CUSTOM), None)
        if runner["kind"] == "keras":
            architecture = folder / runner["arch"] if "arch" in runner else None
            topology = runner.get("builder")
            path = folder / runner["file"]
            found.append(Entry(folder.name, path, architecture, topology, custom))
        else:
            pair = architecture_and_weights(folder)
            if pair is not None:
                found.append(Entry(folder.name, pair[1], pair[0]))
    return found


def architecture_and_weights(folder: Path) -> tuple[Path, Path] | None:
    """A Keras architecture as JSON and an HDF5 file beside it, both told by their content."""
    architectures = [path for path in sorted(folder.glob("*.json")) if _is_architecture(path)]
    weights = [path for path in sorted(folder.iterdir()) if h5py.is_hdf5(path)]
    return (architectures[0], weights[0]) if architectures and weights else None


def _is_architecture(path: Path) -> bool:
    content = json.loads(path.read_text())
    if isinstance(content, str):
        content = json.loads(content)
    return isinstance(content, dict) and {"class_name", "config"} <= content.keys()


@functools.cache
def work_folder() -> Path:
    """One temporary folder per run."""
    keeper = tempfile.TemporaryDirectory(prefix="edgelstm-corpus-")
    _KEPT.append(keeper)
    return Path(keeper.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@dataclasses.dataclass(frozen=True)
class Converted:
    """One entry in one precision.

    Attributes:
        refused: why verification refused it; it is then written with a tolerance of the user's.
    """

    report: ConversionReport
    content: bytes
    seconds: float
    refused: VerificationFailed | None


@functools.cache
def converted(entry: Entry, precision: Precision) -> Converted:
    """The entry as `edgelstm convert` writes it, verification included."""
    output = work_folder() / f"{entry.name}.{precision.value}.tflite"
    options, refused = entry.options(precision), None
    started = time.perf_counter()
    try:
        report = convert(entry.path, output, options, progress=lambda line: None)
    except VerificationFailed as error:
        refused = error
        assert not output.exists()
        options = dataclasses.replace(options, tolerance=ANY)
        report = convert(entry.path, output, options, progress=lambda line: None)
    return Converted(report, output.read_bytes(), time.perf_counter() - started, refused)


@functools.cache
def loaded(entry: Entry) -> LoadedKeras:
    """The live model."""
    options = entry.options()
    return load_keras(
        entry.path, architecture=options.architecture, custom_objects=options.custom_objects
    )


@functools.cache
def tapped(entry: Entry) -> tuple[MarkedModel, bytes]:
    """The entry with its recurrent layers' outputs in place of its own, through the converter."""
    live = loaded(entry)
    outputs = [_first(live.model.get_layer(name).output) for name in entry.taps]
    with active_engine(live.engine):
        model = live.engine.module.Model(live.model.inputs, outputs)
    source = live_model(dataclasses.replace(live, model=model), ConvertOptions())
    traced = trace_model(source, None, Precision.FLOAT32)
    marked = convert_traced(source, traced, Precision.FLOAT32)
    return marked, write_recurrences(marked).to_bytes()


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, list | tuple) else output


def run_file(interpreter: str, content: bytes, entry: Entry) -> list[list[Array]]:
    """Outputs on the golden inputs: with XNNPACK and without, two calls each."""
    specs = Model.read(content).main
    inputs = [
        array.astype(specs.tensor(index).dtype)
        for array, index in zip(entry.inputs, specs.inputs, strict=True)
    ]
    jobs = [job(content, [inputs, inputs], way) for way in WAYS if way.threads == 1]
    found = []
    for answer in run(interpreter, jobs, work_folder()):
        for call in range(2):
            found.append([answer[f"out{call}_{k}"] for k in range(len(specs.outputs))])
    return found


@functools.cache
def own_spread(entry: Entry) -> tuple[list[float], dict[str, float]]:
    """How far the source's own framework is from golden: again, and with each row alone.

    Of the outputs in order, and of the taps by layer, as a fraction of the range.
    """
    live = loaded(entry)
    with active_engine(live.engine):
        layers = [_first(live.model.get_layer(name).output) for name in entry.taps]
        model = live.engine.module.Model(live.model.inputs, [*live.model.outputs, *layers])
        wanted = [*entry.outputs, *entry.taps.values()]
        runs = [_predict(model, entry.inputs)]
        rows = [[array[row : row + 1] for array in entry.inputs] for row in range(len(wanted[0]))]
        alone = [_predict(model, row) for row in rows]
        runs.append([np.concatenate(parts) for parts in zip(*alone, strict=True)])
    spreads = [max(error(run[k], want) for run in runs) for k, want in enumerate(wanted)]
    count = len(entry.outputs)
    return spreads[:count], dict(zip(entry.taps, spreads[count:], strict=True))


@functools.cache
def rounding_loss(entry: Entry, precision: Precision) -> list[float]:
    """How far the source's own outputs move when its weights are rounded to `precision`.

    Of the outputs in order, as a fraction of the golden output's range.
    """
    live = loaded(entry)
    kept = live.model.get_weights()
    try:
        live.model.set_weights([_rounded(weight, precision) for weight in kept])
        with active_engine(live.engine):
            found = _predict(live.model, entry.inputs)
    finally:
        live.model.set_weights(kept)
    return [error(got, wanted) for got, wanted in zip(found, entry.outputs, strict=True)]


def _rounded(weight: Array, precision: Precision) -> Array:
    if precision is Precision.FLOAT16:
        return weight.astype(np.float16).astype(weight.dtype)
    if weight.ndim < 2:
        return weight
    scale = np.abs(weight).max() / 127 or 1.0
    return np.asarray(np.rint(weight / scale) * scale, weight.dtype)


def _predict(model: Any, inputs: Sequence[Array]) -> list[Array]:
    found = model.predict(list(inputs) if len(inputs) > 1 else inputs[0], verbose=0)
    return list(found) if isinstance(found, list | tuple) else [found]


def error(got: Array, wanted: Array) -> float:
    """Largest error as a fraction of the range of `wanted`."""
    assert got.shape == wanted.shape
    return float(np.abs(got.astype(np.float64) - wanted).max() / (np.ptp(wanted) or 1.0))
