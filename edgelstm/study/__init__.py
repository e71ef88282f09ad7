"""`edgelstm study lstm-implementations`: which of TensorFlow's LSTMs costs what, and converted."""

from __future__ import annotations

from edgelstm.study.implementations import IMPLEMENTATIONS
from edgelstm.study.measure import Setting, study

__all__ = ["IMPLEMENTATIONS", "Setting", "study"]
