"""Greedy and beam search over a step, for decoders that go from token to token.

A step is any function (token, state) -> (log-probabilities [V], new state). States are values that
never change, such as `Stream.get_state()` gives; `stream_step` makes a step of a stream.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from edgelstm.errors import DataError, OptionError
from edgelstm.runtime.state import State
from edgelstm.runtime.stream import Stream
from edgelstm.runtime.tensors import Array

S = TypeVar("S")
Step = Callable[[int, S], tuple[npt.ArrayLike, S]]


@dataclasses.dataclass(frozen=True)
class Hypothesis(Generic[S]):
    """A sequence that was found.

    Attributes:
        tokens: without the one that it began from; the end token is the last where it was reached.
        log_probability: the sum over the tokens.
        state: after the last token that was fed.
    """

    tokens: tuple[int, ...]
    log_probability: float
    state: S


def greedy(step: Step[S], state: S, first: int, *, end: int, longest: int) -> Hypothesis[S]:
    """The most probable token at each step; of equal ones the lowest.

    Args:
        first: the token to begin from, e.g. a start symbol.
        end: the token to stop after.
        longest: the largest number of tokens.

    Raises:
        OptionError: `longest` is below 1.
        DataError: a step gives no log-probabilities [V], or NaN.
    """
    return beam_search(step, state, first, end=end, longest=longest, width=1)[0]


def beam_search(
    step: Step[S],
    state: S,
    first: int,
    *,
    end: int,
    longest: int,
    width: int,
    length_power: float = 0.0,
) -> list[Hypothesis[S]]:
    """The best sequences found, the best first; at most `width`.

    Args:
        first, end, longest: as for `greedy`.
        width: hypotheses kept at each step.
        length_power: sequences are ranked by log-probability / length ** length_power; 0 favours
            short ones, 1 compares means (Wu et al. 2016, "Google's neural machine translation
            system", eq. 14, without its constants).

    Raises:
        OptionError: `longest` or `width` is below 1, or `length_power` is negative.
        DataError: a step gives no log-probabilities [V], or NaN.
    """
    if longest < 1 or width < 1 or not length_power >= 0:
        raise OptionError(
            f"A search of width {width} over {longest} tokens with length power {length_power} "
            "makes no sense.",
            cure="use 1 or more, and a power from 0",
        )

    def rank(found: Hypothesis[S]) -> float:
        return found.log_probability / float(max(1, len(found.tokens)) ** length_power)

    open_ = [Hypothesis[S]((), 0.0, state)]
    done: list[Hypothesis[S]] = []
    for _ in range(longest):
        candidates: list[tuple[float, int, int, float, S]] = []
        for number, each in enumerate(open_):
            scores, after = step(each.tokens[-1] if each.tokens else first, each.state)
            for token, score in _best(_checked(scores), width):
                total = each.log_probability + score
                candidates.append((-total, number, token, total, after))
        following: list[Hypothesis[S]] = []
        # Of one length, so that no rank is needed yet; ties go to the earlier and lower token.
        for _, number, token, total, after in heapq.nsmallest(width, candidates, lambda c: c[:3]):
            if total == -np.inf:
                continue
            grown = Hypothesis((*open_[number].tokens, token), total, after)
            (done if token == end else following).append(grown)
        open_ = following
        done = sorted(done, key=rank, reverse=True)[:width]
        if not open_ or (length_power == 0 and len(done) == width and _over(done, open_)):
            break
    return sorted([*done, *open_], key=rank, reverse=True)[:width]


def stream_step(
    stream: Stream, frame_of: Callable[[int], Any], output: str | None = None
) -> Step[State]:
    """A step that feeds one token to a stream.

    Args:
        frame_of: the frame(s) to push for a token.
        output: the output with log-probabilities, its last axis the vocabulary; None takes the
            first.
    """
    name = output or stream.outputs[0].name

    def step(token: int, state: State) -> tuple[Array, State]:
        stream.set_state(state)
        scores = stream.push(frame_of(token))[name]
        return scores.reshape(-1, scores.shape[-1])[-1], stream.get_state()

    return step


def _over(done: list[Hypothesis[S]], open_: list[Hypothesis[S]]) -> bool:
    """Whether nothing open can become better: log-probabilities only fall."""
    return max(each.log_probability for each in open_) <= done[-1].log_probability


def _checked(scores: npt.ArrayLike) -> Array:
    array = np.asarray(scores, np.float64)
    if array.ndim != 1 or not array.size or np.isnan(array).any():
        raise DataError(
            f"A step gave {list(array.shape)} numbers, or NaN; log-probabilities [V] are needed.",
            cure="take the logarithm of probabilities, and one row of a batch",
        )
    return array


def _best(scores: Array, count: int) -> list[tuple[int, float]]:
    """The largest scores with their tokens; of equal ones the lowest token."""
    order = np.argsort(-scores, kind="stable")[:count]
    return [(int(token), float(scores[token])) for token in order]
