"""`Writing`: one text as it was found in a source, before it is cleaned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Writing:
    """What the person wrote, in their own words alone; quotes, signatures and other people's words are gone.

    input: what it answers, or its subject; "" for none. date: ISO 8601 with a zone where it is known; "" for none.
    source: where it comes from, in a few words that name no path, such as "mail" or "WhatsApp".
    """

    text: str
    input: str = ""
    date: str = ""
    source: str = ""
