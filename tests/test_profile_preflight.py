"""What is said before a run: operators that a delegate may take, and known quirks of devices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from profile_fakes import MS, QUICK, jitter

from edgelstm.errors import EdgeLstmError, OptionError
from edgelstm.profiles import devices, quirks
from edgelstm.profiles.preflight import preflight
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import ProfileSettings
from edgelstm.profiles.targets.fake import FACTS, FakeTarget

FUSED = Path(__file__).parent / "data" / "runtime" / "reset.tflite"
LITERT = "ai-edge-litert"
CORTEX_A72 = dataclasses.replace(
    FACTS,
    machine="aarch64",
    features=("fp", "asimd", "crc32", "cpuid"),
    backends={LITERT: "2.3.0", "tflite-runtime": "2.14.0"},
)
CORTEX_A76 = dataclasses.replace(CORTEX_A72, features=(*CORTEX_A72.features, "atomics"))
DIED = EdgeLstmError("the agent ended during 'load': killed by SIGILL", cure="another version")


def test_each_delegate_is_set_beside_the_operators_of_the_model() -> None:
    """The file has one fused LSTM and operators that make its states."""
    settings = ProfileSettings(delegates=("cpu", "xnnpack", "edgelstm", "gpu"))
    cpu, xnnpack, ours, gpu = preflight(FUSED, settings)
    assert cpu.may_take == ()
    assert cpu.lines() == []
    assert xnnpack.never_takes == ("UNIDIRECTIONAL_SEQUENCE_LSTM",)
    assert ours.may_take == ("UNIDIRECTIONAL_SEQUENCE_LSTM",)
    assert ours.lines() == ["edgelstm may take UNIDIRECTIONAL_SEQUENCE_LSTM and nothing else here"]
    (line,) = gpu.lines()
    assert line == (
        "gpu may take all but UNIDIRECTIONAL_SEQUENCE_LSTM, and takes the whole graph or fails: "
        "convert with --target gpu"
    )


def test_nnapi_names_the_conditions_of_its_lstm_operators() -> None:
    """Precision and Android's version decide, which the operators alone do not tell."""
    settings = ProfileSettings(delegates=("nnapi",))
    (found,) = preflight(FUSED, settings)
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in found.may_take
    assert any("float32, on Android 10" in line for line in found.lines())


def test_a_quirk_is_met_by_its_processors_and_versions_alone() -> None:
    """LiteRT's CompiledModel needs LSE atomics: a Cortex-A72 has none."""
    (found,) = quirks.met(CORTEX_A72, LITERT)
    assert found.name == "compiled-model-needs-lse"
    assert found.delegates == ("gpu",)
    assert quirks.met(CORTEX_A76, LITERT) == ()
    assert quirks.met(CORTEX_A72, "tflite-runtime") == ()
    older = dataclasses.replace(CORTEX_A72, backends={LITERT: "1.4.0"})
    assert quirks.met(older, LITERT) == ()
    assert quirks.met(dataclasses.replace(CORTEX_A72, machine="x86_64"), LITERT) == ()
    # Nothing is concluded from flags that are not told.
    assert quirks.met(dataclasses.replace(CORTEX_A72, features=()), LITERT) == ()


def test_a_death_where_a_quirk_is_known_names_both_and_the_others_stay() -> None:
    """The signal comes first, then what is known, and what to do instead."""

    class Dying(FakeTarget):
        def fault(self, command: str, delegate: str) -> EdgeLstmError | None:
            return DIED if (command, delegate) == ("load", "gpu") else None

    target = Dying(latency=jitter(MS), facts=CORTEX_A72)
    settings = ProfileSettings(delegates=("cpu", "gpu"), bounds=QUICK)
    report = profile(FUSED, settings, target=target)
    assert [each.configuration.delegate for each in report.measurements] == ["cpu"]
    (failure,) = report.failures
    assert "killed by SIGILL; known: CompiledModel kills its process" in failure.message
    assert failure.cure is not None and "leave gpu out" in failure.cure
    document = report.to_json()
    assert [each["quirks"] for each in document["preflight"]] == [[], ["compiled-model-needs-lse"]]


def test_a_device_profile_may_hold_quirks_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(
        'target = "ssh"\n[[quirks]]\nname = "hot"\ndelegates = ["xnnpack"]\n'
        'text = "throttles within a minute"\n'
    )
    device = devices.read(path)
    assert [each.name for each in quirks.met(CORTEX_A76, LITERT, device.quirks)] == ["hot"]
    (own,) = device.quirks
    settings = ProfileSettings(delegates=("xnnpack",))
    assert (
        "xnnpack: known quirk: throttles within a minute"
        in preflight(FUSED, settings, (own,))[0].lines()
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quirks = 3", "'quirks' must be a list"),
        ("quirks = [3]", "'quirks' must be a list of tables"),
        ('[[quirks]]\nname = "a"\ntext = "b"', "a quirk has no 'delegates'"),
        ('[[quirks]]\nname = "a"\ntext = "b"\ndelegates = "gpu"', "'delegates' of a quirk must"),
        ('[[quirks]]\nname = "a"\ntext = "b"\ndelegates = []\nnoise = 1', "unknown key 'noise'"),
    ],
)
def test_a_wrong_quirk_is_an_error_of_the_profile(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(f'target = "local"\n{text}\n')
    with pytest.raises(OptionError, match=message):
        devices.read(path)
