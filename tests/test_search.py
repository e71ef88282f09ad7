"""Greedy and beam search against every sequence there is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import stream_models
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelstm.errors import DataError, OptionError
from edgelstm.runtime import Stream
from edgelstm.runtime.search import beam_search, greedy, stream_step

END, VOCABULARY = 0, 4


def table(seed: int) -> Any:
    """A step whose log-probabilities depend on all tokens so far; the state is these."""

    def step(token: int, state: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
        rng = np.random.default_rng([seed, token, *state])
        weights = rng.exponential(size=VOCABULARY)
        return np.log(weights / weights.sum()), (*state, token)

    return step


def every_sequence(step: Any, longest: int) -> dict[tuple[int, ...], float]:
    """Log-probability of each sequence that ends, or is as long as allowed."""
    found = {}
    for tokens in itertools.product(range(VOCABULARY), repeat=longest):
        stop = tokens.index(END) + 1 if END in tokens else longest
        total, state, before = 0.0, (), 1
        for token in tokens[:stop]:
            scores, state = step(before, state)
            total, before = total + float(scores[token]), token
        found[tokens[:stop]] = total
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), longest=st.integers(1, 4), power=st.sampled_from([0.0, 0.7, 1]))
def test_a_beam_that_holds_everything_finds_the_best(seed: int, longest: int, power: float) -> None:
    """In the order of all sequences, with and without regard to their lengths."""
    step = table(seed)
    width = VOCABULARY**longest
    found = beam_search(step, (), 1, end=END, longest=longest, width=width, length_power=power)
    wanted = every_sequence(step, longest)
    ranked = sorted(wanted, key=lambda t: wanted[t] / len(t) ** power, reverse=True)
    assert [each.tokens for each in found] == ranked
    for each in found:
        assert each.log_probability == pytest.approx(wanted[each.tokens])
        assert each.state == (1, *each.tokens[:-1])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 6))
def test_what_is_found_is_told_rightly_and_once(seed: int, width: int) -> None:
    """At any width: real sequences, unlike each other, the best first, ended by the end alone."""
    step = table(seed)
    found = beam_search(step, (), 1, end=END, longest=5, width=width)
    wanted = every_sequence(step, 5)
    assert 1 <= len(found) <= width
    assert len({each.tokens for each in found}) == len(found)
    totals = [each.log_probability for each in found]
    assert totals == sorted(totals, reverse=True)
    for each in found:
        assert each.log_probability == pytest.approx(wanted[each.tokens])
        assert END not in each.tokens[:-1]


def test_greedy_takes_the_likeliest_token_and_the_lowest_of_equals() -> None:
    """Until the end, or the longest sequence."""

    def step(token: int, state: int) -> tuple[Any, int]:
        return (np.log([0.2, 0.4, 0.4]) if state < 2 else np.log([0.8, 0.1, 0.1])), state + 1

    found = greedy(step, 0, 2, end=0, longest=9)
    assert (found.tokens, found.state) == ((1, 1, 0), 3)
    assert found.log_probability == pytest.approx(np.log(0.4 * 0.4 * 0.8))
    assert greedy(step, 0, 2, end=0, longest=2).tokens == (1, 1)


def test_impossible_tokens_are_never_taken() -> None:
    """A decoder that can say one thing only leaves the beam narrow."""

    def step(token: int, state: int) -> tuple[Any, int]:
        return np.array([-np.inf, 0.0, -np.inf]) if state < 3 else np.array(
            [0.0, -9, -9]
        ), state + 1

    found = beam_search(step, 0, 1, end=0, longest=9, width=3)
    assert found[0].tokens == (1, 1, 1, 0)
    assert all(np.isfinite(each.log_probability) for each in found)


def test_a_stream_can_be_the_step() -> None:
    """Its states are values, so that hypotheses go on from each other's."""
    model = stream_models.explicit(1)
    stream = Stream(model.content)
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((VOCABULARY, stream_models.FEATURES)).astype(np.float32)
    step = stream_step(stream, lambda token: embedding[token][np.newaxis, np.newaxis], "y")
    start = stream.get_state()
    found = beam_search(step, start, 1, end=END, longest=3, width=4**3)
    for each in found:
        fed = embedding[[1, *each.tokens[:-1]]][np.newaxis]
        y = model.expected(fed)[0]
        total = sum(float(y[t, token]) for t, token in enumerate(each.tokens))
        assert each.log_probability == pytest.approx(total, abs=1e-5)
    assert len(found) == len(every_sequence(table(0), 3))


@pytest.mark.parametrize("options", [{"width": 0}, {"longest": 0}, {"length_power": -1.0}])
def test_a_search_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    """Before any step."""
    with pytest.raises(OptionError, match="makes no sense"):
        beam_search(table(0), (), 1, end=END, **{"width": 2, "longest": 3, **options})


@pytest.mark.parametrize("scores", [[[0.0]], [], [np.nan, 0.0]])
def test_a_step_without_log_probabilities_is_refused(scores: Any) -> None:
    """A batch, nothing, or NaN."""
    with pytest.raises(DataError, match="log-probabilities"):
        greedy(lambda token, state: (scores, state), None, 1, end=END, longest=3)
