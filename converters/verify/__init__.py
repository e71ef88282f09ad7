"""Differential testing of a written model against its source, along the time axis."""

from edgelstm.converters.spec import StatePair
from edgelstm.converters.verify.check import verify
from edgelstm.converters.verify.result import CaseResult, OutputResult, OutputSummary, Verification
from edgelstm.converters.verify.source import Reference, Source

__all__ = [
    "CaseResult",
    "OutputResult",
    "OutputSummary",
    "Reference",
    "Source",
    "StatePair",
    "Verification",
    "verify",
]
