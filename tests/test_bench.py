"""edgelstm bench: the same layer in both kernels, all samples kept."""

from __future__ import annotations

import json

import pytest
from native_layers import kernel_names
from rich.console import Console

from edgelstm import bench
from edgelstm.errors import OptionError


@pytest.mark.skipif(not kernel_names(), reason="the native library was not built")
def test_both_kernels_are_timed_in_every_precision() -> None:
    """Each round has a sample of each; outputs agree; the result is JSON and can be shown."""
    result = bench.bench(((3, 8), (5, 4)), steps=4, rounds=7)
    assert [(c["features"], c["units"], c["precision"]) for c in result["cases"]] == [
        (*size, precision) for size in ((3, 8), (5, 4)) for precision in bench.PRECISIONS
    ]
    for case in result["cases"]:
        assert {len(samples) for samples in case["samples_ns"].values()} == {7}
        assert min(min(samples) for samples in case["samples_ns"].values()) > 0
        low, high = case["ratio_interval"]
        assert low <= case["ratio"] <= high
        assert case["largest_difference"] < (0.01 if case["precision"] == "dynamic" else 2e-6)
    json.dumps(result, allow_nan=False)
    console = Console(record=True, width=120)
    bench.print_bench(result, console)
    assert "dynamic" in console.export_text()


@pytest.mark.parametrize("text", ["", "16", "16x", "0x4", "4x-1", "4x4x4", "4x4,", "axb"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    """With the form that is wanted."""
    with pytest.raises(OptionError, match="FEATURESxUNITS"):
        bench.sizes(text)
