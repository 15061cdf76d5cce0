"""What the terminal can show: text for consoles without Unicode, drawings that fit the width, colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.text import Text

from dps_local.drawing.text import CHOSEN, MINUS, TIMES

ASCII = str.maketrans({CHOSEN: "@", TIMES: "x", "±": "+-", "≡": "%", "·": ".", "░": ":", "▒": "*", "█": "#"})
ASCII |= str.maketrans({"γ": "gamma", "β": "beta", MINUS: "-", "…": "~", "␣": "_", "↵": "$", "⇥": ">", "✓": "yes"})


@dataclass(frozen=True, slots=True)
class ConsoleText:
    """Text that is spelled out on a console that cannot write all of Unicode."""

    text: Text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._for(options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._for(options))

    def _for(self, options: ConsoleOptions) -> Text:
        if not options.ascii_only:
            return self.text
        text = self.text.copy()
        text.plain = text.plain.translate(ASCII).encode(options.encoding, "replace").decode(options.encoding)
        return text


@dataclass(frozen=True, slots=True)
class FirstFitting:
    """The first of several drawings that fits the console, else the last."""

    drawings: Sequence[RenderableType]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(max_width=1000)
        fits = (d for d in self.drawings if Measurement.get(console, unbounded, d).maximum <= options.max_width)
        yield next(fits, self.drawings[-1])


def has_colour(console: Console) -> bool:
    # sixteen colours hold no scale
    return console.color_system in ("256", "truecolor") and not console.no_color


def cropped(text: Text) -> Text:
    """A line that a narrow console cuts off instead of breaking it."""
    text.no_wrap, text.overflow = True, "crop"
    return text
