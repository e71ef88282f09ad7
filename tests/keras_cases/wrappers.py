"""Bidirectional and TimeDistributed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from keras_models import FUSED, LOOP, Build, Case, Layers

from keras_cases.build import BOOLS, UNITS, chain, options


def bidirectional() -> Iterator[Case]:
    for merge, sequences in itertools.product([None, "concat", "sum", "ave", "mul"], BOOLS):
        yield Case(
            f"{merge}+{options(return_sequences=sequences)}",
            lambda K, L, i, m=merge, s=sequences: L.Bidirectional(  # type: ignore[misc]
                L.LSTM(UNITS, return_sequences=s), merge_mode=m
            )(i.x),
            (FUSED, FUSED),
        )


def bidirectional_more() -> Iterator[Case]:
    for merge in ("concat", "sum"):
        yield Case(
            f"{merge}+return_state",
            lambda K, L, i, m=merge: L.Bidirectional(  # type: ignore[misc]
                L.LSTM(UNITS, return_state=True, return_sequences=True), merge_mode=m
            )(i.x),
            (FUSED, FUSED),
        )
    yield Case(
        "backward_layer",
        lambda K, L, i: L.Bidirectional(
            L.LSTM(UNITS), backward_layer=L.LSTM(7, activation="relu", go_backwards=True)
        )(i.x),
        (FUSED, FUSED),
    )
    yield Case(
        "backward_gru",
        lambda K, L, i: L.Bidirectional(
            L.LSTM(UNITS, return_sequences=True),
            backward_layer=L.GRU(7, go_backwards=True, return_sequences=True),
        )(i.x),
        (FUSED, LOOP),
    )
    yield Case(
        "masked",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, return_sequences=True))(L.Masking()(i.x)),
        (FUSED, FUSED),
    )
    yield Case(
        "masked+return_state",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, return_state=True), merge_mode="ave")(
            L.Masking()(i.x)
        ),
        (FUSED, FUSED),
    )
    yield Case(
        "masked_gru",
        lambda K, L, i: L.Bidirectional(L.GRU(UNITS, return_sequences=True), merge_mode="mul")(
            L.Masking()(i.x)
        ),
        (LOOP, LOOP),
    )
    yield Case(
        "hard_sigmoid",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, recurrent_activation="hard_sigmoid"))(i.x),
        (LOOP, LOOP),
    )
    yield Case(
        "initial_state",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, return_sequences=True))(
            i.x, initial_state=[i.h, i.c, i.c, i.h]
        ),
        (FUSED, FUSED),
    )
    yield Case(
        "masked+initial_state",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, return_sequences=True, return_state=True))(
            L.Masking()(i.x), initial_state=[i.h, i.c, i.c, i.h]
        ),
        (FUSED, FUSED),
    )
    yield Case(
        "rnn_of_cell",
        lambda K, L, i: L.Bidirectional(L.RNN(L.LSTMCell(UNITS), return_sequences=True))(i.x),
        (FUSED, FUSED),
    )
    yield Case(
        "of_stacked_cells",
        lambda K, L, i: L.Bidirectional(L.RNN([L.LSTMCell(UNITS), L.LSTMCell(5)]))(i.x),
        (FUSED,) * 4,
    )


def time_distributed() -> Iterator[Case]:
    yield Case("lstm", layer_td(lambda K, L: L.LSTM(UNITS)), (FUSED,))
    yield Case(
        "lstm_sequences", layer_td(lambda K, L: L.LSTM(UNITS, return_sequences=True)), (FUSED,)
    )
    yield Case("gru", layer_td(lambda K, L: L.GRU(UNITS)), (LOOP,))
    yield Case(
        "bidirectional", layer_td(lambda K, L: L.Bidirectional(L.LSTM(UNITS))), (FUSED, FUSED)
    )
    yield Case("dense", layer_td(lambda K, L: L.Dense(3)))
    yield Case("nested", layer_td(lambda K, L: L.TimeDistributed(L.Dense(3))))
    yield Case(
        "convolution_then_lstm",
        chain(
            lambda L: L.TimeDistributed(L.Conv1D(3, 3, padding="same")),
            lambda L: L.TimeDistributed(L.MaxPooling1D(2)),
            lambda L: L.TimeDistributed(L.Flatten()),
            lambda L: L.LSTM(UNITS),
        ),
        (FUSED,),
    )

    def model(K: Any, L: Layers, i: Any) -> Any:
        inner = K.Sequential([K.Input((7, 2)), L.LSTM(UNITS, return_sequences=True), L.LSTM(5)])
        return L.LSTM(UNITS)(L.TimeDistributed(inner)(i.x))

    yield Case("model", model, (FUSED,) * 3)
    yield Case(
        "batch_norm",
        chain(
            lambda L: L.TimeDistributed(L.BatchNormalization()),
            lambda L: L.TimeDistributed(L.GlobalAveragePooling1D()),
            lambda L: L.LSTM(UNITS),
        ),
        (FUSED,),
    )
    yield Case(
        "of_time_distributed_lstm",
        lambda K, L, i: L.TimeDistributed(L.LSTM(UNITS))(
            L.TimeDistributed(L.TimeDistributed(L.Dense(3)))(i.x)
        ),
        (FUSED,),
    )


def layer_td(make: Any) -> Build:
    return lambda K, L, i: L.TimeDistributed(make(K, L))(i.x)
