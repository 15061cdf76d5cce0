"""Colours of numbers: orange for more than 0, blue for less, pale for 0; a few outliers do not wash out the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

# blue, pale, orange: told apart with every common colour blindness
LIGHT_RAMP = ("#0b4a8f", "#6ea9d7", "#efeeea", "#f5a250", "#b34700")
DARK_RAMP = ("#8cc8ff", "#2f6fa9", "#23272d", "#a9611b", "#ffb768")
TONES = np.linspace(-1, 1, 21)


def colour_limit(scores: Floats) -> float:
    """The end of the colour scale, in nats per token: the 98th percentile of |score|."""
    sizes = np.abs(scores[np.isfinite(scores)])
    if not sizes.size:
        return 1.0
    return float(np.percentile(sizes, 98)) or float(sizes.max()) or 1.0


def colour_of(tone: float, ramp: Sequence[str] = LIGHT_RAMP) -> str:
    stops = np.array([list(bytes.fromhex(stop[1:])) for stop in ramp])
    places = np.linspace(-1, 1, len(ramp))
    return "#" + bytes(round(np.interp(tone, places, channel)) for channel in stops.T).hex()


def text_colour(colour: str) -> str:
    """Black or white, whichever is told better from the ground."""
    channels = [byte / 255 for byte in bytes.fromhex(colour[1:])]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "#ffffff"


def page_colours() -> dict[str, object]:
    light, dark = ([colour_of(tone, ramp) for tone in TONES] for ramp in (LIGHT_RAMP, DARK_RAMP))
    return {
        "light": list(zip(light, map(text_colour, light), strict=True)),
        "dark": list(zip(dark, map(text_colour, dark), strict=True)),
    }
