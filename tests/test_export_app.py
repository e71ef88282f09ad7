"""Wrappers of one model: compiled and run in C, run in a browser, compiled or parsed otherwise."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_models import FEATURES, UNITS, write_app_model, write_app_source

from edgelstm.cli import run
from edgelstm.converters.export.app import read_app_model
from edgelstm.converters.export.write import LANGUAGES, export_app
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.options import OverwritePolicy
from edgelstm.converters.spec import Precision, StepForm, StreamingForms
from edgelstm.errors import OptionError, OutputError, UnsupportedModelError
from edgelstm.runtime import Normalisation, Stream, read_metadata
from edgelstm.runtime.normalisation import Constants

STUBS = Path(__file__).resolve().parent / "kotlin_stubs"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras model."""
    return write_app_source(tmp_path_factory.mktemp("source"))


# Of the input, a number per feature; of one output, one for all.
CONSTANTS = {
    "class": Constants.of([0.1, -20.0, 300.0], [2.0, 0.5, 40.0]),
    "my_score": Constants.of(-1.0, 7.5),
}


@pytest.fixture(scope="module", params=[{}, CONSTANTS], ids=["plain", "normalised"])
def model(
    source: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """The model with sequence, chunk and step, under a name that no program could use."""
    path = tmp_path_factory.mktemp("model") / "3 my-app.tflite"
    return write_app_model(source, path, normalisation=request.param)


@pytest.fixture(scope="module")
def apps(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All wrappers, by language."""
    folder = tmp_path_factory.mktemp("apps")
    folders = {language: folder / language for language in LANGUAGES}
    export_app(model, folders)
    return folders


def test_the_step_form_stands_alone_and_says_the_same(model: Path) -> None:
    """Without the other forms, whose variable tensors browsers refuse."""
    app = read_app_model(model)
    assert (app.snake, app.pascal) == ("_3_my_app", "Model3MyApp")
    alone = Model.read(app.content)
    assert len(alone.subgraphs) == 1 and not app.variables
    assert {each.key for each in alone.signatures} == {"serving_default", "step"}
    assert [t.symbol for t in app.inputs] == ["class_1"]
    x = np.random.default_rng(1).standard_normal((1, 20, FEATURES)).astype(np.float32)
    whole, step = Stream(model).push(x), Stream(app.content).push(x)
    for name, array in whole.items():
        np.testing.assert_allclose(step[name], array, rtol=0, atol=1e-6)
    assert Stream(app.content).states[0].shape == (1, UNITS)


def test_a_golden_test_holds_what_the_model_says(model: Path, apps: dict[str, Path]) -> None:
    """Frame by frame, in every language that reads it."""
    told = json.loads((apps["js"] / "golden.json").read_text())
    for language in ("kotlin", "swift"):
        assert json.loads((apps[language] / "golden.json").read_text()) == told
    scaled = "normalisation" in (read_metadata(model) or {})
    normalisation = Normalisation.APPLY if scaled else Normalisation.LEAVE
    stream = Stream(apps["js"] / "model.tflite", normalisation=normalisation)
    assert len(told["frames"]) == 32 and told["tolerance"] == 1e-5
    for frame in told["frames"]:
        given = np.float32(frame["inputs"]["class"]).reshape(1, 1, FEATURES)
        for name, array in stream.push(given).items():
            np.testing.assert_allclose(array.ravel(), frame["outputs"][name], rtol=0, atol=1e-6)


def test_the_c_wrapper_compiles_without_a_warning_and_passes_its_golden_test(
    apps: dict[str, Path], tmp_path: Path
) -> None:
    """As strict as a compiler gets; with one number changed it fails."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = apps["c"]
    strict = "-std=c11 -D_DEFAULT_SOURCE -Wall -Wextra -Werror -Wconversion".split()
    includes = ["-I.", "-Iruntime/include", "-Iruntime/stream"]
    (wrapper,) = [path.name for path in folder.glob("*.c") if path.name != "golden_test.c"]
    rest = [wrapper, *sorted(str(p) for p in (folder / "runtime").rglob("*.c"))]

    def built(test: str, name: str) -> Path:
        command = [compiler, *strict, *includes, test, *rest, "-o", str(tmp_path / name)]
        done = subprocess.run([*command, "-ldl", "-lm"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return tmp_path / name

    program = built("golden_test.c", "golden")
    text = (folder / "golden_test.c").read_text()
    start = text.index("wanted_energy[FRAMES]")
    at = text.index("{", text.index("{", start) + 1) + 1
    (tmp_path / "broken.c").write_text(text[:at] + "9 + " + text[at:])
    broken = built(str(tmp_path / "broken.c"), "broken")
    tflite = os.environ.get("EDGELSTM_TFLITE_C", "")
    if not tflite:
        pytest.skip("compiled, not run: EDGELSTM_TFLITE_C names no TensorFlow Lite C library")
    environment = {**os.environ, "EDGELSTM_TFLITE": tflite}
    programs = [(program, 0), (broken, 1)]
    content = (folder / wrapper).read_text()
    if "_std[1] = {7.5f}" in content:
        rest[0] = str(tmp_path / "wrong.c")
        (tmp_path / "wrong.c").write_text(content.replace("{7.5f}", "{7.4f}"))
        programs.append((built("golden_test.c", "wrong"), 1))
    for path, code in programs:
        done = subprocess.run(
            [str(path), str(folder / "model.tflite")],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == code, done.stderr
        assert ("32 frames" in done.stdout) is (code == 0)


@contextmanager
def served(folder: Path, modules: Path) -> Iterator[tuple[str, Any]]:
    """The folder with node_modules beside it over HTTP, and a wait for what a page reports."""
    reported: list[Any] = []
    arrived = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            path = path.split("?")[0]
            if path.startswith("/node_modules/"):
                return str(modules) + path.removeprefix("/node_modules")
            return str(folder) + path

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            reported.append(json.loads(content))
            self.send_response(200)
            self.end_headers()
            arrived.set()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def report(seconds: float) -> Any:
        assert arrived.wait(seconds), "the page has not reported"
        return reported[0]

    try:
        yield f"http://127.0.0.1:{server.server_port}", report
    finally:
        server.shutdown()
        server.server_close()


def in_browser(folder: Path) -> Any:
    """What golden.html reports from a headless Chromium with LiteRT.js."""
    modules = os.environ.get("EDGELSTM_LITERT_JS", "")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not modules or browser is None:
        pytest.skip(
            "EDGELSTM_LITERT_JS names no node_modules with @litertjs/core, or there is no Chromium"
        )
    # Not below pytest's folder: the browser is not done with its profile when it is told to end.
    with (
        served(folder, Path(modules)) as (address, report),
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
    ):
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        page = f"{address}/golden.html?report=/result"
        process = subprocess.Popen(
            [browser, *flags, f"--user-data-dir={profile}", page],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return report(120)
        finally:
            process.terminate()
            process.wait(30)


def test_the_javascript_wrapper_passes_its_golden_test_in_a_browser(
    apps: dict[str, Path],
) -> None:
    """LiteRT.js in headless Chromium gives Python's numbers, forks included."""
    told = in_browser(apps["js"])
    assert told.get("passed") is True, told
    assert told["frames"] == 32 and told["worst"] <= 1e-5


def test_the_browser_test_fails_where_the_numbers_do(apps: dict[str, Path], tmp_path: Path) -> None:
    """One output of one frame is changed."""
    folder = tmp_path / "js"
    shutil.copytree(apps["js"], folder)
    told = json.loads((folder / "golden.json").read_text())
    told["frames"][5]["outputs"]["energy"][0] += 0.5
    (folder / "golden.json").write_text(json.dumps(told))
    found = in_browser(folder)
    assert found["passed"] is False and "frame 5, energy[0]" in found["error"]


@pytest.mark.parametrize(("language", "suffix"), [("swift", ".swift"), ("kotlin", ".kt")])
def test_swift_and_kotlin_wrappers_parse(apps: dict[str, Path], language: str, suffix: str) -> None:
    """By the languages' tree-sitter grammars: syntax only."""
    parser = pytest.importorskip("tree_sitter")
    grammar = pytest.importorskip(f"tree_sitter_{language}")
    reader = parser.Parser(parser.Language(grammar.language()))
    files = sorted(apps[language].glob(f"*{suffix}"))
    assert len(files) == 2

    def damage(node: Any) -> list[Any]:
        own = [node] if node.type == "ERROR" or node.is_missing else []
        return own + [found for child in node.children for found in damage(child)]

    for path in files:
        content = path.read_bytes()
        assert not damage(reader.parse(content).root_node), path
        assert damage(reader.parse(content + b"\n}").root_node)


@pytest.mark.slow
def test_the_kotlin_wrapper_compiles(apps: dict[str, Path], tmp_path: Path) -> None:
    """With the real compiler, against declarations of the Interpreter and org.json."""
    compiler = os.environ.get("EDGELSTM_KOTLINC", "")
    if not compiler or shutil.which("java") is None:
        pytest.skip("EDGELSTM_KOTLINC names no kotlinc, or there is no Java")
    files = [str(path) for folder in (STUBS, apps["kotlin"]) for path in folder.glob("*.kt")]
    command = [compiler, "-Werror", "-d", str(tmp_path / "out"), *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_wrapper_holds_the_constants_as_the_file_tells_them(apps: dict[str, Path]) -> None:
    """Where it tells none, no wrapper speaks of them."""
    told = read_metadata(apps["c"] / "model.tflite") or {}
    names = {"c": "*.[ch]", "js": "*app.js", "kotlin": "*App.kt", "swift": "*App.swift"}
    for language, pattern in names.items():
        text = "".join(path.read_text() for path in apps[language].glob(pattern))
        assert ("300.0" in text) is ("normalisation" in told)
        assert ("denormaliseMyScore" in text or "denormalise_my_score" in text) is (
            "normalisation" in told and language != "js"
        )


def test_a_model_of_eight_bits_is_held_to_its_own_tolerance(source: Path, tmp_path: Path) -> None:
    """Other runtimes round its activations elsewhere."""
    path = write_app_model(source, tmp_path / "small.tflite", Precision.DYNAMIC)
    assert read_app_model(path).golden.tolerance == 5e-2


def test_what_cannot_be_wrapped_says_why(source: Path, model: Path, tmp_path: Path) -> None:
    """No step, variable tensors in a browser, folders in use: nothing is written."""
    plain = tmp_path / "plain.tflite"
    assert run(["convert", str(source), "-o", str(plain)]) == 0
    with pytest.raises(UnsupportedModelError, match="no form of one frame"):
        export_app(plain, {"c": tmp_path / "c"})
    fused = write_app_model(source, tmp_path / "fused.tflite", step=StepForm.FUSED)
    with pytest.raises(UnsupportedModelError, match="variable tensors"):
        export_app(fused, {"js": tmp_path / "js"})
    export_app(fused, {"c": tmp_path / "c"})
    with pytest.raises(OutputError, match="not empty"):
        export_app(model, {"c": tmp_path / "c"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OptionError, match="No language"):
        export_app(model, {})
    with pytest.raises(OptionError, match="one folder"):
        export_app(model, {"c": tmp_path / "x", "js": tmp_path / "x"})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="no folder"):
        export_app(model, {"c": tmp_path / "file"}, overwrite=OverwritePolicy.REPLACE)
    (tmp_path / "file").unlink()
    assert sorted(tmp_path.rglob("*")) == before
    assert run(["export-app", str(model)]) == 2
    arguments = ["export-app", str(model), "--c", str(tmp_path / "c"), "--name", "Other"]
    assert run(arguments) == 2
    assert run([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "c" / "other.h").is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".c-")]


def test_a_file_of_steps_only_is_taken_as_it_is(source: Path, tmp_path: Path) -> None:
    """Its one graph is the step."""
    path = write_app_model(source, tmp_path / "m.tflite", forms=StreamingForms.STEP)
    app = read_app_model(path)
    assert app.signature == "step" and len(app.states) == 2
    assert [state.input for state in app.states] == ["lstm_h", "lstm_c"]
