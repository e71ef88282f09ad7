"""Models around recurrent layers: given states, structure, other layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_models import FUSED, LOOP, Build, Case, Layers

from keras_cases.build import UNITS, chain, masked


def initial_states() -> Iterator[Case]:
    def lstm(L: Layers, **keywords: Any) -> Any:
        return L.LSTM(UNITS, return_sequences=True, return_state=True, **keywords)

    yield Case("inputs", lambda K, L, i: lstm(L)(i.x, initial_state=[i.h, i.c]), (FUSED,))
    yield Case(
        "dense_outputs",
        lambda K, L, i: lstm(L)(i.x, initial_state=[L.Dense(UNITS)(i.v), L.Dense(UNITS)(i.v)]),
        (FUSED,),
    )
    yield Case("one_twice", lambda K, L, i: lstm(L)(i.x, initial_state=[i.h, i.h]), (FUSED,))

    def encoder_decoder(K: Any, L: Layers, i: Any) -> Any:
        _, h, c = L.LSTM(UNITS, return_state=True)(i.x)
        y, h, c = lstm(L)(i.y, initial_state=[h, c])
        return L.Dense(3, activation="softmax")(y), h, c

    yield Case("encoder_decoder", encoder_decoder, (FUSED, FUSED))

    def bidirectional_encoder(K: Any, L: Layers, i: Any) -> Any:
        _, fh, fc, bh, bc = L.Bidirectional(L.LSTM(UNITS // 2, return_state=True))(i.x)
        return L.LSTM(UNITS, return_sequences=True)(
            i.y, initial_state=[L.Concatenate()([fh, bh]), L.Concatenate()([fc, bc])]
        )

    yield Case("bidirectional_encoder", bidirectional_encoder, (FUSED,) * 3)

    def shared_by_two(K: Any, L: Layers, i: Any) -> Any:
        _, h, c = L.LSTM(UNITS, return_state=True)(i.x)
        return [lstm(L)(i.y, initial_state=[h, c])[0], lstm(L)(i.x, initial_state=[h, c])[0], h]

    yield Case("states_used_twice", shared_by_two, (FUSED,) * 3)

    def masked_encoder(K: Any, L: Layers, i: Any) -> Any:
        _, h, c = L.LSTM(UNITS, return_state=True)(L.Masking()(i.x))
        return lstm(L)(L.Masking()(i.y), initial_state=[h, c])

    yield Case("masked_encoder_decoder", masked_encoder, (FUSED, FUSED))
    yield Case(
        "masked",
        lambda K, L, i: lstm(L)(L.Masking()(i.x), initial_state=[i.h, i.c]),
        (FUSED,),
    )
    yield Case(
        "masked_backwards",
        lambda K, L, i: lstm(L, go_backwards=True)(L.Masking()(i.x), initial_state=[i.h, i.c]),
        (FUSED,),
    )
    yield Case(
        "hard_sigmoid",
        lambda K, L, i: lstm(L, recurrent_activation="hard_sigmoid")(i.x, initial_state=[i.h, i.c]),
        (LOOP,),
    )
    yield Case(
        "gru",
        lambda K, L, i: L.GRU(UNITS, return_sequences=True)(L.Masking()(i.x), initial_state=i.h),
        (LOOP,),
    )
    yield Case(
        "repeat_vector",
        lambda K, L, i: L.TimeDistributed(L.Dense(2))(
            L.LSTM(UNITS, return_sequences=True)(L.RepeatVector(4)(L.LSTM(UNITS)(i.x)))
        ),
        (FUSED, FUSED),
    )

    def stacked(K: Any, L: Layers, i: Any) -> Any:
        cells = [L.LSTMCell(UNITS), L.LSTMCell(UNITS)]
        return L.RNN(cells, return_sequences=True)(i.x, initial_state=[[i.h, i.c], [i.c, i.h]])

    yield Case("stacked_cells", stacked, (FUSED, FUSED))


def structure() -> Iterator[Case]:
    def shared(K: Any, L: Layers, i: Any) -> Any:
        lstm = L.LSTM(UNITS, return_sequences=True)
        return [lstm(i.x), lstm(L.Reshape((-1, 4))(L.Dense(4)(i.y)))]

    yield Case("layer_called_twice", shared, (FUSED, FUSED))

    def itself(K: Any, L: Layers, i: Any) -> Any:
        lstm = L.LSTM(4, return_sequences=True)
        return lstm(lstm(i.x))

    yield Case("layer_on_itself", itself, (FUSED, FUSED))

    def nested(K: Any, L: Layers, i: Any) -> Any:
        x = K.Input((None, 4))
        y, h, c = L.LSTM(UNITS, return_sequences=True, return_state=True)(x)
        inner = K.Model(x, [y, h, c])
        y, h, c = inner(i.x)
        return L.LSTM(UNITS)(y, initial_state=[h, c])

    yield Case("model_in_model", nested, (FUSED, FUSED))

    def nested_twice(K: Any, L: Layers, i: Any) -> Any:
        inner = K.Sequential([K.Input((None, 4)), L.LSTM(UNITS), L.Dense(4)])
        a, b = inner(i.x), inner(L.Dense(4)(i.y))
        return L.Subtract()([a, b])

    yield Case("siamese", nested_twice, (FUSED, FUSED))

    def deep(K: Any, L: Layers, i: Any) -> Any:
        innermost = K.Sequential([K.Input((None, 4)), L.LSTM(4, return_sequences=True)])
        inner = K.Sequential([K.Input((None, 4)), innermost, L.GRU(UNITS)])
        return inner(i.x)

    yield Case("model_in_model_in_model", deep, (FUSED, LOOP))

    def masked_model(K: Any, L: Layers, i: Any) -> Any:
        inner = K.Sequential([K.Input((None, 4)), L.Masking(), L.LSTM(UNITS)])
        return inner(i.x)

    yield Case("mask_in_model", masked_model, (FUSED,))

    def two_inputs(K: Any, L: Layers, i: Any) -> Any:
        return L.Dense(2)(L.Concatenate()([L.LSTM(UNITS)(i.x), L.LSTM(5)(i.y), i.v]))

    yield Case("three_inputs", two_inputs, (FUSED, FUSED))
    yield Case("input_as_output", lambda K, L, i: [i.v, L.LSTM(UNITS)(i.x)], (FUSED,))

    def same_output(K: Any, L: Layers, i: Any) -> Any:
        y = L.LSTM(UNITS)(i.x)
        return [y, y, L.Dense(2)(y)]

    yield Case("output_twice", same_output, (FUSED,))


def surroundings() -> Iterator[Case]:
    def sequence(L: Layers) -> Any:
        return L.LSTM(UNITS, return_sequences=True)

    def between(*makers: Any) -> Build:
        return chain(*makers, lambda L: L.LSTM(UNITS))

    yield Case(
        "conv1d",
        between(
            lambda L: L.Conv1D(6, 3, padding="causal", activation="relu"), lambda L: L.Dropout(0.2)
        ),
        (FUSED,),
    )
    yield Case(
        "pooled",
        between(lambda L: L.Conv1D(6, 1), lambda L: L.AveragePooling1D(2, padding="same")),
        (FUSED,),
    )
    yield Case("batch_norm", between(lambda L: L.BatchNormalization()), (FUSED,))
    yield Case("layer_norm", between(sequence, lambda L: L.LayerNormalization()), (FUSED, FUSED))
    yield Case(
        "spatial_dropout",
        between(lambda L: L.SpatialDropout1D(0.2), lambda L: L.GaussianNoise(0.1)),
        (FUSED,),
    )
    yield Case("prelu", between(lambda L: L.Dense(6), lambda L: L.LeakyReLU()), (FUSED,))
    yield Case("lambda", between(lambda L: L.Lambda(lambda x: x * 2.0 - 1.0)), (FUSED,))
    yield Case(
        "max_pooled",
        chain(
            sequence, lambda L: L.GlobalMaxPooling1D(), lambda L: L.Dense(3, activation="softmax")
        ),
        (FUSED,),
    )
    yield Case("average_pooled", chain(sequence, lambda L: L.GlobalAveragePooling1D()), (FUSED,))
    yield Case(
        "reshape",
        chain(
            lambda L: L.LSTM(UNITS),
            lambda L: L.Reshape((6, 3)),
            lambda L: L.Permute((2, 1)),
            lambda L: L.LSTM(4),
        ),
        (FUSED, FUSED),
    )

    def attention(K: Any, L: Layers, i: Any) -> Any:
        h = sequence(L)(i.x)
        return L.MultiHeadAttention(2, 5)(h, h)

    def luong(K: Any, L: Layers, i: Any) -> Any:
        h = sequence(L)(i.x)
        return L.Attention()([L.Dense(UNITS)(i.y), h])

    def bahdanau(K: Any, L: Layers, i: Any) -> Any:
        h = sequence(L)(i.x)
        return L.AdditiveAttention()([L.Dense(UNITS)(i.y), h])

    def masked_attention(K: Any, L: Layers, i: Any) -> Any:
        h = sequence(L)(L.Masking()(i.x))
        return L.Attention()([h, h])

    def dot(K: Any, L: Layers, i: Any) -> Any:
        h = sequence(L)(i.x)
        weights = L.Softmax(axis=1)(L.Dense(1)(h))
        return L.Dot(axes=1)([weights, h])

    yield Case("multi_head_attention", attention, (FUSED,))
    yield Case("attention", luong, (FUSED,))
    yield Case("additive_attention", bahdanau, (FUSED,))
    yield Case("masked_attention", masked_attention, (FUSED,))
    yield Case("attention_of_dense", dot, (FUSED,))


def fixed_surroundings() -> Iterator[Case]:
    yield Case(
        "flatten",
        chain(
            lambda L: L.LSTM(UNITS, return_sequences=True),
            lambda L: L.Flatten(),
            lambda L: L.Dense(2),
        ),
        (FUSED,),
    )
    yield Case("permute", chain(lambda L: L.Permute((2, 1)), lambda L: L.LSTM(UNITS)), (FUSED,))
    yield Case(
        "padded",
        chain(
            lambda L: L.ZeroPadding1D(2),
            lambda L: L.LSTM(UNITS),
        ),
        (FUSED,),
    )
    yield Case(
        "upsampled",
        chain(
            lambda L: L.UpSampling1D(2),
            lambda L: L.LSTM(UNITS),
        ),
        (FUSED,),
    )
    yield Case(
        "cropped",
        chain(
            lambda L: L.Cropping1D(1),
            lambda L: L.GRU(UNITS),
        ),
        (LOOP,),
    )
    yield Case("masked", masked("LSTM", UNITS, return_sequences=True, return_state=True), (FUSED,))
    yield Case(
        "masked_gru", masked("GRU", UNITS, return_sequences=True, return_state=True), (LOOP,)
    )
    yield Case(
        "bidirectional",
        lambda K, L, i: L.Bidirectional(L.LSTM(UNITS, return_sequences=True))(i.x),
        (FUSED, FUSED),
    )
