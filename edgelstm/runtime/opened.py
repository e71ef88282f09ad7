"""A model file that sessions and streams share: opened once, checked once, mapped by all."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgelstm.errors import InputError, OptionError, UnreadableModelError, UnsupportedModelError
from edgelstm.runtime import native
from edgelstm.runtime.choices import chosen, thread_count
from edgelstm.runtime.interpreters import (
    Backend,
    Delegate,
    Interpreter,
    as_user_error,
    construct,
    pick_backend,
)
from edgelstm.runtime.metadata import ENTRY, parse_metadata
from edgelstm.runtime.model_file import ModelFile, Signature, place, read_model_file
from edgelstm.runtime.subgraph import SubgraphInterpreter
from edgelstm.runtime.tensors import named

DEFAULT_SIGNATURE = "serving_default"
# Signatures whose states go on from call to call, beside one that starts from zero.
STREAM_SIGNATURES = ("chunk", "step")

# LSTM, UNIDIRECTIONAL_SEQUENCE_LSTM, BIDIRECTIONAL_SEQUENCE_LSTM: without any of them there is
# nothing for the native delegate.
_LSTM_OPS = frozenset({16, 44, 52})


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A model, the interpreter package and the delegate that were picked for it.

    It may be used by several threads. Every interpreter of it maps the same file, or reads the
    same bytes.

    Attributes:
        file: its checked structure.
        metadata: what `edgelstm convert` wrote into it; None for a file of another tool.
        reasons: why this backend and this delegate, by "interpreter" and "delegate".
        notes: what was tried before and did not work.
        wanted: name of the signature that was asked for; None for the file's own choice.
    """

    model: Path | bytes
    file: ModelFile
    metadata: dict[str, Any] | None
    backend: Backend
    threads: int
    delegate: Delegate
    reasons: dict[str, str]
    notes: tuple[str, ...]
    _content: bytes | mmap.mmap = dataclasses.field(repr=False)
    _stamp: tuple[int, ...] = dataclasses.field(repr=False)
    wanted: str | None = None
    # The one that showed that the delegate takes the model, for whoever asks first.
    _spare: list[Interpreter] = dataclasses.field(default_factory=list, repr=False)

    @classmethod
    def open(
        cls,
        model: Path | str | bytes,
        *,
        backend: str | None = None,
        threads: int = 1,
        delegate: Delegate | None = None,
    ) -> OpenedModel:
        """Opens a model.

        Args:
            model: a .tflite file, or its content.
            backend: "litert", "tflite-runtime" or "tensorflow"; None takes the first of them that
                imports.
            threads: number of threads, 1 to 1024.
            delegate: None takes the first that takes the model: the native one where it takes
                fused ops of it, XNNPACK, the interpreter's own kernels.

        Raises:
            UnreadableModelError: the file is missing, damaged, or no TFLite file.
            UnsupportedModelError: the interpreter lacks an op of the model.
            MissingPackageError: no interpreter is installed.
            OptionError: `backend`, `threads` or `delegate` is out of range.
        """
        thread_count(threads)
        if delegate is not None:
            delegate = chosen(Delegate, delegate, "delegate")
        path = Path(model) if isinstance(model, str) else model
        stamp = _stamp_of(path)
        file = read_model_file(path)
        metadata = parse_metadata(file.metadata.get(ENTRY), place(path))
        picked = pick_backend(backend)
        made = cls(
            model=path,
            file=file,
            metadata=metadata,
            backend=picked.backend,
            threads=threads,
            delegate=Delegate.XNNPACK if delegate is None else delegate,
            reasons={
                "interpreter": picked.reason,
                "delegate": "what interpreters use by default"
                if delegate is None
                else "it was asked for",
            },
            notes=picked.notes,
            _content=_map(path),
            _stamp=stamp,
        )
        made._check_unchanged()
        return made if delegate is not None else made._with_working_delegate()

    @property
    def where(self) -> str:
        """How messages name the model."""
        return place(self.model)

    @functools.cached_property
    def sha256(self) -> str:
        """Hexadecimal digest of the content as it was when opened; computed when first asked."""
        return hashlib.sha256(self._content).hexdigest()

    @property
    def source_sha256(self) -> str | None:
        """Digest of the file that was converted, as the metadata tell it."""
        source = (self.metadata or {}).get("source")
        digest = source.get("sha256") if isinstance(source, dict) else None
        return digest if isinstance(digest, str) else None

    @property
    def signature(self) -> Signature | None:
        """The one asked for; else `serving_default`, else the first signature of the main graph."""
        if self.wanted is not None:
            return next(s for s in self.file.signatures if s.name == self.wanted)
        main = [signature for signature in self.file.signatures if signature.subgraph == 0]
        main.sort(key=lambda signature: signature.name != DEFAULT_SIGNATURE)
        return main[0] if main else None

    @property
    def variables(self) -> tuple[int, ...]:
        """The signature's variable tensors that keep a value between calls."""
        signature = self.signature
        return self.file.variables[0 if signature is None else signature.subgraph]

    @property
    def contract(self) -> Mapping[str, Any]:
        """What the metadata say of the signature: `state_policy`, `states`, `time_axes`, ..."""
        metadata = self.metadata or {}
        forms = metadata.get("signatures")
        own = forms.get(self.wanted) if isinstance(forms, dict) else None
        return {**metadata, **own} if isinstance(own, dict) else metadata

    @property
    def carries(self) -> bool:
        """Whether states go on from call to call, in the file or through its caller."""
        contract = self.contract
        return contract.get("state_policy") != "reset" or bool(contract.get("states"))

    def running(self, signature: str | None) -> OpenedModel:
        """The same model, with another signature to run.

        Raises:
            OptionError: the file has no such signature.
        """
        if signature == self.wanted:
            return self
        names = [each.name for each in self.file.signatures]
        if signature is not None and signature not in names:
            raise OptionError(
                f"The model has no signature {signature!r}.",
                where=self.where,
                cure="use one of " + (", ".join(names) or "none: leave signature= out"),
            )
        if signature is not None:
            count = len(self.file.variables)
            if next(s for s in self.file.signatures if s.name == signature).subgraph >= count:
                raise UnreadableModelError(
                    f"The signature {signature!r} names a graph that is not there.",
                    where=self.where,
                )
        return dataclasses.replace(self, wanted=signature, _spare=[])

    def for_streams(self) -> OpenedModel:
        """The same model with the signature that carries states on: its own choice where that
        does, else `chunk`, else `step`."""
        names = {signature.name for signature in self.file.signatures}
        if self.wanted is not None or self.carries:
            return self
        return next((self.running(name) for name in STREAM_SIGNATURES if name in names), self)

    def interpreter(self) -> Interpreter:
        """A new interpreter; its tensors have yet to be allocated.

        Raises:
            UnreadableModelError: another file has taken the model's place since it was opened.
            UnsupportedModelError: the interpreter lacks an op of the model.
        """
        with contextlib.suppress(IndexError):
            return self._spare.pop()
        interpreter = construct(self.model, self.backend, self.threads, self.delegate)
        self._check_unchanged()
        signature = self.signature
        if signature is None or signature.subgraph == 0:
            return interpreter
        try:
            return SubgraphInterpreter(
                interpreter, signature.subgraph, signature.inputs, signature.outputs
            )
        except (ValueError, RuntimeError) as error:
            raise as_user_error(error, self.model, self.backend) from None

    def details(
        self, interpreter: Interpreter
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """What the interpreter tells of each input and of each output, by name.

        Raises:
            UnreadableModelError: the interpreter cannot tell.
        """
        try:
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        except ValueError as error:  # tensor names that are no UTF-8
            raise as_user_error(error, self.model, self.backend) from None
        wanted = self.signature
        return (
            named(inputs, wanted.inputs if wanted else {}),
            named(outputs, wanted.outputs if wanted else {}),
        )

    def failed(self, doing: str, error: Exception, sizes: str) -> UnsupportedModelError:
        """What an interpreter's complaint at these sizes means for the user."""
        text = " ".join(str(error).split())
        return UnsupportedModelError(
            f"{self.backend.name} {self.backend.version} failed while {doing}: {text}",
            where=f"{self.where} with {sizes}",
            cure="convert the model again with edgelstm convert, or use other sizes",
        )

    def info(self) -> dict[str, Any]:
        """A JSON object: interpreter, version, delegate, why these, threads, bytes."""
        return {
            "interpreter": self.backend.name,
            "interpreter_version": self.backend.version,
            "interpreter_reason": self.reasons["interpreter"],
            "delegate": self.delegate.value,
            "delegate_reason": self.reasons["delegate"],
            "notes": list(self.notes),
            "threads": self.threads,
            "signature": None if self.signature is None else self.signature.name,
            "bytes": self.file.bytes,
        }

    def _with_working_delegate(self) -> OpenedModel:
        own, notes = self._with_native_kernels()
        if own is not None:
            return own
        found = dataclasses.replace(self, notes=(*self.notes, *notes), _spare=[])
        refusal = _refusal(found)
        if refusal is None:
            return found
        plain = dataclasses.replace(
            found,
            delegate=Delegate.CPU,
            reasons={**self.reasons, "delegate": "XNNPACK refuses the model"},
            notes=(*found.notes, f"XNNPACK was tried: {refusal}"),
            _spare=[],
        )
        # A model that neither takes at the file's own sizes may run at others.
        return found if _refusal(plain) is not None else plain

    def _with_native_kernels(self) -> tuple[OpenedModel | None, tuple[str, ...]]:
        """The model under the native delegate where that takes an op of it, else why not."""
        if _LSTM_OPS.isdisjoint(self.file.builtin_ops):
            return None, ()
        try:
            own = dataclasses.replace(self, delegate=Delegate.EDGELSTM, _spare=[])
            refusal = _refusal(own)
            taken, left, reason = native.counts_of(own._spare[0]) if own._spare else (0, 0, "")
        except InputError as error:
            return None, (f"the native delegate was tried: {error.what}",)
        if refusal is None and taken:
            why = "it takes fused LSTM ops of the model, and is faster than the interpreter's own"
            reasons = {**self.reasons, "delegate": why}
            notes = (*self.notes, *_left(left, reason))
            return dataclasses.replace(own, reasons=reasons, notes=notes), ()
        why = refusal or f"it takes no op of the model, {reason or 'there is no fused one'}"
        return None, (f"the native delegate was tried: {why}",)

    def _check_unchanged(self) -> None:
        if not isinstance(self.model, bytes) and _stamp_of(self.model) != self._stamp:
            raise UnreadableModelError(
                "The model file was changed or replaced while it was in use.",
                where=self.where,
                cure="open it again; write models under a new name, then rename them",
            )


def _left(ops: int, reason: str) -> tuple[str, ...]:
    return (f"the native delegate leaves {ops} op(s) to the interpreter: {reason}",) if ops else ()


def _refusal(model: OpenedModel) -> str | None:
    """Why the interpreter does not prepare the model at the file's own sizes."""
    interpreter = model.interpreter()
    try:
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        return " ".join(str(error).split())
    model._spare.append(interpreter)
    return None


def _stamp_of(model: Path | bytes) -> tuple[int, ...]:
    """What tells one version of a file from another; empty for what cannot be looked at."""
    if isinstance(model, bytes):
        return ()
    try:
        status = os.stat(model)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _map(model: Path | bytes) -> bytes | mmap.mmap:
    if isinstance(model, bytes):
        return model
    with open(model, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
