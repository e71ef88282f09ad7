"""`python -m edgelstm.runtime.overhead`: what it prints, and what it leaves out by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from stream_models import carry

from edgelstm.runtime import overhead


def printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    *arguments: str,
) -> str:
    """What the command prints about a small model."""
    path = folder / "model.tflite"
    path.write_bytes(carry(1, 1).content)
    monkeypatch.setattr(sys, "argv", ["overhead", str(path), "--steps", "40", *arguments])
    assert overhead.main() == 0
    return capsys.readouterr().out


def test_ways_and_the_slope_of_the_memory_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line per way with its ratio to the bare `invoke`, then the memory."""
    out = printed(monkeypatch, capsys, tmp_path, "--memory", "200")
    for way in ("invoke", "push", "push into", "set, invoke, get"):
        assert any(line.startswith(way) and "x invoke" in line for line in out.splitlines())
    assert "bytes per step" in out


def test_a_missing_peer_is_named_and_the_rest_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without onnxruntime the line says so."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    pytest.importorskip("onnx", reason="the peer's model is made by the onnx package")
    out = printed(monkeypatch, capsys, tmp_path, "--onnx", "3x4")
    assert "onnxruntime       skipped: onnxruntime does not import" in out
    assert any(line.startswith("push") for line in out.splitlines())


def test_memory_that_grows_has_a_slope() -> None:
    """Of the second half: what is allocated once at the start does not count."""
    grown = [(0, 0)] + [(n, 1_000_000 + 2 * n) for n in range(100, 1100, 100)]
    assert overhead.slope(grown) == pytest.approx(2.0)
    assert overhead.slope([(n, 5) for n in range(11)]) == pytest.approx(0.0)
