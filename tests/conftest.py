"""What every test gets: a native library that is up to date, and the corpus if it is here."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT.parent / "shared" / "corpus"

# Before anything imports tensorflow; edgelstm.converters.frameworks sets the same.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def pytest_configure() -> None:
    """In an editable install, bring the native library up to date."""
    spec = importlib.util.find_spec("edgelstm")
    rebuild = getattr(spec.loader if spec else None, "rebuild", None)
    if rebuild is not None and shutil.which("cmake"):
        rebuild()


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of third-party models; tests that need it are skipped where it is absent."""
    if not CORPUS.is_dir():
        pytest.skip("the corpus of third-party models is not beside this checkout")
    return CORPUS
