"""The report of quantization as JSON, as a page, and by the command line."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import KERAS3
from quantized_pairs import FEATURES, FORMS, STEPS, counting_up, made, measured, samples
from rich.console import Console

from edgelstm import cli
from edgelstm.converters.quantize.fidelity.page import to_page
from edgelstm.converters.quantize.fidelity.render import print_quantization
from edgelstm.converters.quantize.fidelity.sequences import TIMES
from edgelstm.converters.spec import (
    Precision,
)


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_holds_everything_itself_and_shows_names_as_text() -> None:
    pytest.importorskip("plotly")
    pair, data = made(FORMS["plain"], Precision.INT8, samples())
    page = to_page(measured(pair, data), "<b>model</b>")
    tags = Tags()
    tags.feed(page)
    names = [tag for tag, _ in tags.found]
    assert not {"link", "img", "iframe", "b"} & set(names)
    assert not any({"src", "href"} & set(attributes) for _, attributes in tags.found)
    assert names.count("script") >= 4  # the library, and a plot each
    assert "&lt;b&gt;model&lt;/b&gt;" in page
    for title in ("gate f", "cell state", "own error", "Error against the step"):
        assert title in page


def test_a_layer_that_stayed_float32_is_one_line_and_no_tables_of_zeros() -> None:
    """On the terminal and in the page; a layer that is quantized keeps its own."""
    pytest.importorskip("plotly")
    pair, data = made(FORMS["plain"], Precision.INT8, samples())
    report = measured(dataclasses.replace(pair, quantized=pair.plain), data)
    assert all(layer.is_exact for layer in report.layers)
    console = Console(record=True, width=120)
    print_quantization(report, console)
    text = console.export_text()
    assert "equal to float32" in text and "gate f" not in text
    assert "Equal to float32" in to_page(report, "model")
    assert not any(layer.is_exact for layer in measured(pair, data).layers)


LAYER = {"name", "units", "precision", "input", "kernel_error", "cell_scale", "ranges", "parts"}
FIGURES = {"rms", "snr_db", "max_error", "signal_rms", "values"}
SATURATION = {"clipped", "at_limit", "at_limit_float"}
DRIFT = FIGURES | {"first_rms", "last_rms", "growth", "by_step"}
REPORT = {
    "precision", "data", "rows", "steps", "long", "layers", "outputs", "warnings", "notes",
    "seconds",
}  # fmt: skip
PARTS = {"x", "gate_i", "gate_f", "gate_c", "gate_o", "c", "h", "own"}


def check_schema(found: dict[str, Any]) -> None:
    assert set(found) == REPORT
    assert set(found["long"]) == {"steps", "rows", "times", "run"}
    for layer in found["layers"]:
        assert set(layer) == LAYER and set(layer["parts"]) <= PARTS
        for part in layer["parts"].values():
            assert set(part) == FIGURES | SATURATION | {"long"}
            assert set(part["long"]) == DRIFT | SATURATION
    for output in found["outputs"]:
        assert set(output) == FIGURES | {"name", "range", "long"}
        assert set(output["long"]) == DRIFT
    assert all(set(w) == {"layer", "what", "cure"} for w in found["warnings"])


def test_the_json_has_the_documented_keys() -> None:
    pair, data = made(counting_up(), Precision.INT8, samples())
    found = json.loads(json.dumps(measured(pair, data).to_json(), allow_nan=False))
    check_schema(found)
    assert found["warnings"] and found["layers"][0]["cell_scale"] == 2.0**-10
    readme = (Path(__file__).parent.parent / "converters" / "README.md").read_text()
    for key in REPORT | LAYER | DRIFT | SATURATION | PARTS:
        assert f"`{key}`" in readme, key


@pytest.fixture(scope="module")
def model_and_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Both directions, then a layer whose last step alone is read."""
    folder = tmp_path_factory.mktemp("quantization")
    keras = KERAS3.module
    keras.utils.set_random_seed(3)
    layers = keras.layers
    x = keras.Input((None, FEATURES), name="x")
    y = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(x)
    y = layers.Dense(3, name="y")(layers.LSTM(5)(y))
    keras.Model(x, y).save(folder / "m.keras")
    np.savez(folder / "d.npz", x=samples())
    return folder / "m.keras", folder / "d.npz"


@pytest.mark.parametrize("precision", ["int8", pytest.param("dynamic", marks=pytest.mark.slow)])
def test_conversion_and_verification_give_the_same_numbers(
    precision: str,
    model_and_data: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Fresh from the source, and for the finished pair of files."""
    model, data = map(str, model_and_data)
    out, report, page = (str(tmp_path / name) for name in ("m.tflite", "r.json", "r.html"))
    static = ["--calibration", data] if precision == "int8" else ["--data", data]
    call = ["convert", model, "-o", out, "--quantize", precision, *static]
    assert cli.run([*call, "--report", report, "--html", page]) == 0
    shown = capsys.readouterr().out
    assert "gate f" in shown and "cell state" in shown and "growth" in shown
    fresh = json.loads(Path(report).read_text())["quantization"]
    check_schema(fresh)
    assert len(fresh["layers"]) == 3
    if precision == "int8":
        assert [layer["kernel_error"] for layer in fresh["layers"]] == [0.0, 0.0, 0.0]
    (output,) = fresh["outputs"]
    assert output["name"] == "y" and output["long"]["by_step"][-1][0] >= TIMES * STEPS - 10
    assert Path(page).stat().st_size > 100_000
    assert cli.run(["verify", model, out, "--data", data, "--quantization", "--json"]) == 0
    later = json.loads(capsys.readouterr().out)["quantization"]
    for found in (fresh, later):
        del found["seconds"], found["data"]
    assert later == fresh


@pytest.mark.slow
def test_finished_files_are_measured_beside_their_own_float32_form(
    model_and_data: tuple[Path, Path], tmp_path: Path
) -> None:
    model, data = map(str, model_and_data)
    plain, out, report = (str(tmp_path / name) for name in ("f.tflite", "m.tflite", "r.json"))
    assert cli.run(["convert", model, "-o", plain]) == 0
    call = ["convert", plain, "-o", out, "--quantize", "int8", "--calibration", data]
    assert cli.run([*call, "--report", report]) == 0
    found = json.loads(Path(report).read_text())["quantization"]
    check_schema(found)
    assert [layer["kernel_error"] for layer in found["layers"]] == [0.0, 0.0, 0.0]


def test_measuring_float32_is_refused(
    model_and_data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = model_and_data
    out = tmp_path / "m.tflite"
    assert cli.run(["convert", str(model), "-o", str(out), "--quantization"]) == 2
    assert "Nothing is quantized in float32" in capsys.readouterr().err
    assert not out.exists()
