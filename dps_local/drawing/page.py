"""HTML pages, by Jinja; each needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dps_local.drawing.text import MINUS
from dps_local.system.files import atomic_write


def write_page(path: Path, name: str, content: Mapping[str, object]) -> None:
    """Fill in a template; the page needs nothing but itself."""
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["sign"] = lambda text: str(text).replace("-", MINUS)
    page = environment.get_template(name).render(content)
    with atomic_write(path) as stream:
        stream.write(page.encode(errors="replace"))
