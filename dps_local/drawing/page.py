"""HTML pages, by Jinja; each needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dps_local.drawing.colour import page_colours
from dps_local.drawing.text import MINUS
from dps_local.system.files import atomic_write


def write_page(path: Path, name: str, content: Mapping[str, object]) -> None:
    with atomic_write(path) as stream:
        stream.write(filled_in(name, content).encode(errors="replace"))


def stylesheet() -> str:
    """Return the colours and looks that all drawings share, for a page that shows them among other things."""
    return filled_in("drawing.css", page_colours())


def filled_in(name: str, content: Mapping[str, object]) -> str:
    """Return a template with its content."""
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["sign"] = lambda text: str(text).replace("-", MINUS)
    return environment.get_template(name).render(content)
