"""Third-party ONNX models against the outputs that ONNX Runtime gave of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.spec import Lowering
from edgelstm.runtime import Session

pytest.importorskip("onnxruntime", reason="the reference is ONNX Runtime")

# Model, number of fused ops.
MODELS = {"onnx_dtln_1": 2, "onnx_nnsplit_en": 6, "onnx_silero_vad_v6_16k": 1}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_third_party_model_gives_its_recorded_outputs(
    name: str, corpus: Path, tmp_path: Path
) -> None:
    folder = corpus / "models" / name
    meta = json.loads((folder / "meta.json").read_text())
    output = tmp_path / "model.tflite"
    source = folder / meta["runner"]["file"]
    report = convert(source, output, ConvertOptions(), progress=lambda _: None)
    assert [r.lowering for r in report.recurrences] == [Lowering.FUSED] * MODELS[name]
    golden = np.load(folder / "golden.npz")
    given = {k.removeprefix("in:"): golden[k] for k in golden.files if k.startswith("in:")}
    wanted = {k.removeprefix("out:"): golden[k] for k in golden.files if k.startswith("out:")}
    session = Session(output)
    if meta["runner"]["kind"] == "onnx":
        _compare(session.run(given), wanted)
        return
    states = {
        name: np.zeros(form["shape"], np.float32)
        for name, form in meta["runner"]["state_in"].items()
    }
    steps: dict[str, list[Any]] = {}
    for frame in range(len(next(iter(given.values())))):
        found = session.run({**{n: v[frame] for n, v in given.items()}, **states})
        states = {name: found[out] for name, out in meta["runner"]["state"].items()}
        for name_, value in found.items():
            steps.setdefault(name_, []).append(value)
    have = {name_: np.stack(values) for name_, values in steps.items()}
    have |= {f"final:{out}": found[out] for out in meta["runner"]["state"].values()}
    _compare(have, wanted)


def _compare(have: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert wanted
    for name, value in wanted.items():
        scale = max(1.0, float(np.max(np.abs(value))))
        np.testing.assert_allclose(have[name] / scale, value / scale, rtol=0, atol=1e-5)
