"""No recurrence is ever fused wrongly: random LSTMs and almost-LSTMs against TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
from recurrence_steps import MUTATIONS, Step, random_step

from edgelstm.converters.recurrence.ir import Value
from edgelstm.converters.recurrence.plan import PlannedPart, plan
from edgelstm.converters.recurrence.run import evaluate
from edgelstm.converters.recurrence.step import lstm_step
from edgelstm.converters.spec import Array

CASES = 528
STEPS = 6
BATCH = 3


def _shapes(step: Step) -> dict[Value, tuple[int, ...]]:
    shapes: dict[Value, tuple[int, ...]] = {s.leaf: (0, step.units) for s in step.scan.states}
    return shapes | {step.x: (0, step.features)}


def _fused(step: Step, shapes: dict[Value, tuple[int, ...]]) -> PlannedPart:
    parts = [p for p in plan(step.scan, shapes).parts if p.part.recurrent]
    assert len(parts) == 1
    return parts[0]


def _source(step: Step, x: Array, start: list[Array]) -> Array:
    """Outputs [T, B, U] by TensorFlow, step by step."""
    states, outputs = start, []
    for x_t in x:
        feeds = {step.x: x_t, **dict(zip((s.leaf for s in step.scan.states), states, strict=True))}
        *states, output = evaluate(
            [*(s.next for s in step.scan.states), step.scan.stacked[0]], feeds
        )
        outputs.append(output)
    return np.stack(outputs)


def _check(seed: int) -> None:
    step = random_step(seed)
    shapes = _shapes(step)
    part = _fused(step, shapes)
    assert (part.matched is not None) is step.fusable, f"{step.mutation}: {part.reason}"
    if part.matched is None:
        assert part.reason, step.mutation
        return
    random = np.random.default_rng(seed)
    x = random.standard_normal((STEPS, BATCH, shapes[step.x][1])).astype(np.float32) * 2
    units = part.matched.spec.units
    start = [random.standard_normal((BATCH, units)).astype(np.float32) for _ in range(2)]
    want = _source(step, x, start)
    place = {s.leaf: i for i, s in enumerate(step.scan.states)}
    h = start[place[part.matched.h.leaf]].astype(np.float64)
    c = start[place[part.matched.c.leaf]].astype(np.float64)
    order = [step.scan.sequences[0].leaf]
    assert list(part.matched.inputs) == order
    for x_t, expected in zip(x, want, strict=True):
        h, c = lstm_step(part.matched.spec, x_t.astype(np.float64), h, c)
        np.testing.assert_allclose(h, expected, atol=2e-5)
    assert part.matched.record.probes >= 8
    assert part.matched.record.passed


@pytest.mark.parametrize("block", range(12))
def test_random_recurrences_are_fused_exactly_when_the_fused_op_computes_them(block: int) -> None:
    for seed in range(block * CASES // 12, (block + 1) * CASES // 12):
        _check(seed)


def test_every_mutation_is_among_the_cases() -> None:
    seen = {random_step(seed).mutation for seed in range(len(MUTATIONS))}
    assert seen == set(MUTATIONS)
    assert len(MUTATIONS) >= 20
