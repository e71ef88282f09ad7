"""Recurrent layers that become loops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from keras_models import LOOP, Case, Layers

from edgelstm.converters.frameworks import tensorflow
from keras_cases.build import BOOLS, UNITS, chain, layer, options


def gru_and_simple() -> Iterator[Case]:
    for reset, sequences, back in itertools.product(BOOLS, repeat=3):
        keywords = {"reset_after": reset, "return_sequences": sequences, "go_backwards": back}
        yield Case(options(**keywords), layer("GRU", UNITS, **keywords), (LOOP,))
    for reset in BOOLS:
        yield Case(
            options(no_bias=True, reset_after=reset),
            layer("GRU", UNITS, reset_after=reset, use_bias=False, return_state=True),
            (LOOP,),
        )
        yield Case(
            options(relu=True, reset_after=reset),
            layer(
                "GRU",
                UNITS,
                reset_after=reset,
                activation="relu",
                recurrent_activation="hard_sigmoid",
            ),
            (LOOP,),
        )
    yield Case("simple", layer("SimpleRNN", UNITS), (LOOP,))
    yield Case("simple_relu", layer("SimpleRNN", UNITS, activation="relu"), (LOOP,))
    yield Case(
        "simple_states",
        layer("SimpleRNN", UNITS, return_state=True, return_sequences=True, use_bias=False),
        (LOOP,),
    )


def conv_lstm_1d() -> Iterator[Case]:
    same = {"padding": "same"}
    yield Case("plain", layer("ConvLSTM1D", 6, 3), (LOOP,))
    yield Case("sequences", layer("ConvLSTM1D", 6, 3, return_sequences=True, **same), (LOOP,))
    yield Case(
        "states",
        layer("ConvLSTM1D", 6, 3, return_sequences=True, return_state=True, **same),
        (LOOP,),
    )
    yield Case("strides", layer("ConvLSTM1D", 6, 3, strides=2), (LOOP,))
    yield Case("dilation", layer("ConvLSTM1D", 6, 3, dilation_rate=2), (LOOP,))
    yield Case("backwards", layer("ConvLSTM1D", 6, 3, go_backwards=True), (LOOP,))
    yield Case("no_bias", layer("ConvLSTM1D", 6, 3, use_bias=False), (LOOP,))
    yield Case(
        "sigmoid", layer("ConvLSTM1D", 6, 3, recurrent_activation="sigmoid", **same), (LOOP,)
    )


def conv_lstm_2d() -> Iterator[Case]:
    same = {"padding": "same"}
    yield Case("plain", layer("ConvLSTM2D", 3, 3), (LOOP,))
    yield Case(
        "states",
        layer("ConvLSTM2D", 3, (3, 2), return_sequences=True, return_state=True, **same),
        (LOOP,),
    )
    yield Case("strides", layer("ConvLSTM2D", 3, 3, strides=(2, 1), **same), (LOOP,))
    yield Case("dilation", layer("ConvLSTM2D", 3, 2, dilation_rate=2), (LOOP,))
    yield Case("backwards", layer("ConvLSTM2D", 3, 3, go_backwards=True, **same), (LOOP,))
    yield Case(
        "stack",
        chain(
            lambda L: L.ConvLSTM2D(3, 3, return_sequences=True, **same),
            lambda L: L.BatchNormalization(),
            lambda L: L.ConvLSTM2D(2, 3),
            lambda L: L.Flatten(),
            lambda L: L.Dense(2),
        ),
        (LOOP, LOOP),
    )
    yield Case(
        "bidirectional",
        lambda K, L, i: L.Bidirectional(L.ConvLSTM2D(3, 3, padding="same"))(i.x),
        (LOOP, LOOP),
    )

    def masked_frames(K: Any, L: Layers, i: Any) -> Any:
        class FrameMask(K.layers.Layer):  # type: ignore[misc]
            """Masks the frames that are all zero."""

            def call(self, inputs: Any) -> Any:
                return 1.0 * inputs

            def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
                ops = K.ops if hasattr(K, "ops") else tensorflow().keras.backend
                return ops.any(ops.not_equal(inputs, 0.0), axis=(2, 3, 4))

        return L.ConvLSTM2D(3, 3, return_sequences=True, padding="same")(L.make(FrameMask)(i.x))

    yield Case("masked", masked_frames, (LOOP,))


def conv_lstm_3d() -> Iterator[Case]:
    yield Case("plain", layer("ConvLSTM3D", 2, 2), (LOOP,))
    yield Case(
        "sequences", layer("ConvLSTM3D", 2, 2, return_sequences=True, padding="same"), (LOOP,)
    )
