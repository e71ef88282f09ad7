"""A voice, made up: what models of sound answer to, and random numbers never are.

Silero's voice detector says 0.001 to 0.02 to noise of any kind, and 0.5 to 0.9 to this. Errors are
told as fractions of an output's range, so the range has to be one that the model uses.
"""

from __future__ import annotations

import numpy as np

from edgelstm.converters.spec import Array

_RATE = 16_000  # samples per second; any other only moves the pitch
_PITCH = 120.0  # Hz, 15 % up and down
_HARMONICS = 40
# Resonances of vowels: Hz, how far they sway, how often per second, bandwidth.
_FORMANTS = ((600.0, 250.0, 1.3, 80.0), (1400.0, 600.0, 0.8, 120.0), (2600.0, 0.0, 0.0, 160.0))
_SYLLABLES = 2.0  # per second
_LOUDNESS, _NOISE = 0.15, 0.002


def voice(samples: int, rng: np.random.Generator) -> Array:
    """Harmonics of a swaying pitch under swaying resonances, in syllables: [samples] float32."""
    time = np.arange(samples) / _RATE
    pitch = _PITCH * (1.0 + 0.15 * np.sin(2.0 * np.pi * 0.9 * time))
    phase = 2.0 * np.pi * np.cumsum(pitch) / _RATE
    centres = [f + sway * np.sin(2.0 * np.pi * often * time) for f, sway, often, _ in _FORMANTS]
    wave = np.zeros(samples)
    for harmonic in range(1, _HARMONICS + 1):
        heights = [
            1.0 / (number + 1) / (1.0 + ((harmonic * pitch - centre) / width) ** 2)
            for number, (centre, (*_, width)) in enumerate(zip(centres, _FORMANTS, strict=True))
        ]
        wave += np.sum(heights, axis=0) * np.sin(harmonic * phase)
    loud = np.clip(2.0 * np.sin(2.0 * np.pi * _SYLLABLES * time), 0.0, 1.0)
    spoken = _LOUDNESS * loud * wave + _NOISE * rng.standard_normal(samples)
    return np.asarray(spoken, np.float32)
