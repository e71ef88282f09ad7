"""What a request and its answer are made of."""

from __future__ import annotations

from typing import Any

PROTOCOL = 2

Message = dict[str, Any]


class AgentError(Exception):
    """A request that could not be served; `kind` tells the host whose fault it is."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
