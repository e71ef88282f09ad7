"""Masks: where they come from, and what passes them on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from keras_models import FUSED, LOOP, VOCABULARY, Case, Layers

from keras_cases.build import BOOLS, UNITS, chain, masked, options


def lstm_masked() -> Iterator[Case]:
    for sequences, state, back in itertools.product(BOOLS, repeat=3):
        keywords = {"return_sequences": sequences, "return_state": state, "go_backwards": back}
        yield Case(options(**keywords), masked("LSTM", UNITS, **keywords), (FUSED,))


def loops_masked() -> Iterator[Case]:
    hard = {"recurrent_activation": "hard_sigmoid"}
    for sequences, back in itertools.product(BOOLS, repeat=2):
        keywords = {"return_sequences": sequences, "go_backwards": back}
        name = options(**keywords)
        yield Case(f"hard_{name}", masked("LSTM", UNITS, **hard, **keywords), (LOOP,))
        yield Case(f"gru_{name}", masked("GRU", UNITS, return_state=True, **keywords), (LOOP,))
    yield Case("simple", masked("SimpleRNN", UNITS, return_sequences=True), (LOOP,))
    yield Case(
        "zero_output",
        lambda K, L, i: L.RNN(
            L.LSTMCell(UNITS), return_sequences=True, return_state=True, zero_output_for_mask=True
        )(L.Masking()(i.x)),
        (FUSED,),
    )
    yield Case(
        "zero_output_last",
        lambda K, L, i: L.RNN(L.LSTMCell(UNITS), zero_output_for_mask=True)(L.Masking()(i.x)),
        (FUSED,),
    )
    yield Case(
        "zero_output_gru",
        lambda K, L, i: L.RNN(L.GRUCell(UNITS), return_sequences=True, zero_output_for_mask=True)(
            L.Masking()(i.x)
        ),
        (LOOP,),
    )


def mask_propagation() -> Iterator[Case]:
    def embedding(L: Layers) -> Any:
        return L.Embedding(VOCABULARY, 5, mask_zero=True)

    yield Case("embedding", chain(embedding, lambda L: L.LSTM(UNITS), start="ids"), (FUSED,))
    yield Case(
        "embedding_states",
        chain(
            embedding,
            lambda L: L.LSTM(UNITS, return_sequences=True, return_state=True),
            start="ids",
        ),
        (FUSED,),
    )
    yield Case(
        "stack",
        chain(
            embedding,
            lambda L: L.LSTM(UNITS, return_sequences=True),
            lambda L: L.Dropout(0.5),
            lambda L: L.GRU(6, return_sequences=True),
            lambda L: L.LSTM(UNITS),
            start="ids",
        ),
        (FUSED, FUSED, LOOP),
    )
    yield Case(
        "bidirectional",
        chain(
            embedding,
            lambda L: L.Bidirectional(L.LSTM(UNITS, return_sequences=True)),
            lambda L: L.Bidirectional(L.LSTM(6)),
            start="ids",
        ),
        (FUSED,) * 4,
    )

    def concatenated(K: Any, L: Layers, i: Any) -> Any:
        left = L.Embedding(VOCABULARY, 3, mask_zero=True)(i.ids)
        right = L.Embedding(VOCABULARY, 2, mask_zero=True)(i.ids)
        return L.LSTM(UNITS)(L.Concatenate()([left, right]))

    yield Case("concatenate", concatenated, (FUSED,))

    def added(K: Any, L: Layers, i: Any) -> Any:
        embedded = embedding(L)(i.ids)
        hidden = L.LSTM(5, return_sequences=True)(embedded)
        return L.LSTM(UNITS)(L.Add()([hidden, embedded]))

    yield Case("residual", added, (FUSED, FUSED))
    yield Case(
        "time_distributed_dense",
        chain(
            embedding,
            lambda L: L.TimeDistributed(L.Dense(4)),
            lambda L: L.LSTM(UNITS, return_sequences=True),
            lambda L: L.TimeDistributed(L.Dense(3)),
            start="ids",
        ),
        (FUSED,),
    )
    yield Case(
        "pooled",
        chain(
            embedding,
            lambda L: L.LSTM(UNITS, return_sequences=True),
            lambda L: L.GlobalAveragePooling1D(),
            start="ids",
        ),
        (FUSED,),
    )
    yield Case(
        "unmasked_embedding",
        chain(lambda L: L.Embedding(VOCABULARY, 5), lambda L: L.LSTM(UNITS), start="ids"),
        (FUSED,),
    )

    def given(K: Any, L: Layers, i: Any) -> Any:
        return L.LSTM(UNITS, return_sequences=True)(
            L.Embedding(VOCABULARY, 5)(i.ids),
            mask=L.Embedding(VOCABULARY, 5, mask_zero=True).compute_mask(i.ids),
        )

    yield Case("mask_argument", given, (FUSED,))
