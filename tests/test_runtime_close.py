"""Sessions and streams among threads, and what closing one frees."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream_models import FEATURES, carry, explicit

from edgelstm.errors import EdgeLstmError, MisuseError
from edgelstm.runtime import Delegate, OpenedModel, Session, Stream

THREADS, TRIES = 4, 200


class Slow:
    """An input that is read only when it is let go: whoever gives it stays inside until then."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.inside, self.go = threading.Event(), threading.Event()

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        self.inside.set()
        assert self.go.wait(60)
        return self.array


def noise(*shape: int) -> np.ndarray:
    """Values that depend on the shape alone."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("delegate", list(Delegate), ids=lambda delegate: delegate.value)
def test_threads_in_one_stream_never_mix_its_states(delegate: Delegate) -> None:
    """Each push of a frame was done whole or refused: the state is that of as many in a row."""
    model = OpenedModel.open(carry(1, units=128).content, delegate=delegate)
    x, stream = noise(1, 20, FEATURES), Stream(model)
    start = threading.Barrier(THREADS)

    def push(_: int) -> tuple[int, int]:
        done = refused = 0
        start.wait(60)
        while done + refused < TRIES or not refused and done < 100 * TRIES:
            try:
                stream.push(x)
                done += 1
            except MisuseError:
                refused += 1
        return done, refused

    with ThreadPoolExecutor(THREADS) as pool:
        counts = list(pool.map(push, range(THREADS)))
    done, refused = (sum(each) for each in zip(*counts, strict=True))
    assert done and refused
    alone = Stream(model)
    for _ in range(done):
        alone.push(x)
    found, expected = stream.get_state().arrays, alone.get_state().arrays
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


STREAM_CALLS: dict[str, Callable[[Stream], object]] = {
    "push": lambda stream: stream.push(noise(1, 1, FEATURES)),
    "push into": lambda stream: stream.push(noise(1, 1, FEATURES), {}),
    "push_each": lambda stream: stream.push_each(noise(2, 1, 1, FEATURES)),
    "reset": lambda stream: stream.reset(),
    "get_state": lambda stream: stream.get_state(),
    "set_state": lambda stream: stream.set_state(None),  # type: ignore[arg-type]
    "save": lambda stream: stream.save("never written"),
    "fork": lambda stream: stream.fork(),
}


@pytest.mark.parametrize("call", STREAM_CALLS.values(), ids=list(STREAM_CALLS))
def test_a_stream_that_a_thread_is_inside_refuses_another(
    call: Callable[[Stream], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error tells what to do, the thread inside gets its result, and then all is free again."""
    monkeypatch.chdir(tmp_path)
    model = carry(1)
    stream, x = Stream(model.content), noise(1, 5, FEATURES)
    slow = Slow(x)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stream.push, slow)
        assert slow.inside.wait(60)
        with pytest.raises(MisuseError, match="in use") as raised:
            call(stream)
        with pytest.raises(MisuseError, match="in use"):
            stream.close()
        slow.go.set()
        found = running.result(60)[model.output]
    assert "fork()" in str(raised.value) and "a model in memory" in str(raised.value)
    np.testing.assert_allclose(found, model.expected(x), rtol=0, atol=1e-6)
    stream.push(x)
    assert not list(tmp_path.iterdir())


def test_a_session_that_a_thread_is_inside_refuses_another_and_clones() -> None:
    """A clone may be asked for meanwhile, and runs beside it."""
    model = carry(1)
    session, x = Session(model.content), noise(1, 5, FEATURES)
    slow = Slow(x)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.run, {"x": slow})
        assert slow.inside.wait(60)
        for call in (lambda: session.run({"x": x}), session.reset, session.close):
            with pytest.raises(MisuseError, match=r"in use[\s\S]*clone\(\)"):
                call()
        beside = session.clone().run({"x": x})[model.output]
        slow.go.set()
        found = running.result(60)[model.output]
    np.testing.assert_array_equal(found, beside)
    np.testing.assert_allclose(found, model.expected(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("refused", [{}, {"x": np.zeros((1, 5, 9), np.float32)}])
def test_a_call_that_fails_lets_the_next_one_in(refused: dict[str, np.ndarray]) -> None:
    """An error leaves nobody inside."""
    session, stream = Session(carry(1).content), Stream(carry(1).content)
    for call in (session.run, stream.push):
        with pytest.raises(EdgeLstmError):
            call(refused)
        call({"x": noise(1, 5, FEATURES)})


@pytest.mark.parametrize("delegate", list(Delegate), ids=lambda delegate: delegate.value)
@pytest.mark.parametrize("form", [carry, explicit])
@pytest.mark.parametrize("pushes", [0, 1, 2])
def test_closing_a_stream_frees_its_interpreter(
    form: Callable[..., Any], delegate: Delegate, pushes: int
) -> None:
    """Also when its memory is mapped; a fork goes on."""
    model = form(1)
    stream, x = Stream(model.content, delegate=delegate), noise(1, 2, FEATURES)
    for _ in range(pushes):
        stream.push({"x": x})
    fork = stream.fork()
    held: Any = stream._engine._interpreter
    freed = [weakref.ref(each) for each in (held, *getattr(held, "_delegates", ()))]
    del held
    stream.close()
    assert [each() for each in freed] == [None] * len(freed)
    stream.close()
    whole = np.concatenate([x] * (pushes + 1), axis=1)
    expected = model.expected(whole)[:, -2:]
    found = fork.push({"x": x})[model.output]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("delegate", list(Delegate), ids=lambda delegate: delegate.value)
def test_closing_a_session_frees_its_interpreter(delegate: Delegate) -> None:
    """At the end of a `with` block too; a clone goes on."""
    x = {"x": noise(1, 5, FEATURES)}
    with Session(carry(1).content, delegate=delegate) as session:
        first = session.run(x)
        clone = session.clone()
        freed = weakref.ref(session._interpreter)
    assert freed() is None
    np.testing.assert_array_equal(clone.run(x)["sequence"], first["sequence"])


@pytest.mark.parametrize("call", STREAM_CALLS.values(), ids=list(STREAM_CALLS))
def test_a_closed_stream_says_so(call: Callable[[Stream], object]) -> None:
    """Whichever method is called."""
    with Stream(carry(1).content) as stream:
        stream.push(noise(1, 1, FEATURES))
    with pytest.raises(MisuseError, match="The stream is closed"):
        call(stream)
    for other in (stream.info, stream.__enter__):
        with pytest.raises(MisuseError, match="The stream is closed"):
            other()


def test_a_closed_session_says_so() -> None:
    """Whichever method is called."""
    session = Session(carry(1).content)
    session.close()
    calls = (session.info, session.clone, session.reset, session.__enter__)
    for call in (*calls, lambda: session.run({"x": noise(1, 1, FEATURES)})):
        with pytest.raises(MisuseError, match=r"The session is closed[\s\S]*open the model again"):
            call()
