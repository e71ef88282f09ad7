"""Encoder-decoders in one file: against the source framework's own loop, and all sequences."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelstm.arguments import halves
from edgelstm.cli import run
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.sources.keras.engine import KerasEngine, active_engine
from edgelstm.converters.split import convert_as_asked
from edgelstm.errors import MisuseError, OptionError, UnsupportedModelError
from edgelstm.runtime import read_metadata
from edgelstm.runtime.decoder import EncoderDecoder
from edgelstm.runtime.search import beam_search, greedy

pytest.importorskip("tensorflow")

FEATURES, TOKENS, UNITS, START, END = 3, 5, 8, 0, 4


def seq2seq(engine: KerasEngine, layers: int = 1) -> tuple[Any, Any, Any]:
    """The model as tutorials train it, and its halves as they build them for inference."""
    keras = engine.module
    keras.utils.set_random_seed(7)
    wide = keras.initializers.RandomNormal(stddev=1.5, seed=3)
    source = keras.Input((None, FEATURES), name="source")
    target = keras.Input((None, TOKENS), name="target")
    y, states = source, []
    for n in range(layers):
        layer = keras.layers.LSTM(
            UNITS, return_sequences=True, return_state=True, kernel_initializer=wide, name=f"e{n}"
        )
        y, h, c = layer(y)
        states.append([h, c])
    given = [[keras.Input((UNITS,)), keras.Input((UNITS,))] for _ in range(layers)]
    decoder, alone, after = target, target, []
    for n in range(layers):
        layer = keras.layers.LSTM(
            UNITS, return_sequences=True, return_state=True, kernel_initializer=wide, name=f"d{n}"
        )
        decoder, _, _ = layer(decoder, initial_state=states[n])
        alone, h, c = layer(alone, initial_state=given[n])
        after += [h, c]
    dense = keras.layers.Dense(
        TOKENS, activation="softmax", kernel_initializer=wide, name="next_token"
    )
    whole = keras.Model([source, target], dense(decoder))
    flat = [tensor for pair in states for tensor in pair]
    first = keras.Model(source, flat)
    second = keras.Model([target, *[t for pair in given for t in pair]], [dense(alone), *after])
    return whole, first, second


def one_hot(token: int) -> np.ndarray:
    """A frame of the decoder [1, 1, TOKENS]."""
    return np.eye(TOKENS, dtype=np.float32)[np.newaxis, [token]]


@pytest.fixture(
    scope="module",
    params=[KerasEngine.KERAS3, pytest.param(KerasEngine.TF_KERAS, marks=pytest.mark.slow)],
    ids=lambda engine: engine.name.lower(),
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(the written file, Keras's encoder, Keras's decoder step as numpy functions)."""
    engine = request.param
    try:
        engine.module  # noqa: B018
    except Exception as error:
        pytest.skip(f"{engine.name} does not import: {error}")
    folder = tmp_path_factory.mktemp("split")
    with active_engine(engine):
        whole, first, second = seq2seq(engine, layers=2)
        suffix = ".keras" if engine is KerasEngine.KERAS3 else ".h5"
        whole.save(folder / f"model{suffix}")

        def encode(x: np.ndarray) -> list[np.ndarray]:
            return [np.asarray(t) for t in first(x)]

        def step(token: int, states: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
            scores, *after = second([one_hot(token), *states])
            return np.log(np.asarray(scores)[0, -1]), [np.asarray(t) for t in after]

    path = folder / "model.tflite"
    convert_as_asked(
        folder / f"model{suffix}",
        path,
        ConvertOptions(),
        ("encoder", "decoder"),
        progress=lambda text: None,
    )
    return path, encode, step


def sources(count: int) -> list[np.ndarray]:
    """Source sequences [1, T, FEATURES]."""
    rng = np.random.default_rng(1)
    return [rng.standard_normal((1, 3 + n, FEATURES)).astype(np.float32) for n in range(count)]


def test_closing_an_encoder_decoder_closes_both_halves(made: Any) -> None:
    """At the end of a `with` block too."""
    with EncoderDecoder(made[0]) as model:
        x = sources(1)[0]
        state = model.encode({model.encoder.inputs[0].name: x})
    for call in (lambda: model.encode({"x": x}), lambda: model.decoder.set_state(state)):
        with pytest.raises(MisuseError, match="is closed"):
            call()


def test_greedy_decoding_is_that_of_keras(made: Any) -> None:
    """Token by token, with Keras's own halves in Keras's own loop."""
    path, encode, step = made
    model = EncoderDecoder(path)
    for x in sources(6):
        states, token, expected = encode(x), START, []
        for _ in range(8):
            scores, states = step(token, states)
            token = int(np.argmax(scores))
            expected.append(token)
            if token == END:
                break
        state = model.encode({model.encoder.inputs[0].name: x})
        found = greedy(model.step(one_hot), state, START, end=END, longest=8)
        assert list(found.tokens) == expected


def test_beam_search_finds_what_all_sequences_have_as_the_best(made: Any) -> None:
    """A beam as wide as all prefixes, against every sequence scored by Keras."""
    path, encode, step = made
    model = EncoderDecoder(path)
    longest = 3
    for x in sources(2):
        best: dict[tuple[int, ...], float] = {}
        for tokens in itertools.product(range(TOKENS), repeat=longest):
            states, token, total, said = encode(x), START, 0.0, []
            for following in tokens:
                scores, states = step(token, states)
                total += float(scores[following])
                said.append(following)
                token = following
                if token == END:
                    break
            best[tuple(said)] = total
        wanted = max(best, key=lambda tokens: best[tokens])
        state = model.encode({model.encoder.inputs[0].name: x})
        found = beam_search(
            model.step(one_hot), state, START, end=END, longest=longest, width=TOKENS**longest
        )
        assert found[0].tokens == wanted
        assert found[0].log_probability == pytest.approx(best[wanted], abs=1e-4)


def test_the_file_tells_its_halves_and_pairs_the_decoders_states(made: Any) -> None:
    """h and c of both layers, and which output of the encoder each one begins from."""
    path, _, _ = made
    told = read_metadata(path)
    assert told is not None
    states = told["signatures"]["decoder"]["states"]
    assert len(states) == 4
    assert {state["input"] for state in states} == set(told["split"]["handed"])


def spoiled(path: Path, folder: Path, graph: int) -> Path:
    """A copy whose largest constant of a graph is off by a tenth."""
    content = Model.read(path.read_bytes())
    tensors = [t for t in content.subgraphs[graph].tensors if t.constant and t.dtype == "float32"]
    largest = max(tensors, key=lambda tensor: tensor.nbytes)
    largest.set_data(largest.data() * np.float32(1.1))
    copy = folder / "spoiled.tflite"
    copy.write_bytes(content.to_bytes())
    return copy


def test_both_halves_are_verified(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its half of the source; the one that differs is named."""
    path, _, _ = made
    source = next(path.parent.glob("model.[kh]*"))
    assert run(["verify", str(source), str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    halved = {case["name"].split(",")[0] for case in told["cases"]}
    assert told["passed"] and halved == {"encoder", "decoder"}
    assert {output["name"] for output in told["outputs"]} >= {"next_token"}
    for graph, name in enumerate(("encoder", "decoder")):
        assert run(["verify", str(source), str(spoiled(path, tmp_path, graph)), "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert {c["name"].split(",")[0] for c in told["cases"] if not c["passed"]} == {name}
    arguments = ["verify", str(source), str(path), "--quantization"]
    assert run(arguments) == 2


def test_streaming_is_proven_with_the_whole_model(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Encoded once, then step by step; the first step that parts is printed."""
    path, _, _ = made
    source = next(path.parent.glob("model.[kh]*"))
    arguments = ["verify", str(source), str(path), "--streaming"]
    assert run([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["streaming"]
    assert told["passed"] and told["frames"] == 200 and told["worst_error"] < 1e-5
    assert [way["output"] for way in told["ways"]] == ["next_token"]
    data: Any = {"source": sources(1)[0], "target": np.zeros((1, 9, TOKENS), np.float32)}
    np.savez(tmp_path / "data.npz", **data)
    assert run([*arguments, "--json", "--data", str(tmp_path / "data.npz")]) == 0
    assert json.loads(capsys.readouterr().out)["streaming"]["frames"] == 9
    np.savez(tmp_path / "less.npz", source=data["source"])
    assert run([*arguments, "--data", str(tmp_path / "less.npz")]) == 2
    arguments[2] = str(spoiled(path, tmp_path, 1))
    assert run([*arguments, "--json"]) == 1
    (way,) = json.loads(capsys.readouterr().out)["streaming"]["ways"]
    assert way["first_diverging_step"] == 0


def test_a_decoder_that_looks_ahead_parts_from_the_model_at_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its steps are those of its own half, and still not those of the model."""
    keras = KerasEngine.KERAS3.module
    keras.utils.set_random_seed(3)
    x, y = keras.Input((None, FEATURES), name="source"), keras.Input((None, TOKENS), name="target")
    _, h, c = keras.layers.LSTM(UNITS, return_state=True)(x)
    ahead = keras.layers.Conv1D(TOKENS, 3, padding="same", name="ahead")(y)
    lstm = keras.layers.LSTM(UNITS, return_sequences=True, return_state=True)
    z, _, _ = lstm(ahead, initial_state=[h, c])
    keras.Model([x, y], keras.layers.Dense(TOKENS, name="next_token")(z)).save(tmp_path / "m.keras")
    path = tmp_path / "m.tflite"
    names = ("encoder", "decoder")
    convert_as_asked(
        tmp_path / "m.keras", path, ConvertOptions(), names, progress=lambda text: None
    )
    arguments = ["verify", str(tmp_path / "m.keras"), str(path)]
    assert run(arguments) == 0
    capsys.readouterr()
    assert run([*arguments, "--streaming"]) == 1
    shown = capsys.readouterr()
    assert "from frame 0 on" in " ".join(shown.err.split())


def test_what_attention_looks_at_goes_into_every_step(tmp_path: Path) -> None:
    """The encoder's sequence is no state: it is handed over once and given with each token."""
    keras = KerasEngine.KERAS3.module
    keras.utils.set_random_seed(5)
    source, target = keras.Input((None, FEATURES)), keras.Input((None, TOKENS))
    lstm = {"return_sequences": True, "return_state": True}
    seen, h, c = keras.layers.LSTM(UNITS, **lstm)(source)
    y, _, _ = keras.layers.LSTM(UNITS, **lstm)(target, initial_state=[h, c])
    y = keras.layers.Concatenate()([y, keras.layers.Attention()([y, seen])])
    whole = keras.Model([source, target], keras.layers.Dense(TOKENS, activation="softmax")(y))
    whole.save(tmp_path / "m.keras")
    path = tmp_path / "m.tflite"
    names = ("encoder", "decoder")
    convert_as_asked(
        tmp_path / "m.keras", path, ConvertOptions(), names, progress=lambda text: None
    )
    model = EncoderDecoder(path)
    (x,) = sources(1)
    said = [START]
    for _ in range(6):
        scores = whole([x, np.eye(TOKENS, dtype=np.float32)[np.newaxis, said]])
        said.append(int(np.argmax(np.asarray(scores)[0, -1])))
        if said[-1] == END:
            break
    state = model.encode({model.encoder.inputs[0].name: x})
    found = greedy(model.step(one_hot), state, START, end=END, longest=6)
    assert list(found.tokens) == said[1:]
    assert run(["verify", str(tmp_path / "m.keras"), str(path), "--streaming"]) == 0


def test_a_model_that_cannot_be_split_says_why(tmp_path: Path) -> None:
    """No decoder, states that are not returned, or options that do not fit."""
    keras = KerasEngine.KERAS3.module
    x = keras.Input((None, FEATURES))
    plain = keras.Model(x, keras.layers.LSTM(UNITS)(x))
    y = keras.Input((None, TOKENS))
    _, h, c = keras.layers.LSTM(UNITS, return_state=True)(x)
    kept = keras.Model([x, y], keras.layers.LSTM(UNITS)(y, initial_state=[h, c]))
    for model, told in ((plain, "No recurrent layer"), (kept, "keeps its last states")):
        path = tmp_path / "m.keras"
        model.save(path)
        with pytest.raises(UnsupportedModelError, match=told):
            convert_as_asked(
                path,
                tmp_path / "out.tflite",
                ConvertOptions(),
                ("encoder", "decoder"),
                progress=lambda text: None,
            )
    with pytest.raises(OptionError):
        halves("encoder")
    assert halves("a, b") == ("a", "b")
