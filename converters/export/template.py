"""Files with @NAME@ in place of what differs from model to model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources

from edgelstm.converters.export.app import AppModel


def filled(template: str, values: Mapping[str, str]) -> bytes:
    """The file of this name under `templates/`, every @NAME@ replaced."""
    folder = resources.files("edgelstm.converters.export") / "templates"
    text = (folder / template).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], text).encode()


def golden_json(model: AppModel) -> bytes:
    """`golden.json`, one line per frame."""
    told = model.golden.to_json()
    frames = ",\n".join(json.dumps(frame) for frame in told.pop("frames"))
    head = json.dumps(told)[:-1]
    return f'{head}, "frames": [\n{frames}\n]}}\n'.encode()
