"""How errors are measured, explained and shown."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console
from verify_models import (
    check,
    failure,
    integrating_spec,
    lstm_model,
    lstm_source,
    random_spec,
)

from edgelstm.converters.render import print_inspection, print_report, print_verification
from edgelstm.converters.report import (
    ConversionReport,
    RecurrenceReport,
    SignatureReport,
    SourceReport,
)
from edgelstm.converters.spec import (
    Lowering,
    Precision,
    StatePolicy,
    TensorSpec,
)
from edgelstm.converters.verify import CaseResult, OutputResult, Verification
from edgelstm.converters.verify.compare import Scale, difference
from edgelstm.converters.verify.diagnosis import cure
from edgelstm.converters.verify.prefix import shortest_failing
from edgelstm.converters.verify.tolerance import DEFAULTS, tolerance_for
from edgelstm.errors import OptionError


class TestMeasures:
    """The numbers in a result."""

    def test_the_range_of_a_constant_is_a_tenth_of_it(self) -> None:
        """So that no error is divided by zero."""
        assert Scale.of([np.full(3, 5.0)]).range == pytest.approx(0.5)
        assert Scale.of([np.zeros(3)]).range == 1.0
        assert Scale.of([np.asarray([-1.0, np.inf, 2.0, np.nan])]).range == 3.0
        assert Scale.of([np.asarray([np.nan])]).range == 1.0

    def test_errors_are_told_by_step_and_row(self) -> None:
        """Maximum over every other axis."""
        expected = np.zeros((2, 3, 2), np.float32)
        actual = expected.copy()
        actual[1, 2, 0] = 3
        actual[0, 1, 1] = -4
        found = difference(expected, actual, batch_axis=0, time_axis=1)
        assert found.max_error == 4
        assert found.squares == 25
        assert found.values == 12
        assert found.step_errors is not None and found.step_errors.tolist() == [0, 4, 3]
        assert found.row_errors is not None and found.row_errors.tolist() == [4, 3]

    @pytest.mark.parametrize(
        ("expected", "actual", "same"),
        [
            (np.nan, np.nan, True),
            (np.inf, np.inf, True),
            (np.inf, -np.inf, False),
            (np.inf, np.nan, False),
            (1.0, np.nan, False),
            (np.nan, 1.0, False),
            (np.inf, 1.0, False),
        ],
    )
    def test_what_is_not_finite_must_be_the_same(
        self, expected: float, actual: float, same: bool
    ) -> None:
        """Otherwise the error is infinite."""
        found = difference(
            np.asarray([expected]), np.asarray([actual]), batch_axis=0, time_axis=None
        )
        assert found.max_error == (0 if same else np.inf)

    @pytest.mark.parametrize("first", [1, 2, 3, 17, 64, 199, 200])
    def test_the_shortest_failing_prefix_is_exact(self, first: int) -> None:
        """For a failure that stays once it has come."""
        assert shortest_failing(lambda steps: steps >= first, 200) == first

    def test_rms_is_over_all_numbers(self) -> None:
        """Summaries weigh cases by how many numbers they hold."""
        cases = tuple(
            CaseResult("case", "litert", 1, None, (OutputResult("y", e, e, n, 1.0, "first call"),))
            for e, n in ((3.0, 1), (1.0, 3))
        )
        found = Verification(1.0, Precision.FLOAT32, StatePolicy.RESET, cases)
        assert found.outputs[0].rms_error == pytest.approx((12 / 4) ** 0.5)

    def test_nothing_compared_is_not_passed(self) -> None:
        """An empty verification proves nothing."""
        found = Verification(1e-5, Precision.FLOAT32, StatePolicy.RESET, ())
        assert not found.passed
        assert "nothing could be compared" in failure(found)

    @pytest.mark.parametrize("given", [0.0, -1.0, float("nan"), float("inf")])
    def test_a_tolerance_must_be_a_positive_number(self, given: float) -> None:
        """Anything else would pass nothing or everything."""
        with pytest.raises(OptionError):
            tolerance_for(Precision.FLOAT32, given)

    def test_every_default_tolerance_has_a_reason(self) -> None:
        """float32 is fixed at 1e-5; coarser precisions are allowed more."""
        assert DEFAULTS[Precision.FLOAT32].relative == 1e-5
        assert all(t.reason for t in DEFAULTS.values())
        order = [DEFAULTS[p].relative for p in DEFAULTS]
        assert order == sorted(order)

    def test_a_fault_of_one_delegate_is_told(self) -> None:
        """The cure then names the runner, not the model."""
        good = OutputResult("y", 0.0, 0.0, 4, 1.0, "first call")
        bad = dataclasses.replace(good, max_error=1.0, failing_calls=("first call",))
        found = Verification(
            1e-5,
            Precision.FLOAT32,
            StatePolicy.RESET,
            (
                CaseResult("case", "litert without delegate", 1, 5, (good,)),
                CaseResult("case", "litert with XNNPACK", 1, 5, (bad,)),
            ),
        )
        assert "only one of the ways to run it" in cure(found)

    def test_a_coarse_precision_suggests_the_tolerance_that_it_needs(self) -> None:
        """Rounded up, so that it holds."""
        bad = OutputResult("y", 0.4, 0.1, 4, 1.0, "first call", failing_calls=("first call",))
        bad = dataclasses.replace(bad, needed_tolerance=0.123)
        found = Verification(
            5e-2,
            Precision.DYNAMIC,
            StatePolicy.RESET,
            (CaseResult("a", "litert", 1, 5, (bad,)), CaseResult("a", "other", 1, 5, (bad,))),
        )
        assert cure(found).endswith("--tolerance 0.13")


class TestReports:
    """JSON and terminal forms."""

    def report(self, verification: Verification | None = None) -> ConversionReport:
        return ConversionReport(
            tool_version="0.1.0",
            source=SourceReport("model.keras", "Keras 3 archive", "keras 3.15.0", "ab" * 32),
            recurrences=(
                RecurrenceReport(
                    "lstm", "LSTM", Lowering.FUSED, "", 4, Precision.FLOAT32, "keras layer lstm"
                ),
                RecurrenceReport(
                    "gru[red]",
                    "GRU",
                    Lowering.LOOP,
                    "no fused op for it",
                    4,
                    Precision.FLOAT32,
                    "keras layer gru",
                ),
            ),
            signatures={
                "serving_default": SignatureReport(
                    (TensorSpec("x", (None, None, 3), "float32"),),
                    (TensorSpec("y", (None, 4), "float32"),),
                )
            },
            ops={"UNIDIRECTIONAL_SEQUENCE_LSTM": 1, "FULLY_CONNECTED": 3},
            bytes=12_345,
            precision=Precision.FLOAT32,
            state_policy=StatePolicy.RESET,
            notes=("the optimizer was left out",),
            verification=verification,
            seconds={"read": 0.5, "verify": 0.25},
        )

    def test_the_report_has_the_documented_shape(self) -> None:
        """What `inspect --json` shares with it, and how many fused ops were expected."""
        found = json.loads(json.dumps(self.report().to_json(), allow_nan=False))
        assert list(found["recurrences"][0]) == [
            "name", "kind", "lowering", "reason", "units", "precision", "source",
        ]  # fmt: skip
        assert found["recurrences"][0]["lowering"] == "fused"
        assert found["fusion"] == {
            "expected": 2,
            "fused": 1,
            "fused_ops_in_file": 1,
            "not_fused": {"gru[red]": "no fused op for it"},
        }
        inputs = found["signatures"]["serving_default"]["inputs"]
        assert inputs == {"x": {"shape": [None, None, 3], "dtype": "float32"}}
        assert found["ops"]["FULLY_CONNECTED"] == 3
        assert found["bytes"] == 12_345

    def test_a_verification_is_json(self) -> None:
        """Every case with its error per step."""
        spec = random_spec()
        found = json.loads(json.dumps(check(lstm_source(spec), lstm_model(spec)).to_json()))
        assert found["passed"] is True
        assert found["tolerance"] == 1e-5
        case = next(c for c in found["cases"] if c["time"] == 200)
        assert len(case["outputs"][0]["step_errors"]) == 200

    def shown(self, draw: Callable[[Console], None]) -> str:
        stream = io.StringIO()
        draw(Console(file=stream, width=120))
        return stream.getvalue()

    def test_the_report_is_shown_with_names_as_they_are(self) -> None:
        """Brackets in a layer's name are no markup."""
        text = self.shown(lambda console: print_report(self.report(), console))
        assert "1 of 2 recurrences fused" in text
        assert "gru[red]" in text and "no fused op for it" in text
        assert "12 kB" in text
        assert "x float32[?, ?, 3] → y float32[?, 4]" in text
        assert "the optimizer was left out" in text

    def test_control_characters_do_not_reach_the_terminal(self) -> None:
        """A name from a file cannot drive the terminal."""
        found = {"recurrences": [{"name": "a\x1b[2Jb", "lowering": "fused", "kind": "LSTM"}]}
        text = self.shown(lambda console: print_inspection(found, console))
        assert "\x1b" not in text and "a�[2Jb" in text

    def test_a_failed_verification_shows_case_curve_and_cure(self) -> None:
        """What failed, from which step on, and what to do."""
        found = check(lstm_source(integrating_spec()), lstm_model(integrating_spec(10.0)))
        text = self.shown(lambda console: print_verification(found, console))
        assert "differs from its source in 2 of 12 runs" in text
        assert "long sequence (batch 3, 200 steps)" in text
        assert re.search(r"step \d+ diverges first ▁+.*█", text)
        assert "cell_clip" in text

    def test_a_passed_verification_is_short(self) -> None:
        """Verdict and one line per output."""
        spec = random_spec()
        found = check(lstm_source(spec), lstm_model(spec))
        text = self.shown(lambda console: print_verification(found, console))
        assert "equal to its source" in text
        assert len(text.strip().splitlines()) <= 6
