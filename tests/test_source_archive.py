"""Zip archives of untrusted models: one set of bounds, whatever the framework."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgelstm.converters.sources import archive
from edgelstm.errors import UnreadableModelError, UnsafeModelError

Write = Callable[[zipfile.ZipFile], None]


def _made(path: Path, write: Write) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        warnings.simplefilter("ignore")  # zipfile warns of entries of one name
        write(made)
    return path


def test_an_ordinary_archive_gives_its_entries_by_name(tmp_path: Path) -> None:
    """Folders of Windows are written with a slash."""

    def write(made: zipfile.ZipFile) -> None:
        made.writestr("m/version", b"3")
        made.writestr("m\\data", b"x" * 99)

    path = _made(tmp_path / "m.pt", write)
    with archive.opened(path, "archive") as (packed, members):
        assert {name: packed.read(info) for name, info in members.items()} == {
            "m/version": b"3",
            "m/data": b"x" * 99,
        }


def _many(made: zipfile.ZipFile) -> None:
    for number in range(archive.MAX_ENTRIES + 1):
        made.writestr(str(number), b"")


def _doubled(made: zipfile.ZipFile) -> None:
    made.writestr("config.json", b"{}")
    made.writestr("config.json", b"[]")


def _one_bomb(made: zipfile.ZipFile) -> None:
    made.writestr("zeros", bytes(8 << 20))


def _bomb_in_parts(made: zipfile.ZipFile) -> None:
    # Each entry alone is within its bound.
    for number in range(8):
        made.writestr(str(number), bytes(archive.ENTRY_FLOOR_BYTES))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda made: made.writestr("../evil", b""), "outside"),
        (lambda made: made.writestr("a/../../evil", b""), "outside"),
        (lambda made: made.writestr("a\\..\\evil", b""), "outside"),
        (lambda made: made.writestr("/etc/evil", b""), "outside"),
        (lambda made: made.writestr("C:\\evil", b""), "outside"),
        (_doubled, "two entries"),
        (_many, "10,001 entries"),
        (_one_bomb, "proportion"),
        (_bomb_in_parts, "proportion"),
    ],
)
def test_an_archive_that_could_do_harm_is_refused(
    write: Write, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is unpacked, with the file's name and what to do."""
    monkeypatch.setattr(archive, "EXPANSION_FLOOR_BYTES", 4 << 20)
    path = _made(tmp_path / "bad.zip", write)
    with pytest.raises(UnsafeModelError, match=words) as raised, archive.opened(path, "archive"):
        raise AssertionError("it was opened")
    assert raised.value.where == str(path) and raised.value.cure


def _truncated(content: bytes) -> bytes:
    return content[:-30]


def _altered(content: bytes) -> bytes:
    return content.replace(b"weights", b"weighty")


def _encrypted(content: bytes) -> bytes:
    # The flag of both headers says so; what is behind it is of no matter.
    at = content.index(b"PK\x01\x02")
    return content[:6] + b"\x01" + content[7 : at + 8] + b"\x01" + content[at + 9 :]


@pytest.mark.parametrize("harm", [_truncated, _altered, _encrypted])
def test_a_damaged_archive_is_one_error(harm: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Also where only reading an entry shows it."""
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("m", b"weights")
    path.write_bytes(harm(path.read_bytes()))
    with (
        pytest.raises(UnreadableModelError, match="damaged|cannot be unpacked") as raised,
        archive.opened(path, "archive") as (packed, members),
    ):
        packed.read(members["m"])
    assert raised.value.cure
