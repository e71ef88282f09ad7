"""Energy per inference, with counters that the test writes: the formats are Linux's."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import profile_models
import pytest

from edgelstm.cli import run
from edgelstm.profiles import energy
from edgelstm.profiles.energy import Energy, EnergyReading

BATTERY = "/sys/class/power_supply/battery"
ZONE = "/sys/class/powercap/intel-rapl:0"


def battery(*charges: int, volts: int = 4_000_000, **others: str) -> list[EnergyReading]:
    """One reading per second."""
    return [
        EnergyReading(
            float(second),
            {
                f"{BATTERY}/charge_counter": str(charge),
                f"{BATTERY}/voltage_now": str(volts),
                **{f"{BATTERY}/{name}": text for name, text in others.items()},
            },
        )
        for second, charge in enumerate(charges)
    ]


def meter(*values: int, **more: str) -> list[EnergyReading]:
    texts = {f"{ZONE}/{name}": text for name, text in more.items()}
    return [
        EnergyReading(float(second), {f"{ZONE}/energy_uj": str(value), **texts})
        for second, value in enumerate(values)
    ]


def test_charge_times_voltage_is_energy() -> None:
    """1000 µAh at 4 V are 14.4 J."""
    used = energy.consumption(battery(3_000_000, 2_999_500, 2_999_500, 2_999_000))
    assert used is not None
    assert used.joules == pytest.approx(14.4)
    assert (used.seconds, used.steps) == (3.0, 2)
    assert used.watts == pytest.approx(4.8)
    assert used.source == "battery charge_counter x voltage_now"
    found = Energy(100, used)
    assert found.joules_per_run == pytest.approx(0.144)
    assert found.step_joules == pytest.approx(7.2)
    assert found.above_idle_per_run is None


def test_a_gauge_of_energy_goes_before_one_of_charge() -> None:
    """1000 µWh are 3.6 J."""
    readings = battery(9, 8)
    for each, text in zip(readings, ("50000", "49000"), strict=True):
        dict.update(each.texts, {f"{BATTERY}/energy_now": text})
    used = energy.consumption(readings)
    assert used is not None
    assert used.source == "battery energy_now"
    assert used.joules == pytest.approx(3.6)


def test_a_current_without_a_counter_is_added_up() -> None:
    """500 mA at 4 V for two seconds; a minus sign means the same."""
    readings = [
        EnergyReading(
            float(second),
            {f"{BATTERY}/current_now": text, f"{BATTERY}/voltage_now": "4000000"},
        )
        for second, text in enumerate(("-400000", "-500000", "-600000"))
    ]
    used = energy.consumption(readings)
    assert used is not None
    assert used.joules == pytest.approx(4.0)


def test_a_meter_is_read_across_its_end_and_subzones_are_not_added() -> None:
    """From 900 to 100 with a range of 1000 is 200; the core's share is in the package's."""
    readings = meter(900_000, 100_000, max_energy_range_uj="1000000", name="package-0")
    for each in readings:
        dict.update(
            each.texts,
            {f"{ZONE}:0/energy_uj": "5", f"{ZONE}:0/name": "core",
             "/sys/class/powercap/intel-rapl:1/energy_uj": str(int(each.clock_s * 9e6)),
             "/sys/class/powercap/intel-rapl:1/name": "psys"},
        )  # fmt: skip
    used = energy.consumption(readings)
    assert used is not None
    assert used.joules == pytest.approx(0.2)
    assert used.source == "RAPL"


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        ([EnergyReading(0.0, {}), EnergyReading(1.0, {})], "no energy meter"),
        (battery(5, 4, status="Charging"), "being charged"),
        (battery(5, 4, status="Full"), "being charged"),
    ],
)
def test_what_cannot_be_told_has_a_reason(readings: list[EnergyReading], reason: str) -> None:
    """No counter at all; a battery that does not pay for the run."""
    assert reason in (energy.missing(readings) or "")
    assert energy.consumption(readings) is None


def test_a_counter_that_stands_still_or_holds_no_number_tells_nothing() -> None:
    """Not 0 joules."""
    assert energy.consumption(battery(5, 5, 5)) is None
    assert energy.consumption(battery(5, 6, 7)) is None
    odd = battery(5, 4)
    dict.update(odd[0].texts, {f"{BATTERY}/charge_counter": "lots"})
    assert energy.consumption(odd) is None


def test_a_reading_that_a_driver_refuses_is_left_out() -> None:
    """Absent or empty: the others tell the same energy, and the time that they span."""
    readings = battery(3_000, 2_900, 2_800, 2_700, 2_600)
    path = f"{BATTERY}/charge_counter"
    readings[1] = EnergyReading(1.0, {k: v for k, v in readings[1].texts.items() if k != path})
    readings[4] = EnergyReading(4.0, {**readings[4].texts, path: ""})
    used = energy.consumption(readings)
    assert used is not None
    assert used.joules == pytest.approx(300 * 3.6e-3 * 4)
    assert (used.seconds, used.steps) == (3.0, 2)


def test_what_the_device_uses_at_rest_is_told_apart() -> None:
    """5 W while it works, 2 W at rest: 3 of 5 joules in a second."""
    used, rest = energy.consumption(meter(0, 5_000_000)), energy.consumption(meter(0, 2_000_000))
    assert used is not None and rest is not None
    found = Energy(10, used, rest)
    assert found.joules_per_run == pytest.approx(0.5)
    assert found.above_idle_per_run == pytest.approx(0.3)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A device `metered` whose counter says one watt; the folder of its counter."""
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    devices = tmp_path / "config" / "edgelstm" / "devices"
    devices.mkdir(parents=True)
    (devices / "metered.toml").write_text(
        f'target = "local"\nbatteries = []\nenergies = ["{tmp_path}/powercap/*/energy_uj"]\n'
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    stop = threading.Event()

    def count() -> None:
        while not stop.wait(0.004):
            new = zone / "new"
            new.write_text(str(time.monotonic_ns() // 1000))
            new.rename(zone / "energy_uj")

    (zone / "energy_uj").write_text("0")
    counting = threading.Thread(target=count)
    counting.start()
    yield zone
    stop.set()
    counting.join()


def test_the_report_tells_energy_per_run(machine: Path, tmp_path: Path) -> None:
    """Watts times seconds by runs, whatever the runs took; the page has it."""
    pytest.importorskip("plotly")
    model, out = profile_models.write_dense(tmp_path / "m.tflite"), tmp_path / "r.json"
    page = tmp_path / "r.html"
    call = ["profile", str(model), "--on", "metered", "--delegate", "cpu", "--energy", "500ms"]
    bounds = ["--min-seconds", "0", "--max-seconds", "0.1", "--min-runs", "20", "--no-ops"]
    assert run([*call, *bounds, "--json", str(out), "--html", str(page)]) == 0
    report = json.loads(out.read_text())
    (row,) = report["configurations"]
    found = row["energy"]
    assert found["watts"] == pytest.approx(1.0, rel=0.3)
    assert found["idle_watts"] == pytest.approx(1.0, rel=0.3)
    assert found["joules_per_run"] == pytest.approx(found["joules"] / found["runs"])
    assert found["counter_steps"] >= energy.FEW_STEPS
    assert "coarse_energy" not in [each["kind"] for each in report["warnings"]]
    assert "J per run" in page.read_text()


def test_a_device_without_counters_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other figures stand."""
    devices = tmp_path / "config" / "edgelstm" / "devices"
    devices.mkdir(parents=True)
    (devices / "plain.toml").write_text('target = "local"\nbatteries = []\nenergies = []\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    model = profile_models.write_dense(tmp_path / "m.tflite")
    call = ["profile", str(model), "--on", "plain", "--delegate", "cpu", "--energy", "1s"]
    bounds = ["--min-seconds", "0", "--max-seconds", "0.1", "--min-runs", "20", "--no-ops"]
    assert run([*call, *bounds]) == 0
    assert "no energy: no energy meter" in capsys.readouterr().out
