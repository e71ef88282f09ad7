"""The TensorFlow graphs of the corpus, with what their own framework recorded of them."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from graph_files import CORPUS, error

from edgelstm.converters import pipeline
from edgelstm.converters.options import ConvertOptions, TensorChoice
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.spec import Array
from edgelstm.runtime import Session

TF1 = CORPUS / "tf1" / "1.15.5"
TF1_4 = CORPUS / "tf1" / "1.4.1"

# What becomes of a cell, by the first part of an entry's name: fused ops, or a loop.
FUSED_CELLS = {"basic", "basic_fb0_relu", "block", "block_peep_clip", "cudnncompat", "fused",
               "fused_peep_clip", "glstm", "lstm", "lstm_full", "lstm_peep", "lstm_proj", "multi",
               "LSTMBlockCell", "LSTMBlockFusedCell"}  # fmt: skip
LOOP_CELLS = {"conv1d", "conv2d", "lnbasic", "nas", "phased", "ugrnn", "LayerNormBasicLSTMCell",
              "NASCell", "UGRNNCell"}  # fmt: skip
# The same of third-party models: fused ops of recurrences.
MODELS: dict[str, tuple[int, int]] = {
    "saved_dtln": (4, 4),
    "saved_iteam1_lstm": (1, 1),
    "tf1ckpt_charrnn_xasopheno": (2, 2),
    "tf1pb_cutkum_gru": (0, 3),
    "tf1pb_dl4j_basiclstm_dynamic_tm": (1, 1),
    "tf1pb_dl4j_basiclstm_static_sigmoid_is": (0, 1),
    "tf1pb_dl4j_blocklstm_basic": (1, 1),
    "tf1pb_dl4j_lstmblockcell_dynamic": (1, 1),
    "tf1pb_dl4j_lstmcell_softsign_static": (0, 1),
    "tf1pb_foolnltk_ner": (2, 2),
    "tf1pb_keras_cnnlstm_chen0040": (0, 1),
    "tf1pb_kws_basic_lstm_s": (1, 1),
    "tf1pb_kws_gru_s": (0, 1),
    "tf1pb_kws_lstm_s": (1, 1),
    "tf1pb_mobirnn_2layer32unit": (2, 2),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One graph.

    Attributes:
        fused, expected: fused ops, and recurrences in all.
        inputs, outputs: recorded arrays by name.
    """

    name: str
    path: Path
    fused: int
    expected: int
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    options: ConvertOptions = dataclasses.field(default_factory=ConvertOptions)

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a conversion gave: the report, the file, seconds of wall time."""

    report: ConversionReport
    content: bytes
    seconds: float

    def errors(self, entry: Entry) -> dict[str, float]:
        """Largest error of each output, of two calls in LiteRT, as a fraction of its range."""
        session = Session(self.content)
        found: dict[str, float] = {}
        for _ in range(2):
            session.reset()
            outputs = session.run(entry.inputs)
            for name, wanted in entry.outputs.items():
                found[name] = max(found.get(name, 0.0), error(outputs[name], wanted))
        return found


_MADE: dict[str, Converted] = {}


def converted(name: str, path: Path, options: ConvertOptions | None = None) -> Converted:
    """The file that `edgelstm convert` writes; made once per name."""
    if name not in _MADE:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "model.tflite"
            started = time.perf_counter()
            report = pipeline.convert(
                path, output, options or ConvertOptions(), progress=lambda text: None
            )
            seconds = time.perf_counter() - started
            _MADE[name] = Converted(report, output.read_bytes(), seconds)
    return _MADE[name]


def tf1_entries() -> list[Entry]:
    """Graphs that real TensorFlow 1.15.5 and 1.4.1 wrote."""
    found = []
    for folder in sorted(TF1.iterdir()):
        inputs, outputs = recorded(folder / "io.npz")
        cell, _, form = folder.name.partition("-")
        count = {"bidi": 2, "stackbidi": 4}.get(form.removesuffix("_len"), 1)
        count *= 2 if cell == "multi" else 1
        fused = count if cell in FUSED_CELLS else 0
        assert cell in FUSED_CELLS | LOOP_CELLS
        found.append(Entry(folder.name, folder / "frozen.pb", fused, count, inputs, outputs))
    for path in sorted(TF1_4.glob("*.pb")):
        with np.load(path.with_suffix(".npz")) as archive:
            inputs, outputs = {"x": archive["x"]}, {"out": archive["out"]}
        cell = path.stem.partition("-")[0]
        assert cell in FUSED_CELLS | LOOP_CELLS
        fused = int(cell in FUSED_CELLS)
        found.append(Entry(f"1.4.1 {path.stem}", path, fused, 1, inputs, outputs))
    return found


def model_entries() -> list[Entry]:
    """Third-party models."""
    found = []
    for name, (fused, expected) in MODELS.items():
        folder = CORPUS / "models" / name
        meta = json.loads((folder / "meta.json").read_text())
        inputs, outputs = recorded(folder / "golden.npz")
        found.append(
            Entry(
                name,
                folder / meta["runner"]["file"],
                fused,
                expected,
                inputs,
                outputs,
                _options(name, inputs, outputs),
            )
        )
    return found


def _options(name: str, inputs: dict[str, Array], outputs: dict[str, Array]) -> ConvertOptions:
    """What a user of the model would give."""
    given: dict[str, Any] = {}
    if not name.startswith("saved"):
        given["outputs"] = tuple(outputs)
    if "dl4j" in name:  # their inputs are constants
        given["inputs"] = tuple(map(TensorChoice, inputs))
    elif "kws" in name:  # behind the features of the audio
        given["inputs"] = tuple(TensorChoice(k, a.shape) for k, a in inputs.items())
    elif "mobirnn" in name:  # the graph does not say its input's shape
        given["inputs"] = tuple(TensorChoice(k, (None, *a.shape[1:])) for k, a in inputs.items())
    return ConvertOptions(**given)


def recorded(path: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs and outputs by the names that the file will have."""

    def plain(key: str) -> str:
        return key.partition(":")[2].replace("|", "/").removesuffix(":0")

    with np.load(path) as archive:
        inputs = {plain(k): archive[k] for k in archive if k.startswith("in:")}
        outputs = {
            plain(k): archive[k] for k in archive if k.startswith("out:") and "pre:" not in k
        }
    return inputs, outputs
