"""The GPU accelerator through CompiledModel, on SwiftShader: a Vulkan device made of software."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from profile_models import write_unrolled
from software_gpu import vulkan_environment

pytestmark = pytest.mark.bed

FUSED = Path(__file__).parent / "data" / "runtime" / "reset.tflite"


@pytest.fixture(scope="module")
def software_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Vulkan finds SwiftShader."""
    return vulkan_environment(tmp_path_factory.mktemp("gpu"))


@pytest.fixture(scope="module")
def unrolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unrolled(tmp_path_factory.mktemp("model") / "unrolled.tflite")


def profile(env: dict[str, str], model: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, document and what stderr says."""
    argv = [sys.executable, "-m", "edgelstm", "profile", str(model), "--json", "-", *arguments]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def test_the_gpu_is_measured_beside_the_cpu_and_its_outputs_are_compared(
    software_gpu: dict[str, str], unrolled: Path
) -> None:
    """Fully accelerated, and equal to the cpu to float32's last bits."""
    bounds = ("--max-seconds", "2")
    code, report, said = profile(software_gpu, unrolled, "--delegate", "cpu,gpu", *bounds)
    assert code == 0, said
    cpu, gpu = report["configurations"]
    assert gpu["delegate"] == "gpu"
    assert gpu["ops"] == ["DELEGATE"]
    assert gpu["latency"]["runs"] > 10
    (output,) = gpu["accuracy"]
    assert output["relative"] < 1e-5
    assert cpu["latency"]["p50_ms"] > 0


def test_a_fused_lstm_on_the_gpu_is_refused_and_never_runs_on_the_cpu_instead(
    software_gpu: dict[str, str],
) -> None:
    """CompiledModel takes no variable tensors; the cpu's row stays."""
    code, report, said = profile(software_gpu, FUSED, "--delegate", "cpu,gpu", "--max-seconds", "1")
    assert code == 1
    assert [each["delegate"] for each in report["configurations"]] == ["cpu"]
    (failure,) = report["failures"]
    assert "refuses the model on the gpu" in failure["message"]
    assert "1 of 2 configurations failed" in said


def test_without_a_gpu_that_is_the_message(unrolled: Path, tmp_path: Path) -> None:
    """No adapter is found: an error, not the cpu's figures under another name."""
    env = {**os.environ, "VK_ICD_FILENAMES": str(tmp_path / "none.json")}
    env.pop("LD_LIBRARY_PATH", None)
    code, report, said = profile(env, unrolled, "--delegate", "gpu", "--max-seconds", "1")
    assert code != 0
    assert report == {}
    assert "gpu" in said
