"""The C runtime, compiled here and run on a library with the TensorFlow Lite C API."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stream_models
from stream_models import FEATURES, UNITS, StreamModel

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.forms import STREAM_ENTRY, stream_entry

NATIVE = Path(__file__).resolve().parent.parent / "edgelstm" / "native"
SOURCES = sorted((NATIVE / "stream").glob("*.c"))
INCLUDES = [f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'stream'}"]
STATES = [
    {"name": "h", "input": "h_in", "output": "h_out"},
    {"name": "c", "input": "c_in", "output": "c_out"},
]
AXES = {"inputs": {"x": 1}, "outputs": {"y": 1}}
CHUNKS = (1, 7, 60)
Floats = np.ndarray[Any, np.dtype[np.float32]]


def compile_c(output: Path, sources: Sequence[Path], *flags: str) -> Path:
    """Runs the C compiler with every warning an error."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler")
    strict = ["-std=c11", "-D_DEFAULT_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror"]
    files = [str(source) for source in sources]
    command = [compiler, *strict, *INCLUDES, *files, "-o", str(output), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libedgelstm_stream.so."""
    folder = tmp_path_factory.mktemp("c")
    flags = ["-shared", "-fPIC", "-fvisibility=hidden", "-ldl"]
    return compile_c(folder / "libedgelstm_stream.so", SOURCES, *flags)


@pytest.fixture(scope="module")
def tflite() -> str:
    """A library with the C API; no Python package exports one."""
    path = os.environ.get("EDGELSTM_TFLITE_C", "")
    if not path:
        pytest.skip(
            "EDGELSTM_TFLITE_C names no library with the TensorFlow Lite C API; the npm package "
            "tfjs-tflite-node has one"
        )
    return path


def written(model: StreamModel, folder: Path, axes: Any = AXES) -> Path:
    """A model file that tells C of its states and its time."""
    content = Model.read(model.content)
    content.set_metadata(STREAM_ENTRY, stream_entry(STATES, axes))
    path = folder / "model.tflite"
    path.write_bytes(content.to_bytes())
    return path


def noise(frames: int, batch: int = 1) -> Floats:
    """x [B, T, F]."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, frames, FEATURES)).astype(np.float32)


class Tensor(ctypes.Structure):
    """EdgeLstmTensor."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int32),
        ("element_bytes", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("sizes", ctypes.POINTER(ctypes.c_int32)),
        ("time_axis", ctypes.c_int32),
        ("frame_bytes", ctypes.c_int64),
    ]


class Options(ctypes.Structure):
    """EdgeLstmStreamOptions."""

    _fields_ = [
        ("interpreter", ctypes.c_char_p),
        ("delegate", ctypes.c_char_p),
        ("threads", ctypes.c_int32),
    ]


class Api:
    """The library's functions on one stream, called as C would."""

    def __init__(self, library: Path, tflite: str, path: Path, threads: int = 1) -> None:
        self.c = load(library)
        error = ctypes.create_string_buffer(512)
        options = Options(tflite.encode(), None, threads)
        self.stream = self.c.edgelstm_stream_open(
            str(path).encode(), ctypes.byref(options), error, len(error)
        )
        self.opened = error.value.decode()

    def run(self, x: Floats, outputs: Sequence[Any]) -> int:
        """Inputs and outputs as arrays; returns the status."""
        given = (ctypes.c_void_p * 1)(x.ctypes.data)
        made = (ctypes.c_void_p * len(outputs))(*[array.ctypes.data for array in outputs])
        return int(self.c.edgelstm_stream_sequence(self.stream, x.shape[1], given, made))

    def y(self, x: Floats) -> Floats:
        """The sequence [B, T, U]."""
        out = np.full((*x.shape[:2], UNITS), np.nan, np.float32)
        assert self.run(np.ascontiguousarray(x), [out]) == 0, self.error()
        return out

    def error(self) -> str:
        return str(self.c.edgelstm_stream_error(self.stream).decode())

    def state(self, name: str) -> Floats:
        index = self.c.edgelstm_stream_state_index(self.stream, name.encode())
        array = np.empty((1, UNITS), np.float32)
        done = self.c.edgelstm_stream_get_state(
            self.stream, index, array.ctypes.data_as(ctypes.c_void_p), array.nbytes
        )
        assert done == 0, self.error()
        return array


def load(library: Path) -> Any:
    """The library with its functions' types."""
    c: Any = ctypes.CDLL(str(library))
    c.edgelstm_stream_open.restype = ctypes.c_void_p
    c.edgelstm_stream_fork.restype = ctypes.c_void_p
    c.edgelstm_stream_error.restype = ctypes.c_char_p
    pointer = ctypes.c_void_p
    c.edgelstm_stream_sequence.argtypes = [pointer, ctypes.c_int64, pointer, pointer]
    for kind in ("input", "output", "state"):
        listed = getattr(c, f"edgelstm_stream_{kind}")
        listed.argtypes, listed.restype = [pointer, ctypes.c_int32], ctypes.POINTER(Tensor)
        getattr(c, f"edgelstm_stream_{kind}_index").argtypes = [pointer, ctypes.c_char_p]
    for name in ("get_state", "set_state"):
        function = getattr(c, f"edgelstm_stream_{name}")
        function.argtypes = [pointer, ctypes.c_int32, pointer, ctypes.c_size_t]
    for name in ("close", "error", "fork", "reset"):
        getattr(c, f"edgelstm_stream_{name}").argtypes = [pointer]
    return c


@pytest.mark.parametrize("time", [-1, 1, 3])
def test_the_example_program_streams_as_the_recurrence(
    library: Path, tflite: str, tmp_path: Path, time: int
) -> None:
    """Whatever the chunks; files that fix their number of frames take multiples of it."""
    program = compile_c(
        tmp_path / "stream",
        [NATIVE / "stream" / "examples" / "stream.c"],
        f"-L{library.parent}",
        "-ledgelstm_stream",
        f"-Wl,-rpath,{library.parent}",
    )
    model = stream_models.explicit(1, time)
    path, x = written(model, tmp_path), noise(60)
    environment = {**os.environ, "EDGELSTM_TFLITE": tflite}
    environment.pop("EDGELSTM_DELEGATE", None)
    for size in CHUNKS:
        chunk = -(-size // max(time, 1)) * max(time, 1)
        done = subprocess.run(
            [str(program), str(path), str(chunk)],
            input=x.tobytes(),
            capture_output=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr.decode()
        found = np.frombuffer(done.stdout, np.float32).reshape(1, -1, UNITS)
        np.testing.assert_allclose(found, model.expected(x), rtol=0, atol=1e-6)


def test_rows_of_a_batch_keep_their_frames(library: Path, tflite: str, tmp_path: Path) -> None:
    """Two rows, cut into calls of three frames along an axis that is not the first."""
    model = stream_models.explicit(2, 3)
    api = Api(library, tflite, written(model, tmp_path))
    x = noise(12, 2)
    np.testing.assert_allclose(api.y(x), model.expected(x), rtol=0, atol=1e-6)
    api.c.edgelstm_stream_close(api.stream)


def test_states_can_be_read_set_reset_and_forked(
    library: Path, tflite: str, tmp_path: Path
) -> None:
    """By name, and a failing call leaves them."""
    model = stream_models.explicit(1)
    api = Api(library, tflite, written(model, tmp_path))
    c, x = api.c, noise(30)
    whole = model.expected(x)
    names = []
    for kind in ("input", "output", "state"):
        listed, index = getattr(c, f"edgelstm_stream_{kind}"), 0
        while listed(api.stream, index):
            tensor = listed(api.stream, index).contents
            names.append((kind, tensor.name.decode(), tensor.time_axis, tensor.frame_bytes))
            index += 1
    wide, narrow = 4 * UNITS, 4 * FEATURES
    states = [("state", "h", -1, wide), ("state", "c", -1, wide)]
    assert names == [("input", "x", 1, narrow), ("output", "y", 1, wide), *states]
    assert not api.state("h").any()
    api.y(x[:, :10])
    h, cell = api.state("h"), api.state("c")
    np.testing.assert_allclose(h[0], whole[0, 9], rtol=0, atol=1e-6)
    fork = c.edgelstm_stream_fork(api.stream)
    assert fork
    rest = api.y(x[:, 10:])
    np.testing.assert_allclose(rest, whole[:, 10:], rtol=0, atol=1e-6)
    own, api.stream = api.stream, fork
    np.testing.assert_array_equal(api.y(x[:, 10:]), rest)
    c.edgelstm_stream_close(own)  # the fork lives on
    c.edgelstm_stream_reset(api.stream)
    np.testing.assert_allclose(api.y(x), whole, rtol=0, atol=1e-6)
    for name, array in (("h", h), ("c", cell)):
        index = c.edgelstm_stream_state_index(api.stream, name.encode())
        assert c.edgelstm_stream_set_state(api.stream, index, array.ctypes.data, array.nbytes) == 0
        assert c.edgelstm_stream_set_state(api.stream, index, array.ctypes.data, 3) == -1
        assert "bytes" in api.error()
    before = api.state("c")
    assert c.edgelstm_stream_sequence(api.stream, 0, None, None) == -1
    assert "frames" in api.error()
    assert c.edgelstm_stream_sequence(api.stream, 4, None, None) == -1
    assert c.edgelstm_stream_get_state(api.stream, 7, before.ctypes.data, before.nbytes) == -1
    np.testing.assert_array_equal(api.state("c"), before)
    np.testing.assert_allclose(api.y(x[:, 10:]), whole[:, 10:], rtol=0, atol=1e-6)
    c.edgelstm_stream_close(api.stream)
    c.edgelstm_stream_close(None)


def test_forks_run_on_threads(library: Path, tflite: str, tmp_path: Path) -> None:
    """Ten of them at once, and the first is closed under way."""
    model = stream_models.explicit(1)
    api = Api(library, tflite, written(model, tmp_path))
    x = noise(300)
    api.y(x[:, :1])
    forks = []
    for _ in range(10):
        fork = Api.__new__(Api)
        fork.c, fork.stream = api.c, api.c.edgelstm_stream_fork(api.stream)
        forks.append(fork)
    api.c.edgelstm_stream_close(api.stream)

    def work(fork: Api) -> Floats:
        found = np.concatenate([fork.y(x[:, t : t + 1]) for t in range(1, 300)], axis=1)
        fork.c.edgelstm_stream_close(fork.stream)
        return found

    with ThreadPoolExecutor(10) as pool:
        for found in pool.map(work, forks):
            np.testing.assert_allclose(found, model.expected(x)[:, 1:], rtol=0, atol=1e-6)


def test_what_cannot_be_opened_says_why(library: Path, tflite: str, tmp_path: Path) -> None:
    """The model, its contract, the interpreter, the number of threads."""
    model = stream_models.explicit(1)
    path = written(model, tmp_path)
    silent = tmp_path / "silent.tflite"
    silent.write_bytes(model.content)
    text = tmp_path / "text.tflite"
    text.write_bytes(b"nothing of the kind")
    wrong = tmp_path / "wrong.tflite"
    content = Model.read(model.content)
    content.set_metadata(STREAM_ENTRY, b"state\th\th_in\tnowhere")
    wrong.write_bytes(content.to_bytes())
    for given, interpreter, threads, said in (
        (tmp_path / "none.tflite", tflite, 1, "cannot be read"),
        (text, tflite, 1, "TFL3"),
        (silent, tflite, 1, "--state explicit"),
        (wrong, tflite, 1, "damaged"),
        (path, str(tmp_path / "none.so"), 1, "does not load"),
        (path, str(library), 1, "no TensorFlow Lite C library"),
        (path, tflite, -1, "threads"),
    ):
        api = Api(library, interpreter, given, threads)
        assert not api.stream
        assert said in api.opened


def test_damaged_files_are_refused_without_reading_outside_them(tmp_path: Path) -> None:
    """The reader of the contract alone, under the sanitizers: interpreters crash on such files."""
    harness = tmp_path / "harness.c"
    harness.write_text(
        '#include "contract.h"\n'
        "int main(int count, char** paths) {\n"
        "  for (int i = 1; i < count; ++i) {\n"
        "    Contract contract;\n"
        "    char error[64];\n"
        "    if (edgelstm_contract_read(paths[i], &contract, error, sizeof error) == 0) {\n"
        "      edgelstm_contract_free(&contract);\n"
        "    }\n"
        "  }\n"
        "  return 0;\n"
        "}\n"
    )
    program = compile_c(
        tmp_path / "harness",
        [harness, NATIVE / "stream" / "contract.c"],
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    )
    whole = written(stream_models.explicit(1), tmp_path).read_bytes()
    rng = np.random.default_rng(0)
    paths = []
    for number in range(600):
        content = bytearray(whole)
        if number % 3 == 0:
            del content[int(rng.integers(len(content))) :]
        for place in rng.integers(0, max(1, len(content)), 1 + number % 5):
            if place < len(content):
                content[place] = int(rng.integers(256))
        paths.append(tmp_path / f"{number}.tflite")
        paths[-1].write_bytes(content)
    done = subprocess.run([str(program), *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_header_is_c_and_cpp(tmp_path: Path) -> None:
    """In the strictest form of both."""
    for suffix, compiler, standard in ((".c", "cc", "-std=c99"), (".cc", "c++", "-std=c++11")):
        if shutil.which(compiler) is None:
            pytest.skip(f"there is no {compiler}")
        source = tmp_path / f"use{suffix}"
        source.write_text("#include <edgelstm/stream.h>\nint main() { return 0; }\n")
        flags = [standard, "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        done = subprocess.run([compiler, *flags, *INCLUDES, str(source)], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()


def test_the_cmake_package_is_found_and_linked(tmp_path: Path) -> None:
    """As an application would: install, find_package, link, run."""
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake")

    def cmake(*arguments: str) -> None:
        done = subprocess.run(["cmake", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]

    prefix = tmp_path / "installed"
    for source, build, flags in (
        (
            NATIVE / "stream",
            "library",
            ["-DEDGELSTM_WERROR=ON", f"-DCMAKE_INSTALL_PREFIX={prefix}"],
        ),
        (NATIVE / "stream" / "examples", "example", [f"-DCMAKE_PREFIX_PATH={prefix}"]),
    ):
        cmake("-S", str(source), "-B", str(tmp_path / build), *flags)
        cmake("--build", str(tmp_path / build))
        if build == "library":
            cmake("--install", str(tmp_path / build))
    done = subprocess.run([str(tmp_path / "example" / "stream")], capture_output=True, text=True)
    assert done.returncode == 2 and "usage" in done.stderr
