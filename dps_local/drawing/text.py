"""Words and signs that all drawings share."""

from __future__ import annotations

CHOSEN = "●"
TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"


def printable(text: str) -> str:
    """A name out of a model file may hold escape sequences."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def shortened(name: str, room: int) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
