"""One case: a layer in one precision, on every runtime that has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgelstm.bench.parts import LimitPlan, Part
from edgelstm.bench.probes import open_probes
from edgelstm.bench.shares import beside_limit, median_of_ratios
from edgelstm.bench.turns import Caches, WarmsItself, samples
from edgelstm.errors import EdgeLstmError, MeasurementFailed
from edgelstm.profiles.peers import Array, Peer, PeerLayer, Running

OURS = "edgelstm"
# The same kernels without an interpreter and without Python.
OURS_IN_C = "edgelstm-c"
# Root mean square of the error by that of the layer's output, beyond which a runtime computes
# something else. ONNX Runtime's int8 sums of two products saturate where a processor has no dot
# products.
TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "dynamic": 0.2, "int8": 0.2}


def measure_case(
    peers: Mapping[str, Peer],
    layer: PeerLayer,
    truth: Array,
    precision: str,
    *,
    plan: LimitPlan | None,
    threads: int,
    rounds: int,
    caches: Caches,
) -> dict[str, Any]:
    """All samples, the ratios, how far each runtime is from the equations and from the limit.

    Args:
        truth: [B, T, U], what the equations give from states of zero.
        plan: what the limit is made of; it takes its turns in every round, and the result has
            `limit`.

    Raises:
        MeasurementFailed: our own delegate does not run, or is wrong.
    """
    running, failed = _opened(peers, layer, precision, threads)
    outputs = {name: each.output() for name, each in running.items()}
    if OURS not in running:
        raise MeasurementFailed(
            f"The delegate does not run this layer: {failed.get(OURS, 'no reason told')}",
            where=f"{layer.x.shape[2]}x{layer.units} {precision}",
        )
    errors = {name: _error(each, truth) for name, each in outputs.items()}
    wrong = [name for name, error in errors.items() if not error <= TOLERANCES[precision]]
    for name in wrong:
        del running[name]
        failed[name] = f"computes something else: its error is {errors[name]:.2g} of the output"
    if OURS in wrong:
        raise MeasurementFailed(f"The delegate {failed[OURS]}", where=precision)
    probes = {} if plan is None else open_probes(plan)
    # Ours follows the limit: what disturbs for a few milliseconds disturbs both.
    entrants: dict[str | Part, Running | WarmsItself]
    entrants = dict([*probes.items(), (OURS, running[OURS]), *running.items()])
    timed = samples(entrants, rounds, threads=threads, caches=caches)
    found = {name: timed[name] for name in running}
    limit = {}
    if plan is not None:
        parts_ns = {part: timed[part] for part in plan.parts}
        limit = {"limit": beside_limit(plan, parts_ns, found)}
    return {
        "samples_ns": found,
        "median_ns": {name: float(np.median(values)) for name, values in found.items()},
        "ratio": {
            name: median_of_ratios(found[name], found[OURS]) for name in running if name != OURS
        },
        "ratio_to_c": {
            name: median_of_ratios(values, found[OURS_IN_C])
            for name, values in found.items()
            if OURS_IN_C in found and name != OURS_IN_C
        },
        "largest_difference": {
            name: float(np.abs(outputs[name] - outputs[OURS]).max())
            for name in running
            if name != OURS
        },
        "relative_error": errors,
        "failed": failed,
    } | limit


def _opened(
    peers: Mapping[str, Peer], layer: PeerLayer, precision: str, threads: int
) -> tuple[dict[str, Running], dict[str, str]]:
    """Those that have done one call, and what the others said."""
    running: dict[str, Running] = {}
    failed = {}
    for name, peer in peers.items():
        if precision not in peer.precisions:
            continue
        try:
            one = peer.open(layer, precision, threads)
            one.invoke()
            running[name] = one
        except EdgeLstmError:
            raise
        except Exception as error:  # A peer's own: the others are measured all the same.
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return running, failed


def _error(output: Array, truth: Array) -> float:
    """NaN and another shape are as far as can be."""
    if output.shape != truth.shape or not np.isfinite(output).all():
        return float("inf")
    return float(np.sqrt(np.mean(np.square(output - truth)) / np.mean(np.square(truth))))
