"""The native delegate: fused LSTM operators by our kernels inside every interpreter."""

from __future__ import annotations

import concurrent.futures
import ctypes
import gc
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from delegate_models import KERNELS, fused_model, invoked, opened, with_delegate
from fused_models import WAYS, add_marker, job, marker_model, random_spec, run
from lstm_reference import lstm
from profile_models import write_dense
from test_fused_lowering import (
    INTERPRETERS,
    TOLERANCE,
    chain_model,
    configuration_jobs,
    configurations,
    inputs_for,
    lowered,
)

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, lower_markers
from edgelstm.converters.quantize.dynamic import quantize_dynamic
from edgelstm.converters.quantize.float16 import quantize_float16
from edgelstm.converters.quantize.repeat import repeat_dequantize
from edgelstm.converters.spec import Array, LstmSpec, StatePolicy
from edgelstm.errors import EdgeLstmError, OptionError, UnsupportedModelError
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import ProfileSettings, RunBounds
from edgelstm.runtime import Delegate, Session, native, open_interpreter
from edgelstm.runtime.interpreters import choose_backend, load_delegate

pytestmark = pytest.mark.skipif(not KERNELS, reason="the native library was not built")


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("initial", [False, True], ids=["zero", "given"])
def test_every_configuration_equals_the_equations(
    interpreter: str, initial: bool, tmp_path: Path
) -> None:
    """States written by FILL or copies, dynamic and static sizes, with and without XNNPACK."""
    jobs, expected = configuration_jobs(initial)
    answers = run(interpreter, [with_delegate(one) for one in jobs], tmp_path)
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer["delegates"] >= 1
        for call, (sequence, _, c) in enumerate(wanted):
            np.testing.assert_allclose(answer[f"out{call}_0"], sequence, atol=TOLERANCE)
            np.testing.assert_allclose(answer[f"out{call}_1"], c, atol=TOLERANCE)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_neighbouring_layers_and_readers_of_c_equal_the_stock_kernels(
    interpreter: str, tmp_path: Path
) -> None:
    """Two LSTMs among ops that XNNPACK takes: every output as without the delegate."""
    first, second = random_spec(1, units=5), random_spec(2, units=5, features=5)
    weights = np.random.default_rng(3).standard_normal((3, 3)).astype(np.float32)
    rng = np.random.default_rng(4)
    calls = [
        [
            rng.standard_normal((b, t, 3)).astype(np.float32),
            rng.standard_normal((b, 5)).astype(np.float32),
        ]
        for b, t in [(2, 4), (2, 4), (3, 1), (3, 1), (1, 6)]
    ]
    data = lowered(chain_model(first, second, -1, weights), first, second)
    jobs = [job(data, calls, way) for way in WAYS]
    stock = run(interpreter, jobs, tmp_path)
    ours = run(interpreter, [with_delegate(one) for one in jobs], tmp_path)
    for one, other in zip(ours, stock, strict=True):
        for name, array in other.items():
            np.testing.assert_allclose(one[name], array, atol=TOLERANCE, err_msg=name)


def make_asymmetric(model: Model) -> None:
    op = model.main.find(FUSED_OP)[0]
    op.set_option("asymmetric_quantize_inputs", True)
    op.version = max(3, op.version)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("asymmetric", [False, True], ids=["symmetric", "asymmetric"])
def test_hybrid_layers_equal_the_stock_kernel(kernels: str, asymmetric: bool) -> None:
    """Short sequences; the stock kernel rounds at the same places."""
    for number, spec in enumerate(configurations()):
        model = fused_model(spec, batch=2, time=3)
        quantize_dynamic(model)
        if asymmetric:
            make_asymmetric(model)
        data = model.to_bytes()
        (x,) = inputs_for(spec, *(2, 3), number, initial=False)
        stock = open_interpreter(data)
        stock.allocate_tensors()
        ours, delegate = opened(data, {"isa": kernels})
        ours.allocate_tensors()
        assert native.delegate_counts(delegate)[:2] == (1, 0)
        np.testing.assert_allclose(invoked(ours, x), invoked(stock, x), atol=0.01, rtol=0.01)
        assert np.median(np.abs(invoked(ours, x) - invoked(stock, x))) <= 1e-5


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("batch", [-1, 2], ids=["dynamic", "static"])
def test_weights_behind_dequantize_are_read_where_they_are_stored(
    interpreter: str, batch: int, tmp_path: Path
) -> None:
    """float16 constants, and with a dynamic batch int16 ones behind RESHAPE."""
    jobs, expected = [], []
    for number in range(4):
        spec = random_spec(
            number,
            units=24,
            features=9,
            outputs=20 if number % 2 else None,
            peephole=number == 2,
            layer_norm=number == 3,
        )
        model = marker_model(spec, batch=batch, final_c=True)
        lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
        quantize_float16(model)
        repeat_dequantize(model)
        assert model.main.find("DEQUANTIZE")
        sizes = [(2, 3), (2, 3)] if batch > 0 else [(3, 4), (1, 2), (5, 1), (3, 4)]
        calls = [inputs_for(spec, *size, seed=i, initial=False) for i, size in enumerate(sizes)]
        jobs.append(job(model.to_bytes(), calls, WAYS[number]))
        expected.append([lstm(spec, *call) for call in calls])
    stock = run(interpreter, jobs, tmp_path)
    ours = run(interpreter, [with_delegate(one) for one in jobs], tmp_path)
    for one, other, wanted in zip(ours, stock, expected, strict=True):
        assert one["delegates"] >= 1
        for name, array in other.items():
            np.testing.assert_allclose(one[name], array, atol=1e-5, err_msg=name)
        for call, (sequence, _, _) in enumerate(wanted):
            np.testing.assert_allclose(one[f"out{call}_0"], sequence, atol=0.02)


def test_float16_layers_are_taken() -> None:
    """Static and dynamic batch: no operator is left to the interpreter."""
    for batch in (-1, 2):
        spec = random_spec(0, units=24, features=9)
        model = marker_model(spec, batch=batch)
        lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
        quantize_float16(model)
        repeat_dequantize(model)
        _, delegate = opened(model.to_bytes())
        assert native.delegate_counts(delegate) == (1, 0, "")


def carried(spec: LstmSpec, batch: int = 2, time: int = 4) -> tuple[Any, Any]:
    interpreter, delegate = opened(fused_model(spec, batch=batch, time=time).to_bytes())
    interpreter.allocate_tensors()
    return interpreter, delegate


def state_indices(interpreter: Any) -> dict[str, int]:
    return {
        detail["name"].rpartition("/")[2]: detail["index"]
        for detail in interpreter.get_tensor_details()
        if detail["name"].endswith(("/h", "/c"))
    }


def test_states_persist_reset_and_can_be_read_and_written() -> None:
    """They stay in the interpreter's own variable tensors."""
    spec = random_spec(3)
    interpreter, _ = carried(spec)
    (x,) = inputs_for(spec, 2, 4, 0, initial=False)
    first, h, c = lstm(spec, x)
    np.testing.assert_allclose(invoked(interpreter, x), first, atol=TOLERANCE)
    second, h2, c2 = lstm(spec, x, h, c)
    indices = state_indices(interpreter)
    np.testing.assert_allclose(interpreter.get_tensor(indices["h"]), h, atol=TOLERANCE)
    np.testing.assert_allclose(interpreter.get_tensor(indices["c"]), c, atol=TOLERANCE)
    np.testing.assert_allclose(invoked(interpreter, x), second, atol=TOLERANCE)
    interpreter.reset_all_variables()
    np.testing.assert_allclose(invoked(interpreter, x), first, atol=TOLERANCE)
    interpreter.set_tensor(indices["h"], h2.astype(np.float32))
    interpreter.set_tensor(indices["c"], c2.astype(np.float32))
    np.testing.assert_allclose(
        invoked(interpreter, x), lstm(spec, x, h2, c2)[0], atol=2 * TOLERANCE
    )


def test_another_number_of_steps_is_computed_without_a_new_delegate() -> None:
    """Resizing prepares the same kernel again."""
    spec = random_spec(4)
    interpreter, delegate = carried(spec)
    for time in (1, 9, 300, 2):
        (x,) = inputs_for(spec, 2, time, time, initial=False)
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
        interpreter.allocate_tensors()
        interpreter.reset_all_variables()
        np.testing.assert_allclose(invoked(interpreter, x), lstm(spec, x)[0], atol=TOLERANCE)
    assert native.delegate_counts(delegate) == (1, 0, "")


def test_a_batch_that_the_states_do_not_fit_is_an_error() -> None:
    """As with the stock kernel, and with the numbers in the message."""
    spec = random_spec(4)
    interpreter, _ = carried(spec)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (3, 4, 3))
    with pytest.raises(RuntimeError, match="states of an LSTM do not fit its batch of 3"):
        interpreter.allocate_tensors()


def test_one_delegate_serves_several_interpreters_on_several_threads() -> None:
    """Each keeps its own states and scratch memory."""
    module = pytest.importorskip("ai_edge_litert.interpreter")
    specs = [random_spec(n, units=20 + n, features=7) for n in range(4)]
    delegate = module.load_delegate(str(native.library_path()))

    def serve(spec: LstmSpec) -> list[Array]:
        data = fused_model(spec, batch=2, time=30).to_bytes()
        interpreter = module.Interpreter(model_content=data, experimental_delegates=[delegate])
        interpreter.allocate_tensors()
        return [
            invoked(interpreter, *inputs_for(spec, 2, 30, seed, initial=False))
            for seed in range(40)
        ]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(serve, specs))
    for spec, got in zip(specs, answers, strict=True):
        h, c = np.zeros((2, spec.units)), np.zeros((2, spec.units))
        for seed, sequence in enumerate(got):
            (x,) = inputs_for(spec, 2, 30, seed, initial=False)
            wanted, h, c = lstm(spec, x, h, c)
            np.testing.assert_allclose(sequence, wanted, atol=2 * TOLERANCE)
    assert native.delegate_counts(delegate)[0] == len(specs)


class _Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`: bytes by kind, over all arenas."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks".split()
    ] + [("keepcost", ctypes.c_size_t)]


def allocated_bytes() -> int:
    """What malloc has given out and not got back.

    Resident memory also grows by what other tests of this process left between its pieces.
    """
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        pytest.skip("memory is counted by mallinfo2 of glibc >= 2.33")
    mallinfo.restype = _Mallinfo
    gc.collect()  # interpreters stand in cycles
    info = mallinfo()
    return int(info.uordblks) + int(info.hblkhd)


def test_memory_is_flat_over_many_invokes() -> None:
    """Twenty thousand calls, and two hundred interpreters made and dropped."""
    spec = random_spec(5, units=24, features=8)
    interpreter, _ = carried(spec, 1, 5)
    (x,) = inputs_for(spec, 1, 5, 0, initial=False)
    invoked(interpreter, x)
    before = allocated_bytes()
    for _ in range(20_000):
        interpreter.invoke()
    assert allocated_bytes() - before < 20_000
    big = random_spec(5, units=128, features=64)
    for number in range(201):
        carried(big)
        if number == 0:
            before = allocated_bytes()
    assert allocated_bytes() - before < 100_000


def test_each_layer_is_one_kernel() -> None:
    """Neighbours are not merged, so that each is seen and timed alone."""
    specs = [random_spec(n, units=5, features=3 if n == 0 else 5) for n in range(3)]
    model = Model()
    main = model.add_subgraph("main")
    x = main.add_tensor("x", (1, 4, 3))
    last = x
    for number, spec in enumerate(specs):
        (last,) = add_marker(main, number, [last], spec)
    main.inputs, main.outputs = [x], [last]
    lower_markers(model, dict(enumerate(specs)), policy=StatePolicy.CARRY)
    interpreter, delegate = opened(model.to_bytes())
    assert native.delegate_counts(delegate)[0] == 3
    assert [op["op_name"] for op in interpreter._get_ops_details()].count("DELEGATE") == 3
    interpreter.allocate_tensors()
    (values,) = inputs_for(specs[0], 1, 4, 0, initial=False)
    wanted = values
    for spec in specs:
        wanted = lstm(spec, wanted)[0]
    np.testing.assert_allclose(invoked(interpreter, values), wanted, atol=TOLERANCE)


@pytest.mark.parametrize("backend", ["litert", "tflite-runtime", "tensorflow"])
def test_sessions_take_it_by_name(backend: str) -> None:
    """In every interpreter that is here."""
    try:
        choose_backend(backend)
    except EdgeLstmError as error:
        pytest.skip(str(error))
    spec = random_spec(6)
    data = lowered(marker_model(spec), spec)
    session = Session(data, backend=backend, delegate=Delegate("edgelstm"))
    for batch, time in ((1, 4), (3, 2)):
        (x,) = inputs_for(spec, batch, time, 0, initial=False)
        np.testing.assert_allclose(
            session.run({"x": x})["sequence"], lstm(spec, x)[0], atol=TOLERANCE
        )


def test_the_environment_chooses_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not run here is refused, not replaced."""
    assert native.load()[1].chosen == KERNELS[0]
    for name in KERNELS:
        monkeypatch.setenv("EDGELSTM_ISA", name)
        assert native.load()[1].chosen == name
    monkeypatch.setenv("EDGELSTM_ISA", "mmx")
    assert native.load()[1].chosen is None
    with pytest.raises(OptionError, match=r"(?s)mmx.*scalar"):
        load_delegate(choose_backend(None))


def test_wrong_options_are_refused() -> None:
    """With a message through the interpreter."""
    module = pytest.importorskip("ai_edge_litert.interpreter")
    for options, message in (
        ({"threads": 2}, "the options are isa"),
        ({"isa": "mmx"}, "names no kernels"),
    ):
        with pytest.raises(ValueError, match=message):
            module.load_delegate(str(native.library_path()), options)


def test_a_delegate_that_must_take_an_op_says_why_it_took_none() -> None:
    """So that stock kernels are never measured under its name."""
    model = fused_model(random_spec(2), batch=1, time=2)
    model.main.find(FUSED_OP)[0].set_option("cell_clip", -1.0)
    with pytest.raises((RuntimeError, ValueError), match="no fused LSTM op was taken.*negative"):
        opened(model.to_bytes(), {"claim": "required"})


def test_a_profile_measures_it(tmp_path: Path) -> None:
    """Beside the stock kernels; a model without the op is an error."""
    path = tmp_path / "lstm.tflite"
    path.write_bytes(lowered(marker_model(random_spec(2)), random_spec(2)))
    bounds = RunBounds(min_seconds=0.02, max_seconds=0.1, min_runs=20)
    report = profile(path, ProfileSettings(delegates=("cpu", "edgelstm"), bounds=bounds))
    took = [(m.configuration.delegate, "DELEGATE" in (m.ops or ())) for m in report.measurements]
    assert took == [("cpu", False), ("edgelstm", True)]
    dense = write_dense(tmp_path / "dense.tflite")
    with pytest.raises(UnsupportedModelError, match="no fused LSTM op was taken"):
        profile(dense, ProfileSettings(delegates=("edgelstm",), bounds=bounds))


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name} here")
    return path


def test_the_library_runs_on_old_systems_and_is_small(tmp_path: Path) -> None:
    """No symbol newer than glibc 2.28, no C++ runtime, under 400 kB stripped."""
    library = native.library_path()
    listed = subprocess.run(
        [tool("objdump"), "-pT", library], capture_output=True, text=True, check=True
    ).stdout
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+)", listed)}
    assert max(versions) <= (2, 28)
    assert "libstdc++" not in listed
    stripped = tmp_path / "stripped.so"
    subprocess.run([tool("strip"), "-o", stripped, library], check=True)
    assert stripped.stat().st_size < 400_000
