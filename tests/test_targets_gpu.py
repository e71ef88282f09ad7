"""Files of `convert --target gpu` on the GPU accelerator, with SwiftShader as its device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from software_gpu import vulkan_environment

from edgelstm.cli import run
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.options import Target
from edgelstm.converters.spec import StatePolicy
from edgelstm.converters.targets.write import write_plain

pytestmark = pytest.mark.bed

ASK = """
import json, sys
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
taken = {}
for path in sys.argv[1:]:
    try:
        model = CompiledModel.from_file(path, HardwareAccelerator.GPU)
        taken[path] = model.is_fully_accelerated()
    except RuntimeError as error:
        taken[path] = str(error)
print(json.dumps(taken))
"""


@pytest.fixture(scope="module")
def software_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Vulkan finds SwiftShader."""
    return vulkan_environment(tmp_path_factory.mktemp("gpu"))


def taken(env: dict[str, str], *files: Path) -> dict[str, object]:
    """By file name, whether the accelerator takes all of a file; else what it says."""
    argv = [sys.executable, "-c", ASK, *map(str, files)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=True)
    return {Path(k).name: v for k, v in json.loads(done.stdout.splitlines()[-1]).items()}


def test_every_kind_of_lstm_is_fully_accelerated(
    software_gpu: dict[str, str], tmp_path: Path
) -> None:
    """Peepholes, projections, layer norm, ...: in one step and in five."""
    from fused_models import FORMS, marker_model

    files = []
    for number, make in enumerate(FORMS.values()):
        for time in (1, 5):
            spec = make()
            model = marker_model(spec, batch=2, time=time, initial=True, final_c=True)
            lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
            write_plain(Target.GPU, model)
            files.append(tmp_path / f"{number}-{time}.tflite")
            files[-1].write_bytes(model.to_bytes())
    assert taken(software_gpu, *files) == {path.name: True for path in files}


def test_converted_models_are_fully_accelerated_and_equal_on_the_gpu(
    software_gpu: dict[str, str], tmp_path: Path
) -> None:
    """Embedding, both directions, a GRU; whole sequences, given states, single steps, precisions;
    and `profile` finds the GPU's outputs equal to the CPU's."""
    from keras_files import randomise

    from edgelstm.converters.sources.keras.engine import KerasEngine

    keras = KerasEngine.KERAS3.module
    x = keras.Input((None,), name="ids", dtype="int32")
    y = keras.layers.Embedding(20, 5)(x)
    y = keras.layers.LSTM(6, return_sequences=True)(y)
    y = keras.layers.GRU(5, return_sequences=True)(y)
    y = keras.layers.LSTM(4)(y)
    made = keras.Model(x, keras.layers.Dense(2, name="score")(y))
    randomise(made)
    source = tmp_path / "m.keras"
    made.save(source)
    forms = {
        "whole": ["--time", "6"],
        "given": ["--time", "4", "--state", "explicit"],
        "step": ["--step-only"],
        "forms": ["--time", "4", "--streaming"],
        "float16": ["--time", "4", "--quantize", "float16"],
        "dynamic": ["--time", "4", "--quantize", "dynamic"],
    }
    files = []
    for name, more in forms.items():
        files.append(tmp_path / f"{name}.tflite")
        call = ["convert", str(source), "-o", str(files[-1]), "--target", "gpu", *more]
        assert run(call) == 0
    assert taken(software_gpu, *files) == {path.name: True for path in files}
    argv = [sys.executable, "-m", "edgelstm", "profile", str(files[0]), "--json", "-"]
    argv += ["--delegate", "cpu,gpu", "--max-seconds", "2"]
    done = subprocess.run(argv, env=software_gpu, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    gpu = json.loads(done.stdout)["configurations"][1]
    assert gpu["accuracy"][0]["relative"] < 1e-5
