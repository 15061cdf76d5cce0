"""Writes the report of an evaluation: as Markdown, and as one HTML page with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dps_local.drawing.page import write_page
from dps_local.evaluation.comparison import Estimate
from dps_local.evaluation.report.html import page
from dps_local.evaluation.report.markdown import markdown
from dps_local.evaluation.report.task_results import Maps, results_by_task
from dps_local.system.files import atomic_write


def write_report(folder: Path, estimates: Sequence[Estimate], maps: Maps, about: Mapping[str, str]) -> None:
    """Write report.md and report.html. maps: by whose they are; about: settings, versions and the date, for the end."""
    task_results = results_by_task(estimates, maps)
    text = markdown(task_results, about)
    write_page(folder / "report.html", "evaluation.html", page(task_results, about))
    with atomic_write(folder / "report.md") as stream:
        stream.write(text.encode(errors="replace"))
