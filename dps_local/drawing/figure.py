"""Figures as PNG, by matplotlib (the extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dps_local.drawing.colour import LIGHT_RAMP
from dps_local.errors import MissingPackageError
from dps_local.system.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure


def empty_figure(width: float, height: float) -> Figure:
    """Sizes in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingPackageError("drawing a PNG needs matplotlib: pip install 'dps-local[plot]'") from exc
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    return figure


def colour_map() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("scores", LIGHT_RAMP)


def write_above(axes: Axes, points: float, text: str, **look: Any) -> None:
    # a dollar sign in a name is no formula
    look |= {"xycoords": "axes fraction", "textcoords": "offset points", "parse_math": False}
    axes.annotate(text, (0, 1), (0, points), **look)


def save_figure(figure: Figure, path: Path) -> None:
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=200)
