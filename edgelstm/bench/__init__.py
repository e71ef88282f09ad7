"""`edgelstm bench`: the same LSTM layer on every runtime that is installed here, side by side."""

from __future__ import annotations

from edgelstm.bench.measure import Grid, bench
from edgelstm.bench.options import counts, grid, peers, precisions, sizes, threads
from edgelstm.bench.turns import Caches

__all__ = ["Caches", "Grid", "bench", "counts", "grid", "peers", "precisions", "sizes", "threads"]
