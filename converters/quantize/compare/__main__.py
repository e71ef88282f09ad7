"""The command."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm import arguments, files
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.quantize.compare.isolated import measured_apart
from edgelstm.converters.quantize.compare.measure import Depth
from edgelstm.converters.quantize.compare.recorded import RecordedModel, recorded_models
from edgelstm.converters.quantize.compare.speed import print_speed
from edgelstm.converters.quantize.compare.table import Row, block, from_json, summary, to_json
from edgelstm.converters.quantize.input_form import InputForm
from edgelstm.converters.quantize.rounding import RoundingPolicy
from edgelstm.converters.spec import Array


def main() -> None:
    """Prints one block per model, and the table of all of them."""
    parser = argparse.ArgumentParser(prog="python -m edgelstm.converters.quantize.compare")
    parser.add_argument("files", nargs="*", type=Path, help="MODEL DATA.npz, in pairs")
    parser.add_argument("--inputs", help="tensors of the graphs, as edgelstm convert takes them")
    parser.add_argument("--outputs", help="the same of outputs")
    parser.add_argument("--corpus", type=Path, help="a folder of models with recorded inputs")
    parser.add_argument("--only", default="*", help="which of its models, as a pattern of names")
    parser.add_argument(
        "--beside",
        type=Path,
        help="a folder with what models lack: NAME.json, an architecture, and NAME.py, layers, by "
        "the names that meta.json gives them (runner.builder, runner.custom)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        help="write the figures here after each model; models that it has are not measured again",
    )
    parser.add_argument(
        "--rounding",
        type=RoundingPolicy,
        default=RoundingPolicy.CALIBRATED,
        metavar="|".join(one.value for one in RoundingPolicy),
        help="of our int8 and int16 files, as edgelstm convert takes it",
    )
    parser.add_argument(
        "--lstm-input",
        type=InputForm,
        default=InputForm.AUTO,
        metavar="|".join(one.value for one in InputForm),
        help="of our int8 files, as edgelstm convert takes it",
    )
    parser.add_argument("--speed", action="store_true", help="how long 2 x LSTM(256) takes")
    given = parser.parse_args()
    if len(given.files) % 2:
        parser.error("give a data file behind each model")
    for folder in (given.corpus, given.beside):
        if folder is not None and not folder.is_dir():
            parser.error(f"{folder} is no folder")
    if given.speed:
        print_speed(given.rounding)
        return
    if given.json is not None:
        files.check_output(given.json, may_replace=True)
    with tempfile.TemporaryDirectory(prefix="edgelstm-compare-") as scratch:
        models: Iterator[RecordedModel | str]
        if given.corpus is not None:
            models = recorded_models(given.corpus, given.only, given.beside)
            depth = Depth.TABLE
        else:
            models = iter(_pairs(given.files, given.inputs, given.outputs, Path(scratch)))
            depth = Depth.ALL
        models = _with(models, given.rounding, given.lstm_input)
        _compare_all(models, depth, Path(scratch), given.json)


def _with(
    models: Iterator[RecordedModel | str], rounding: RoundingPolicy, form: InputForm
) -> Iterator[RecordedModel | str]:
    for model in models:
        if isinstance(model, RecordedModel):
            ways = tuple(
                dataclasses.replace(one, rounding=rounding, input_form=form)
                for one in model.options
            )
            yield dataclasses.replace(model, options=ways)
        else:
            yield model


def _compare_all(
    models: Iterator[RecordedModel | str], depth: Depth, scratch: Path, out: Path | None
) -> None:
    known = {}
    if out is not None and out.is_file():
        try:
            known = {row.name: row for row in from_json(out.read_text())}
        except (ValueError, KeyError, TypeError):
            raise SystemExit(f"{out} holds no figures of this command; name another file") from None
    rows: list[Row] = []
    for number, model in enumerate(models):
        if isinstance(model, str):
            name, _, reason = model.partition(": ")
            rows.append(Row(name, "", {}, reason))
        elif model.name in known:
            rows.append(known[model.name])
        else:
            home = scratch / str(number)
            home.mkdir()
            stages, reason = measured_apart(model, depth, home)
            rows.append(Row(model.name, model.data, stages, reason))
        print(block(rows[-1]), flush=True)
        if out is not None:
            kept = {**known, **{row.name: row for row in rows}}
            files.write_atomically(out, to_json(list(kept.values())).encode())
    if not rows:
        print("no model")
    elif len(rows) > 1:
        print(summary(rows), flush=True)


def _pairs(
    paths: list[Path], inputs: str | None, outputs: str | None, scratch: Path
) -> list[RecordedModel]:
    options = ConvertOptions(
        inputs=arguments.tensors("--inputs", inputs),
        outputs=tuple(one.name for one in arguments.tensors("--outputs", outputs)),
    )
    models = []
    for title, path, arrays in _opened(paths) or _generated(scratch):
        x = next(iter(arrays.values()))
        half = len(x) // 2
        labels = arrays.get("y")
        models.append(
            RecordedModel(
                title,
                path,
                recordings=[[{"": x[:half]}], [{"": x[half:]}]],
                options=(options,),
                data=f"{len(x)} rows",
                labels=None if labels is None else [labels[:half], labels[half:]],
            )
        )
    return models


def _opened(paths: list[Path]) -> list[tuple[str, Path, dict[str, Array]]]:
    found = []
    for model, data in zip(paths[::2], paths[1::2], strict=True):
        with np.load(data) as archive:
            found.append((str(model), model, {name: archive[name] for name in archive.files}))
    return found


def _generated(folder: Path) -> list[tuple[str, Path, dict[str, Array]]]:
    tensorflow()
    import keras

    def lstm(units: int, **keywords: Any) -> Any:
        return keras.layers.LSTM(units, **keywords)

    makers: dict[str, Callable[[], list[Any]]] = {
        "single": lambda: [lstm(64)],
        "stacked": lambda: [lstm(64, return_sequences=True), lstm(64)],
        "bidirectional": lambda: [keras.layers.Bidirectional(lstm(32, return_sequences=True))],
    }
    found = []
    for number, (title, layers) in enumerate(makers.items()):
        keras.utils.set_random_seed(number)
        path = folder / f"{title}.keras"
        keras.Sequential([keras.Input((None, 16)), *layers()]).save(path)
        data = np.random.default_rng(number).standard_normal((160, 30, 16)).astype(np.float32)
        found.append((title, path, {"x": data}))
    return found


if __name__ == "__main__":
    main()
