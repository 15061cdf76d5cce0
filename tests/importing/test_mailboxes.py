"""Mailboxes: mails are found in files, folders and zips, and a mailbox of any size takes little memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import TEXT, letter, mbox

from dps_local.errors import DataError
from dps_local.importing import mailboxes
from dps_local.importing.mailboxes import MOST_BYTES, holds_mail, raw_mails, split_mbox

LETTERS = [letter(f"{TEXT} {i}", number=i) for i in range(3)]


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def unpacked(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


EMLX = b"%d\n" % len(LETTERS[0]) + LETTERS[0] + b'<?xml version="1.0"?><plist><dict/></plist>'
FOLDERS = {
    "Maildir": {"cur/1:2,S": LETTERS[0], "cur/2:2,RS": LETTERS[1], "new/3": LETTERS[2], "dovecot-uidlist": b"3 V1\n"},
    "a folder of .eml": {"1.eml": LETTERS[0], "deep/2.eml": LETTERS[1], "deep/3.eml": LETTERS[2], "x.pdf": b"%PDF-1.4"},
    "Apple's .mbox": {"Sent.mbox/mbox": mbox(*LETTERS), "Sent.mbox/table_of_contents": b"\0\1\2"},
    "Takeout": {"Takeout/Mail/All mail.mbox": mbox(*LETTERS), "Takeout/archive_browser.html": b"<html>"},
}
TAKEOUT_LINE = b"From 1825@xxx Tue Mar 04 09:12:00 +0000 2025"


@pytest.mark.parametrize("kind", FOLDERS)
def test_mails_are_found_in_folders_and_in_zips_of_them(kind: str, tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "folder", FOLDERS[kind])
    archive = packed(tmp_path / "folder.zip", FOLDERS[kind])
    for source in (folder, archive):
        assert holds_mail(source)
        assert [mail.strip() for mail in raw_mails(source)] == [one.strip() for one in LETTERS]


def test_mails_are_found_in_single_files(tmp_path: Path) -> None:
    for name, data, n in (
        ("a.eml", LETTERS[0], 1),
        ("a.emlx", EMLX, 1),
        ("a.mbox", mbox(*LETTERS), 3),
        ("sent", mbox(*LETTERS), 3),
    ):
        (tmp_path / name).write_bytes(data)
        assert holds_mail(tmp_path / name)
        assert [mail.strip() for mail in raw_mails(tmp_path / name)] == [one.strip() for one in LETTERS[:n]]


def test_windows_line_ends_and_other_separating_lines_are_known() -> None:
    windows = mbox(*LETTERS).replace(b"\n", b"\r\n")
    assert [mail.replace(b"\r\n", b"\n").strip() for mail in split_mbox(io.BytesIO(windows))] == [
        m.strip() for m in LETTERS
    ]
    takeout = mbox(*LETTERS, line=TAKEOUT_LINE)
    assert [mail.strip() for mail in split_mbox(io.BytesIO(takeout))] == [m.strip() for m in LETTERS]


def test_a_line_that_begins_with_from_is_no_new_mail() -> None:
    mail = letter("Where is Tom?\n\nFrom Monday on at 10:12 he is away.\n\nFrom here it is far.")
    assert len(list(split_mbox(io.BytesIO(mbox(mail, mail))))) == 2


@given(st.integers(1, 5000), st.integers(0, 3000))
def test_mails_are_split_alike_wherever_a_block_ends(block: int, padding: int) -> None:
    mails = [letter("x" * padding), *LETTERS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mailboxes, "BLOCK", block)
        assert [m.strip() for m in split_mbox(io.BytesIO(mbox(*mails)))] == [m.strip() for m in mails]


def test_of_a_huge_mail_the_beginning_is_kept() -> None:
    huge = letter(TEXT + "\n" + "x" * 3 * MOST_BYTES)
    first, second = split_mbox(io.BytesIO(mbox(huge, LETTERS[1])))
    assert len(first) == MOST_BYTES
    assert TEXT.encode() in first
    assert second.strip() == LETTERS[1].strip()


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\0" * 5000, b"From here to there\n", b"a: b\n\nc", b"From: only\n\nx", b"PK\3\4"]
)
def test_what_is_no_mail_is_not_taken_for_it(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    for source in (tmp_path / "file", tmp_path, tmp_path / "gone", Path("a\0b"), Path("x" * 300)):
        assert not holds_mail(source)


def test_pipes_and_links_in_a_folder_are_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to("nowhere")
    assert not holds_mail(tmp_path)


def test_a_damaged_zip_is_an_error_of_one_line(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", {"a.mbox": mbox(*LETTERS * 50)})
    data = bytearray(archive.read_bytes())
    data[60:160] = b"\xff" * 100
    archive.write_bytes(data)
    with pytest.raises(DataError, match="it is damaged"):
        list(raw_mails(archive))
    assert not holds_mail(archive)


READ = """
import resource, sys
from collections import Counter
from pathlib import Path
from dps_local.importing.mail import Mail
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mail, source = Mail(), Path(sys.argv[1])
assert mail.authors(source)
assert sum(1 for _ in mail.read(source, ["mara@lind.example"], Counter())) == int(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_large_mailbox_takes_little_memory(tmp_path: Path) -> None:
    attachment = "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n" + "QUJD" * 18 + "\n"
    sent = 0
    with (tmp_path / "all.mbox").open("wb") as file:
        while file.tell() < 60 << 20:
            file.write(
                mbox(letter(f"{TEXT} {sent}\n" * 20, number=sent), letter(attachment * 4000, sender="x@y.example"))
            )
            sent += 1
    grown = subprocess.run(
        [sys.executable, "-P", "-c", READ, tmp_path / "all.mbox", str(sent)], check=True, capture_output=True, text=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown.stdout) * unit < 30 << 20
