"""What all drawings share, in the terminal, as a PNG and as one HTML page: colours and words.

Orange is for what is more than 0, blue for what is less, pale for 0; the scale is clipped so that a few outliers do
not wash out the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.text import Text

from dps_local.errors import DpsError
from dps_local.system.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Floats = NDArray[np.floating[Any]]

CHOSEN = "●"
TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"
# blue, pale, orange: told apart with every common colour blindness
PRINT = ("#0b4a8f", "#6ea9d7", "#efeeea", "#f5a250", "#b34700")
NIGHT = ("#8cc8ff", "#2f6fa9", "#23272d", "#a9611b", "#ffb768")
TONES = np.linspace(-1, 1, 21)
ASCII = str.maketrans({CHOSEN: "@", TIMES: "x", "±": "+-", "≡": "%", "·": ".", "░": ":", "▒": "*", "█": "#"})
ASCII |= str.maketrans({"γ": "gamma", "β": "beta", MINUS: "-", "…": "~", "␣": "_", "↵": "$", "⇥": ">", "✓": "yes"})


# --- colours ---


def limit_of(scores: Floats) -> float:
    """The end of the colour scale, in nats per token: the 98th percentile of |score|."""
    sizes = np.abs(scores[np.isfinite(scores)])
    if not sizes.size:
        return 1.0
    return float(np.percentile(sizes, 98)) or float(sizes.max()) or 1.0


def colour_of(tone: float, ramp: Sequence[str] = PRINT) -> str:
    stops = np.array([list(bytes.fromhex(stop[1:])) for stop in ramp])
    places = np.linspace(-1, 1, len(ramp))
    return "#" + bytes(round(np.interp(tone, places, channel)) for channel in stops.T).hex()


def ink_on(colour: str) -> str:
    """Black or white, whichever is told better from the ground."""
    channels = [byte / 255 for byte in bytes.fromhex(colour[1:])]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "#ffffff"


def page_colours() -> dict[str, object]:
    light, dark = ([colour_of(tone, ramp) for tone in TONES] for ramp in (PRINT, NIGHT))
    return {
        "light": list(zip(light, map(ink_on, light), strict=True)),
        "dark": list(zip(dark, map(ink_on, dark), strict=True)),
    }


# --- words ---


def printable(text: str) -> str:
    """A name out of a model file may hold escape sequences."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def cut(name: str, room: int) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


# --- terminal ---


@dataclass(frozen=True, slots=True)
class Spelled:
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
class Widest:
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


# --- files ---


def empty_figure(width: float, height: float) -> Figure:
    """Sizes in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise DpsError("drawing a PNG needs matplotlib: pip install 'dps-local[plot]'") from exc
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    return figure


def colour_map() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("scores", PRINT)


def write_above(axes: Axes, points: float, text: str, **look: Any) -> None:
    # a dollar sign in a name is no formula
    look |= {"xycoords": "axes fraction", "textcoords": "offset points", "parse_math": False}
    axes.annotate(text, (0, 1), (0, points), **look)


def save_figure(figure: Figure, path: Path) -> None:
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=200)


def write_page(path: Path, name: str, content: Mapping[str, object]) -> None:
    """Fill in a template; the page needs nothing but itself."""
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["sign"] = lambda text: str(text).replace("-", MINUS)
    page = environment.get_template(name).render(content)
    with atomic_write(path) as stream:
        stream.write(page.encode(errors="replace"))
