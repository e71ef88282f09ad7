"""Encoder-decoders in one file: encode once, then decode token by token."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgelstm.errors import UnreadableModelError, UnsupportedModelError
from edgelstm.runtime.interpreters import Delegate
from edgelstm.runtime.normalisation import Normalisation
from edgelstm.runtime.opened import OpenedModel
from edgelstm.runtime.search import Step, stream_step
from edgelstm.runtime.session import Session
from edgelstm.runtime.state import State
from edgelstm.runtime.stream import Stream
from edgelstm.runtime.tensors import Array


class Scores(enum.Enum):
    """What a decoder says of the next token."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"
    LOG_PROBABILITIES = "log-probabilities"


class EncoderDecoder:
    """A file of `edgelstm convert --split`.

    For one thread at a time. `close()`, or the end of a `with` block, frees both halves.

    Attributes:
        encoder: runs the source sequence.
        decoder: runs the target one token at a time, from the states of the encoder.
        context: what the sequence that was encoded last gives to every step, by input name.
    """

    def __init__(
        self,
        model: Path | str | bytes | OpenedModel,
        *,
        delegate: Delegate | None = None,
        normalisation: Normalisation = Normalisation.LEAVE,
    ) -> None:
        """Opens both halves; they share the file's memory.

        Args:
            normalisation: as for `Session`, of the source sequence; a decoder's tokens and scores
                are as the model has them.

        Raises:
            UnreadableModelError: the file is missing or damaged.
            UnsupportedModelError: it was not split.
        """
        if not isinstance(model, OpenedModel):
            model = OpenedModel.open(model, delegate=delegate)
        split = (model.metadata or {}).get("split")
        if split is None:
            raise UnsupportedModelError(
                "The file is no encoder-decoder in two halves.",
                where=model.where,
                cure="edgelstm convert SOURCE -o OUT.tflite --split encoder,decoder",
            )
        try:
            encoder = str(split["encoder"])
            self.encoder = Session(model, signature=encoder, normalisation=normalisation)
            self.decoder = Stream(model, signature=str(split["decoder"]))
            self._handed = {str(given): str(made) for given, made in split["handed"].items()}
        except (KeyError, TypeError, AttributeError):
            raise UnreadableModelError(
                "The metadata tell of halves that the file does not hold.",
                where=model.where,
                cure="convert the model again",
            ) from None
        self._states = {
            s["name"]: s["input"] for s in model.running(split["decoder"]).contract["states"]
        }
        self._model = model
        self.context: dict[str, Array] = {}

    def close(self) -> None:
        """Frees both interpreters.

        Raises:
            MisuseError: another thread is inside one of them.
        """
        self.encoder.close()
        self.decoder.close()

    def __enter__(self) -> EncoderDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode(self, inputs: Mapping[str, npt.ArrayLike]) -> State:
        """The state that decoding starts from, for one source sequence by input name.

        Raises:
            DataError, UnsupportedModelError: as `Session.run`.
        """
        made = self.encoder.run(inputs)
        handed = {given: made[name] for given, name in self._handed.items()}
        own = {info.name for info in self.decoder.inputs}
        # What is no state, such as the sequence that attention looks at, goes into every step.
        self.context = {name: array for name, array in handed.items() if name in own}
        arrays = {name: handed[given] for name, given in self._states.items()}
        return State(arrays, self._model.sha256, self._model.source_sha256)

    def step(
        self,
        frame_of: Callable[[int], Any],
        scores: Scores = Scores.PROBABILITIES,
        output: str | None = None,
    ) -> Step[State]:
        """A step for `greedy` and `beam_search`, for the sequence that was encoded last.

        Args:
            frame_of: the decoder's own input(s) for a token.
            scores: what the output means.
            output: as for `stream_step`.
        """
        context = self.context
        own = [info.name for info in self.decoder.inputs if info.name not in context]

        def frames(token: int) -> Any:
            given = frame_of(token)
            if not context:
                return given
            return {**(given if isinstance(given, Mapping) else {own[0]: given}), **context}

        plain = stream_step(self.decoder, frames, output)

        def step(token: int, state: State) -> tuple[Array, State]:
            found, after = plain(token, state)
            return _logarithms(np.asarray(found, np.float64), scores), after

        return step


def _logarithms(values: Array, scores: Scores) -> Array:
    if scores is Scores.LOG_PROBABILITIES:
        return values
    if scores is Scores.PROBABILITIES:
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(values))
    shifted = values - values.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
