"""`dps-local profile import`: mail and other exports become a profile, after a look at what would be written."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dps_local.cli.options import JsonOption
from dps_local.cli.terminal import decode_argument, terminal
from dps_local.errors import DataError
from dps_local.importing import formats
from dps_local.importing.cleaning import MIN_WORDS, Rules, block_list
from dps_local.importing.harvest import Harvest, Source, find_person, read_sources
from dps_local.importing.meter import metered
from dps_local.importing.secrets import check_installed
from dps_local.prompting.profile import Profile

SAMPLES, SAMPLE = 3, 600  # items in the review, characters of each
BEST_EFFORT = (
    "Secrets, numbers and addresses are found as well as a program can: read the profile before you give it to anyone."
)


def import_profile(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Exports: files, folders or zips.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the profile (JSON).")] = Path(
        "me.json"
    ),
    format_name: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help=f"Take the sources for: {', '.join(formats.names())}."),
    ] = None,
    me: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS|NAME", help="Who you are in the sources; once or more. Default: where it is clear."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Your name, for the profile.")] = "",
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Nothing older.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many items at most, the newest.")] = None,
    min_words: Annotated[int, typer.Option(min=1, help="Leave out what is shorter.")] = MIN_WORDS,
    block: Annotated[
        Path | None, typer.Option(help="A file with a word or phrase a line: texts with one leave.")
    ] = None,
    mask_names: Annotated[bool, typer.Option("--mask-names", help="Mask the names of those whom you greet.")] = False,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Also take prompts to assistants, which are no prose.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write and overwrite without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a profile of your own words in mail and other exports, offline.

    Other people's words, secrets and duplicates leave; phone numbers and addresses are masked, as well as can be.
    """
    check_installed()
    _check_place(output)
    blocked = _blocked(block)
    chosen = _sources(sources, format_name, prompts)
    with (
        terminal.progress("looking for who wrote", unit="bytes", preparation="opening the sources") as show,
        metered(show),
    ):
        people = [decode_argument(who) for who in me or []] or find_person(chosen)
    if people and not me:
        terminal.notice(f"taking {' and '.join(people)} for you; if that is wrong, say who you are with --me")
    rules = Rules(
        since.replace(tzinfo=UTC) if since else None, limit, min_words, blocked, mask_names, frozenset([*people, name])
    )
    with terminal.progress("reading", unit="bytes", preparation="opening the sources") as show, metered(show):
        reading = read_sources(chosen, people, rules)
    with terminal.progress("cleaning") as show, metered(show):
        harvest = reading.harvest()
    if not as_json:
        _review(harvest)
    if not dry_run:
        _ask(output, len(harvest.items), yes)
        Profile(name=decode_argument(name), history=tuple(harvest.items)).save(output)
        terminal.notice(f"wrote {len(harvest.items)} items to {output}, which only you can read. {BEST_EFFORT}")
    if as_json:
        terminal.json(_json(harvest, None if dry_run else output))


def _check_place(output: Path) -> None:
    """Find out before the work whether the profile can be written."""
    if output.is_dir():
        raise DataError(f"{output} is a folder: give the path of the profile to write")
    if not output.absolute().parent.is_dir():
        raise DataError(f"there is no folder {output.parent}: make it, or write the profile elsewhere")


def _blocked(file: Path | None) -> frozenset[str]:
    try:
        return block_list(file.read_text(encoding="utf-8-sig").splitlines()) if file else frozenset()
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(
            f"cannot read the words of {file}: {getattr(exc, 'strerror', None) or 'it is not UTF-8'}"
        ) from exc


def _sources(paths: list[Path], name: str | None, prompts: bool) -> list[Source]:
    if name and name not in formats.names():
        raise typer.BadParameter(f"--format {name!r} is none of {', '.join(formats.names())}")
    found = [(path, formats.format_of(path, name)) for path in dict.fromkeys(paths)]
    for path, known in found:
        if not known.prose and not prompts:
            raise DataError(
                f"{path} ({known.name}) holds prompts to an assistant, and how you write to people differs: "
                "--prompts takes them all the same"
            )
        terminal.notice(f"{path}: {known.name}")
    return found


def _review(harvest: Harvest) -> None:
    """Show what came from where, what left, and some items before and after."""
    rows = [
        [str(row.source), row.format, str(row.found), str(row.kept), " – ".join(filter(None, (row.first, row.last)))]
        for row in harvest.rows
    ]
    terminal.table(["source", "format", "yours", "clean", "from – to"], rows)
    for title, counts in (("left out", harvest.dropped), ("masked", harvest.cleaning.masked)):
        if counts:
            terminal.table([title, ""], [[kind, str(n)] for kind, n in counts.most_common()])
    for sample in harvest.cleaning.samples(SAMPLES):
        terminal.write("\nbefore\n", "bold")
        terminal.write(f"{_short(sample.before)}\n")
        terminal.write("after\n", "bold")
        terminal.write(f"{_short(sample.after)}\n")
    terminal.write("\n")


def _short(text: str) -> str:
    return text if len(text) <= SAMPLE else f"{text[:SAMPLE].rpartition(' ')[0]} …"


def _ask(output: Path, items: int, yes: bool) -> None:
    if yes:
        return
    question = f"{output} is there already: overwrite it" if output.exists() else f"Write {output}"
    if not terminal.interactive:
        raise DataError(f"nobody can be asked here whether to write {output}: --yes writes it, --dry-run does not")
    terminal.ask_for_yes(f"{question} with {items} items?")


def _json(harvest: Harvest, output: Path | None) -> dict[str, Any]:
    return {
        "items": len(harvest.items),
        "dropped": _counts(harvest.dropped),
        "masked": _counts(harvest.cleaning.masked),
        "output": str(output) if output else None,
        "sources": [
            {"source": str(row.source), "format": row.format, "found": row.found, "kept": row.kept}
            for row in harvest.rows
        ],
    }


def _counts(counts: Counter[str]) -> dict[str, int]:
    return dict(counts.most_common())
