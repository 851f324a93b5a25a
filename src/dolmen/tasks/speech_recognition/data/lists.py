"""Recordings in lists: .csv, .tsv and .jsonl, a row a recording; one list, one for each split, or Common Voice's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dolmen.data.images.lists import ListedSource
from dolmen.data.sources.layout import SPLIT_WORDS, Split
from dolmen.data.sources.list_rows import LIST_SUFFIXES, Row, csv_rows, jsonl_rows
from dolmen.data.sources.open import Source, printable, read_file, reason_of
from dolmen.tasks.speech_recognition.data.set import (
    Finder,
    RecordingListing,
    Recordings,
    decoded_text,
    split_named,
    texts_in,
)
from dolmen.types import UserError

COLUMNS = {
    "path": (
        "path", "audio", "file", "filename", "file_name", "wav", "wav_filename", "audio_path", "audio_filepath",
        "audio_file", "recording",
    ),
    "text": ("text", "sentence", "transcript", "transcription", "sentences", "label", "words", "normalized_text"),
    "speaker": ("speaker", "client_id", "speaker_id", "spk", "spk_id", "speakerid", "user", "user_id"),
    "split": ("split", "set", "subset"),
}  # fmt: skip
"""Accepted names of each column, whatever their case."""
EXAMPLE = "path and text, and if you like speaker and split"
COMMON_VOICE = {"client_id", "path", "sentence"}
UNUSED = {"invalidated", "other", "reported", "unvalidated", "clip_durations", "validated_sentences"}
"""Lists of Common Voice that are not of checked recordings."""
Rows = list[tuple[int, Row | str]]
"""Line numbers and rows of a list; in place of a row that can't be read, what is wrong with it."""


def read_recording_list(path: Path, name: str, encoding: str) -> Recordings:
    """The recordings of one list, whose paths count from its folder.

    Raises:
        UserError: the list can't be read, has no such columns, or no row that can be used.
    """
    content = read_file(path)
    if isinstance(content, OSError):
        raise UserError(f"{path} can't be read ({reason_of(content)}); make it readable for you")
    text = decoded_text(content, str(path), encoding)
    rows = list(_rows(text, str(path), path.suffix.lower()))
    folders = ("", "clips") if _is_common_voice(rows) else ("",)
    finder = Finder(lambda file: os.path.isfile(path.parent / file), folders)
    if not _header(rows):
        first = f" that can be read (line {rows[0][0]} {rows[0][1]})" if rows else ""
        raise UserError(f"{path} holds no row{first}; expected a header with {EXAMPLE}, and a row for each recording")
    columns = _Columns(str(path), _header(rows))
    files = {file: _located(finder, path.parent, file) for _, row in rows if (file := columns.text(row, "path"))}
    source = ListedSource(path.parent, sorted({f for f in files.values() if f}))
    listing = RecordingListing(source, name)
    listing.read_from.append(path.name)
    _add_rows(listing, columns, rows, path.name, files, "")
    return listing.done("a list", expected=f"expected a row for each, with its path counted from {path.parent}")


def read_lists(source: Source, name: str, encoding: str) -> Recordings | None:
    """The lists of a folder or archive: one for each split, or a single one; None where there are none.

    Raises:
        UserError: there are several and their names tell no split, or one can't be read.
    """
    candidates = [f.name for f in source.files if PurePosixPath(f.name).suffix.lower() in LIST_SUFFIXES]
    candidates = [n for n in candidates if PurePosixPath(n).stem.lower() not in UNUSED]
    texts = texts_in(source, candidates, encoding)
    tables = {n: rows for n, text in texts.items() if (rows := _rows_with_columns(text, source.path / n))}
    if not tables:
        return None
    is_common_voice = all(map(_is_common_voice, tables.values()))
    splits: dict[str, Split] = {n: split_named(PurePosixPath(n).stem) for n in tables}
    chosen = [n for n in tables if splits[n]] if "train" in splits.values() else []
    if not chosen:
        validated = [n for n in tables if PurePosixPath(n).stem.lower() == "validated"]
        chosen = validated or list(tables)
        splits = {**splits, **dict.fromkeys(chosen, "")} if len(chosen) == 1 else splits
        if len(chosen) > 1 and not all(splits[n] for n in chosen):
            listed = ", ".join(chosen[:5]) + (" ..." if len(chosen) > 5 else "")
            raise UserError(
                f"{name} holds several lists ({listed}) and none of their names says train; give one of them, or call "
                "them train, val and test"
            )
    listing = RecordingListing(source, name)
    names = {f.name for f in source.files}
    for file in chosen:
        rows, columns = tables[file], _Columns(str(source.path / file), _header(tables[file]))
        home = str(PurePosixPath(file).parent).removeprefix(".")
        clips = (f"{home}/clips".lstrip("/"), "clips") if is_common_voice else ()
        finder = Finder(names.__contains__, (home, *clips, ""))
        paths = {p: finder.find(p) for _, row in rows if (p := columns.text(row, "path"))}
        listing.read_from.append(file)
        _add_rows(listing, columns, rows, file, paths, splits[file])
    for file in sorted(tables.keys() - set(chosen)):
        listing.skip(file, "a list that is not used beside the others")
    return listing.done(
        "Common Voice" if is_common_voice else "a list" if len(chosen) == 1 else "a list for each split",
        expected=f"expected paths that count from the folder of the list, or from {name}",
        otherwise="not in the list" if len(chosen) == 1 else "in none of the lists",
    )


def _located(finder: Finder, folder: Path, file: str) -> str | None:
    """The name of a listed file below the list's folder, or its path elsewhere; None where it does not exist."""
    if (name := finder.find(file)) is not None:
        return name
    return os.path.normpath(file) if "\0" not in file and os.path.isfile(folder / file) else None


def _add_rows(
    listing: RecordingListing,
    columns: _Columns,
    rows: Rows,
    file: str,
    paths: dict[str, str | None],
    split: Split,
) -> None:
    """Add the rows of a list; a split in a row counts before that of the list."""
    for line, row in rows:
        where = f"{file}:{line}"
        if isinstance(row, str):
            listing.skip(where, f"the row {row}")
            continue
        path, split_word = columns.text(row, "path"), columns.text(row, "split").lower()
        if not path:
            listing.skip(where, "the row has no path")
        elif (sound := paths[path]) is None:
            listing.skip(path, "listed but not there")
        elif split_word and split_word not in SPLIT_WORDS:
            listing.skip(path, f"the split {split_word!r} in {where} is none of train, val and test")
        else:
            text, speaker = columns.text(row, "text"), columns.text(row, "speaker")
            listing.add(sound, text, SPLIT_WORDS[split_word] if split_word else split, speaker, where=where)


class _Columns:
    """The columns of a list by their meaning."""

    def __init__(self, where: str, header: list[str]) -> None:
        by_lower = {k.strip().lower(): k for k in reversed(header)}
        self._named = {c: next((by_lower[w] for w in words if w in by_lower), None) for c, words in COLUMNS.items()}
        if self._named["path"] is None or self._named["text"] is None:
            listed = ", ".join(" ".join(k.split())[:40] for k in header[:12]) or "(none)"
            raise UserError(f"{where} has the columns {printable(listed)}, expected {EXAMPLE}; name the columns so")

    def text(self, row: Row | str, meaning: str) -> str:
        """A cell as text without quotes around it; "" where there is none."""
        column = self._named[meaning]
        value: Any = row.get(column) if column and not isinstance(row, str) else None
        text = "" if value is None or isinstance(value, list | dict) else str(value).strip()
        if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', ""):
            text = text[1:-1].replace('""', '"')
        return printable(text)


def _header(rows: Rows) -> list[str]:
    """The names of all columns."""
    return list(dict.fromkeys(str(k) for _, row in rows if not isinstance(row, str) for k in row))


def _is_common_voice(rows: Rows) -> bool:
    return {k.strip().lower() for k in _header(rows)} >= COMMON_VOICE


def _rows(text: str, where: str, suffix: str) -> Iterator[tuple[int, Row | str]]:
    """Rows of a list. In .tsv quotes mean nothing, as Common Voice writes it: sentences hold single ones."""
    if suffix == ".jsonl":
        return jsonl_rows(text)
    is_tsv = suffix == ".tsv"
    return csv_rows(text, where, lambda header: _Columns(where, header), tabs=is_tsv, quoting=not is_tsv)


def _rows_with_columns(text: str, path: Path) -> Rows:
    """The rows of a list with the columns of recordings; no rows of another table."""
    where, suffix = str(path), path.suffix.lower()
    try:
        if suffix == ".jsonl":
            rows = list(jsonl_rows(text))
            _Columns(where, _header(rows))
            return rows
        list(_rows(text.partition("\n")[0], where, suffix))
    except UserError:
        return []
    rows = list(_rows(text, where, suffix))
    return rows if _header(rows) else []
