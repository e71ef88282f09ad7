"""From the pattern of failures to one sentence: what differs, where, and what to try."""

from __future__ import annotations

import math
from collections.abc import Callable

from edgelstm.converters.spec import Precision, StatePolicy
from edgelstm.converters.verify.result import CaseResult, OutputResult, Verification

# Activations are rounded besides the weights, which at most doubles the error of trained models.
EXPLAINED = 2.0

_CALIBRATED = (Precision.INT8, Precision.INT16)

Failing = list[tuple[CaseResult, OutputResult]]


def describe(verification: Verification) -> tuple[str, str | None]:
    """What differs most, and where.

    Returns:
        One sentence, and the case with its call and first diverging step.
    """
    broken = next((case for case in verification.cases if case.problems), None)
    if broken is not None:
        return f"the file does not match its source: {broken.problems[0]}", _where(broken)
    failing = _failing(verification)
    if not failing:
        return "nothing could be compared: the model has no outputs", None
    case, output = max(failing, key=lambda pair: pair[1].relative_error)
    if math.isfinite(output.max_error):
        amount = (
            f"by {output.relative_error:.2g} of its range, {verification.tolerance:.2g} is allowed"
        )
    else:
        amount = "where one of both is NaN or infinite"
    where = [_where(case), output.worst_call]
    if output.first_diverging_step is not None:
        where.append(f"first diverging step {output.first_diverging_step}")
    failed = len(verification.failures)
    what = f"output '{output.name}' differs from its source {amount}"
    return f"{what} ({failed} of {len(verification.cases)} runs fail)", "; ".join(where)


def cure(verification: Verification) -> str:
    """What the pattern of failures points to, most specific first."""
    if any(case.problems for case in verification.cases):
        return "check that the file was converted from this source, with the same names and sizes"
    failing = _failing(verification)
    moved = _as_its_weights(verification, failing)
    if moved is not None:
        finer = "float32" if verification.precision is Precision.FLOAT16 else "float16"
        return (
            f"rounding the weights of the source itself moves it by {moved:.2g}: it is that "
            f"sensitive. Use --quantize {finer}, keep the layers that it comes from finer (edgelstm "
            "quantize-search), or accept this error with --tolerance "
            f"{_needed(failing)}"
        )
    calibrated = verification.precision in _CALIBRATED
    # Values beyond a calibrated range come in some calls and rows only: no sign of a wrong file.
    for applies, advice in _PATTERNS[:1] if calibrated else _PATTERNS:
        if applies(verification, failing):
            return advice
    accept = f"accept this error with --tolerance {_needed(failing)}"
    if calibrated:
        return (
            "calibrate with more data, like what the model will see; --quantization tells which "
            "layer loses how much, a plan (edgelstm quantize-search) leaves it finer; or convert "
            f"with a finer precision, or {accept}"
        )
    if verification.precision is not Precision.FLOAT32:
        return f"convert with a finer precision, or {accept}"
    return "check that the file was converted from this very source and its present weights"


def _where(case: CaseResult) -> str:
    return f"{case.title}, {case.runner}" if case.runner else case.title


def _failing(verification: Verification) -> Failing:
    return [(c, o) for c in verification.cases for o in c.outputs if not o.passed]


def _as_its_weights(verification: Verification, failing: Failing) -> float | None:
    """How far the source moves when its weights are rounded, where that explains every error."""
    moved = verification.own_movement
    explained = [o.relative_error <= EXPLAINED * moved.get(o.name, 0.0) for _, o in failing]
    return max(moved.values()) if explained and all(explained) else None


def _needed(failing: Failing) -> str:
    """The smallest tolerance that accepts what failed, in two digits."""
    return _rounded_up(max((o.needed_tolerance for _, o in failing), default=1.0))


def _rounded_up(value: float) -> str:
    if not 0.0 < value < math.inf:
        return "1"
    digits = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / digits) * digits:.2g}"


def _not_finite(_: Verification, failing: Failing) -> bool:
    return any(not math.isfinite(o.max_error) for _, o in failing)


def _one_delegate(verification: Verification, failing: Failing) -> bool:
    all_runners = {case.runner for case in verification.cases}
    return len(all_runners) > 1 and len({case.runner for case, _ in failing}) == 1


def _later_calls(verification: Verification, failing: Failing) -> bool:
    return not any(o.first_call_failed for _, o in failing)


def _is_row_call(call: str) -> bool:
    return call.startswith("row")


def _rows_alone(_: Verification, failing: Failing) -> bool:
    return all(_is_row_call(call) for _, o in failing for call in o.failing_calls)


def _some_rows(_: Verification, failing: Failing) -> bool:
    """Row 0 is right and later ones are wrong."""
    single = any(c.batch == 1 and o.first_call_failed for c, o in failing)
    batches = [o for c, o in failing if (c.batch or 1) > 1 and not c.rows]
    return (
        not single
        and bool(batches)
        and all(o.failing_rows and o.failing_rows[0] > 0 for o in batches)
    )


def _masks(_: Verification, failing: Failing) -> bool:
    """Every failing case has masks, and its unmasked row is right."""
    return all(
        c.rows
        and o.failing_rows
        and all(row < len(c.rows) and c.rows[row] != "nothing masked" for row in o.failing_rows)
        for c, o in failing
    )


def _state(verification: Verification, failing: Failing) -> bool:
    return _later_calls(verification, failing) and not _rows_alone(verification, failing)


def _drift(verification: Verification, failing: Failing) -> bool:
    """In float32, only long sequences fail."""
    return verification.precision is Precision.FLOAT32 and all(
        c.name.startswith("long sequence") for c, _ in failing
    )


def _carry(verification: Verification, failing: Failing) -> bool:
    return verification.policy is not StatePolicy.RESET and _state(verification, failing)


_PATTERNS: tuple[tuple[Callable[[Verification, Failing], bool], str], ...] = (
    (_not_finite, "look for NaN or overflow: weights, and divisions or logarithms in the model"),
    (_one_delegate, "only one of the ways to run it is wrong: run the file the other way"),
    (
        _carry,
        "the first call is right and a later one is not: the state is not carried on as the "
        "source does it; compare with --state reset",
    ),
    (
        _state,
        "the first call is right and a later one is not: the file keeps its state between calls; "
        "convert with --state reset, or verify with --state carry if that is meant",
    ),
    (
        _drift,
        "the error grows with time: look for a clipped cell (cell_clip), or a cell that adds up "
        "its input and so adds up rounding",
    ),
    (_masks, "only rows with masked steps differ: the file ignores the mask"),
    (_rows_alone, "a row gives another result alone than in its batch: convert with --batch 1"),
    (_some_rows, "row 0 is right and other rows are not: convert with --batch 1"),
)
