"""Whole mails as bytes, as mail programs write them: all invented, typed by hand."""

from __future__ import annotations

MARA, TOM = "Mara Lind <mara@lind.example>", "Tom Berg <tom@berg.example>"
TEXT = "The pump is fixed, come and see."


def letter(
    body: str | bytes = TEXT,
    *fields: str,
    sender: str = MARA,
    to: str = TOM,
    subject: str = "Thursday",
    date: str = "Tue, 4 Mar 2025 10:12:00 +0100",
    number: int = 1,
) -> bytes:
    """Return a mail; fields: more lines of its header."""
    kind = (
        ()
        if any(field.lower().startswith("content-type:") for field in fields)
        else ("Content-Type: text/plain; charset=utf-8",)
    )
    head = [
        *("Return-Path: <x@lind.example>", f"From: {sender}", f"To: {to}", f"Subject: {subject}", f"Date: {date}"),
        *(f"Message-ID: <{number}@lind.example>", "MIME-Version: 1.0", *kind, *fields),
    ]
    return "\n".join(head).encode() + b"\n\n" + (body if isinstance(body, bytes) else body.encode()) + b"\n"


def mbox(*letters: bytes, line: bytes = b"From mara@lind.example Tue Mar  4 10:12:00 2025") -> bytes:
    return b"".join(line + b"\n" + one + b"\n" for one in letters)


ALTERNATIVE = 'Content-Type: multipart/alternative; boundary="B"'
MIXED = 'Content-Type: multipart/mixed; boundary="B"'
HTML = "Content-Type: text/html; charset=utf-8"


def multipart(*parts: str) -> str:
    return "".join(f"--B\n{part}\n" for part in parts) + "--B--\n"


CALENDAR = "Content-Type: text/calendar; method=REQUEST\n\nBEGIN:VCALENDAR\nEND:VCALENDAR"
NOT_TYPED = {  # mails that have the person's address and none of their words, by what they are
    "bounce": letter(
        multipart("\nYour mail could not be delivered.", "Content-Type: message/delivery-status\n\nStatus: 5.1.1"),
        'Content-Type: multipart/report; report-type=delivery-status; boundary="B"',
    ),
    "calendar": letter(multipart("Content-Type: text/plain\n\nMara invites you to a meeting.", CALENDAR), ALTERNATIVE),
    "auto-reply": letter("I am away until Monday, ask Ina.", "Auto-Submitted: auto-replied"),
    "draft": letter("Dear Tom, I wonder whether", "X-Gmail-Labels: Draft"),
    "spam": letter("You won a million, call now.", "X-Gmail-Labels: Spam,Unread"),
    "trash": letter("This was thrown away today.", "X-Gmail-Labels: Trash"),
    "forward": letter(
        "---------- Forwarded message ---------\nFrom: Ina Roth <ina@roth.example>\nDate: Tue, Mar 4, 2025\n"
        "Subject: Offer\nTo: Mara Lind\n\nDear Mara, may I have your offer?\n"
    ),
    "nothing of their own": letter("> Shall we meet?\n> Tom\n"),
}
AUTOMATIC_SUBJECTS = [
    *("Automatic reply: Thursday", "Out of office: Thursday", "Abwesenheitsnotiz: Donnerstag"),
    *("Automatische Antwort: Donnerstag", "Réponse automatique : jeudi", "Accepted: Thursday", "Abgesagt: Donnerstag"),
]

GMAIL = """<html><head><title>no</title><style>p { color: red }</style></head><body>
<div dir="ltr">Hi Tom,<div><br></div><div>Thursday   works <b>for</b>&nbsp;me. I&#39;ll bring</div>
<div>the drawings.</div><div><br></div><div>Mara</div></div>
<br><div class="gmail_quote"><div class="gmail_attr">On Tue, Mar 4, 2025 at 10:12 AM Tom Berg &lt;
<a href="mailto:tom@berg.example">tom@berg.example</a>&gt; wrote:<br></div>
<blockquote class="gmail_quote"><div>Shall we meet on Thursday?</div></blockquote></div></body></html>"""
GMAIL_OWN = "Hi Tom,\n\nThursday works for me. I'll bring\nthe drawings.\n\nMara"
OUTLOOK = """<html><body><p class="MsoNormal">Will do, the list is:</p><ul><li>seal</li><li>two gaskets</li></ul>
<p class="MsoNormal">Mara</p><!--[if mso]><p>no</p><![endif]--><div id="Signature"><p>Mara Lind<br>Lind Pumps</p></div>
<hr><div id="divRplyFwdMsg"><b>From:</b> Tom Berg &lt;tom@berg.example&gt;<br><b>Sent:</b> Tuesday, March 4, 2025<br>
<b>To:</b> Mara Lind<br><b>Subject:</b> Thursday</div><div>Can you order the seal?</div></body></html>"""
OUTLOOK_OWN = "Will do, the list is:\n\n- seal\n- two gaskets\n\nMara"
