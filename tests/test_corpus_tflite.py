"""Every .tflite file of the corpus converts: re-fused where it can be, and equal to its golden.

Outputs are compared with the recorded ones of the original file; for the .tflite twins of Keras
models with those of the Keras model itself.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from keras_files import CORPUS

from edgelstm.converters import pipeline
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.spec import Array, Lowering
from edgelstm.runtime import Session

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the corpus is not at {CORPUS}")

EXACT = 1e-6
# int8 weights of the file, and activations that it quantizes, against the float Keras model.
HYBRID = 0.1


@dataclasses.dataclass(frozen=True)
class Expected:
    """What must become of a file.

    Attributes:
        lowerings: of its recurrences, in order.
        allowed: error against golden, of the output's range.
    """

    lowerings: tuple[Lowering, ...]
    allowed: float = EXACT


FUSED, STEP = Lowering.FUSED, Lowering.STEP
FILES = {
    "tflite_dtln_1_f32": Expected((STEP, STEP)),
    "tflite_dtln_1_dynrange": Expected((STEP, STEP)),
    "tflite_litert_lstm_ln_proj_f32": Expected((STEP,)),
    "tflite_litert_unilstm_ln_proj_f32": Expected((FUSED,)),
    "tflite_tflm_mnist_f32": Expected((FUSED,)),
    "tflite_tflm_mnist_int8": Expected((FUSED,)),
    "keras_impsy_dim9": Expected((FUSED, FUSED)),
    "keras_impsy_dim2": Expected((FUSED, FUSED), HYBRID),
}


def source_of(name: str) -> Path:
    """The entry's TFLite file, whatever its suffix."""
    return next(p for s in ("*.tflite", "*.bin") for p in sorted((CORPUS / name).glob(s)))


def run(
    session: Session, inputs: Mapping[str, Array], state: Mapping[str, str]
) -> dict[str, Array]:
    """The outputs; one call per frame where states go around."""
    if not state:
        return session.run(inputs)
    shapes = {info.name: info.shape for info in session.inputs}
    fed = {key: np.zeros([n or 1 for n in shapes[key]], np.float32) for key in state}
    collected: dict[str, list[Array]] = {}
    frames = len(next(iter(inputs.values())))
    for frame in range(frames):
        outputs = session.run({**{key: value[frame] for key, value in inputs.items()}, **fed})
        fed = {key: outputs[given] for key, given in state.items()}
        for key, value in outputs.items():
            collected.setdefault(key, []).append(value)
    series = {key: np.stack(value) for key, value in collected.items()}
    return series | {f"final:{given}": fed[key] for key, given in state.items()}


def error(actual: Array, wanted: Array) -> float:
    """The largest difference, of the wanted range, zero included."""
    wanted = wanted.astype(np.float64)
    scale = max(float(np.ptp(wanted)), float(np.abs(wanted).max()), 1e-3)
    return float(np.max(np.abs(actual.astype(np.float64) - wanted))) / scale


def _keras_names(
    session: Session, golden: Mapping[str, Array]
) -> list[tuple[dict[str, Array], dict[str, str]]]:
    """One call per row: inputs, and the golden output of each output, which Keras numbers."""
    places = {
        "inputs": "x",
        "state_h_0": "s0",
        "state_c_0": "s1",
        "state_h_1": "s2",
        "state_c_1": "s3",
    }
    names = ("mdn_outputs", "lstm_0", "lstm_0_1", "lstm_1", "lstm_1_1")
    if not any(info.name == names[0] for info in session.outputs):
        names = ("Identity", "Identity_1", "Identity_2", "Identity_3", "Identity_4")
    outputs = {name: f"out{place}" for place, name in enumerate(names)}
    rows = len(golden["in:x"])
    return [
        ({i.name: golden[f"in:{places[i.name]}"][r : r + 1] for i in session.inputs}, outputs)
        for r in range(rows)
    ]


@pytest.mark.parametrize("name", FILES)
def test_every_file_converts_and_equals_its_golden(name: str, tmp_path: Path) -> None:
    """The lowering of each recurrence is as listed; every one that is not fused has a reason."""
    expected = FILES[name]
    output = tmp_path / "out.tflite"
    report = pipeline.convert(source_of(name), output, ConvertOptions(), progress=lambda _: None)
    assert tuple(r.lowering for r in report.recurrences) == expected.lowerings
    assert all(r.reason for r in report.not_fused)
    golden = dict(np.load(CORPUS / name / "golden.npz"))
    session = Session(output)
    if name.startswith("keras_"):
        for row, (inputs, outputs) in enumerate(_keras_names(session, golden)):
            found = session.run(inputs)
            for key, wanted in outputs.items():
                value = golden[f"out:{wanted}"]
                scaled = error(found[key], value[row : row + 1])
                assert scaled <= expected.allowed, (key, scaled)
        return
    meta = json.loads((CORPUS / name / "meta.json").read_text())
    inputs = _named(session, {k[3:]: v for k, v in golden.items() if k.startswith("in:")})
    found = run(session, inputs, meta["runner"].get("state", {}))
    wanted_outputs = {k[4:]: v for k, v in golden.items() if k.startswith("out:")}
    for key, wanted in wanted_outputs.items():
        value = found[key] if key in found else next(iter(found.values()))
        assert error(value, wanted) <= expected.allowed, key


def _named(session: Session, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Golden names tensors; sessions name signature entries."""
    names = [info.name for info in session.inputs]
    if len(inputs) == len(names) == 1:
        return {names[0]: next(iter(inputs.values()))}
    return dict(inputs)


def test_a_converted_file_keeps_what_it_was(tmp_path: Path) -> None:
    """Fused once, a file is kept as it is by the next conversion."""
    first, second = tmp_path / "first.tflite", tmp_path / "second.tflite"
    done = pipeline.convert(
        source_of("keras_impsy_dim9"), first, ConvertOptions(), progress=lambda _: None
    )
    again = pipeline.convert(first, second, ConvertOptions(), progress=lambda _: None)
    assert again.ops == done.ops
    assert all(r.reason.startswith("kept") for r in again.recurrences)
