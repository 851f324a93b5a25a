"""Reading recordings: the layout of the data is detected."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from dolmen.data.sources.list_rows import LIST_SUFFIXES
from dolmen.data.sources.open import FolderSource, Source, is_archive, missing_message, open_source
from dolmen.tasks.speech_recognition.data.layouts import read_kaldi, read_librispeech, read_pairs
from dolmen.tasks.speech_recognition.data.lists import read_lists, read_recording_list
from dolmen.tasks.speech_recognition.data.named import read_fsdd, read_word_folders, read_yesno
from dolmen.tasks.speech_recognition.data.set import Recording, Recordings, is_sound
from dolmen.types import Skipped, UserError

__all__ = ["Recording", "Recordings", "read_recordings"]

EXPECTED = (
    "a .csv, .tsv or .jsonl list with path and text (and speaker and split), the layout of LibriSpeech, Common Voice "
    "or Kaldi, 1.txt beside 1.wav, or a folder for each word"
)
READERS = (read_kaldi, read_librispeech, read_lists, read_fsdd, read_yesno, read_pairs, read_word_folders)


def read_recordings(data: str, *, encoding: str = "utf-8") -> Recordings:
    """Detect the layout of the data, and list its recordings with their texts.

    Where a source fits several layouts, files that hold texts count before names that tell them.

    Args:
        data: a list, or a folder or archive in one of the layouts in ``EXPECTED``, or with the file names of the Free
            Spoken Digit Dataset or yesno. Archives are read as they are; those at the top of a folder without sound of
            its own count as if they had been unpacked there.
        encoding: of the files that hold texts.

    Raises:
        UserError: it is none of these, or has no recording with a text.
    """
    path = Path(data)
    if not data:
        raise UserError("the data have no name; give a folder of recordings, an archive, or a list")
    try:
        "".encode(encoding)
    except LookupError:
        raise UserError(f"there is no encoding {encoding!r}; give one such as utf-8 or latin-1") from None
    if not os.path.exists(path):
        raise UserError(missing_message(path))
    if path.is_file() and not is_archive(path):
        if path.suffix.lower() in LIST_SUFFIXES:
            return read_recording_list(path, data, encoding)
        description = "one recording" if is_sound(path.name) else "no data set that Dolmen knows"
        raise UserError(f"{data} is {description}, expected {EXPECTED}")
    source = _with_archives(open_source(path))
    for read in READERS:
        if (recordings := read(source, data, encoding)) is not None:
            return recordings
    lists = _lists(source)
    if len(lists) == 1 and path.is_dir():
        return read_recording_list(path / lists[0], str(path / lists[0]), encoding)  # which says what it lacks
    raise UserError(_unknown_layout(source, data))


def _unknown_layout(source: Source, name: str) -> str:
    """The sentence for data in no known layout."""
    suffixes = Counter(PurePosixPath(f.name).suffix.lower() or "no ending" for f in source.files)
    several = ", ".join(f"{n:,} {suffix}" for suffix, n in suffixes.most_common(5))
    content = f"holds files ({several})" if suffixes else "holds no files"
    lists = _lists(source)
    instead = f"; or give the list: {Path(name) / lists[0]}" if lists and source.path.is_dir() else ""
    return f"{name} {content} and nothing that says what is said in which recording, expected {EXPECTED}{instead}"


def _lists(source: Source) -> list[str]:
    return [f.name for f in source.files if PurePosixPath(f.name).suffix.lower() in LIST_SUFFIXES]


def _with_archives(source: Source) -> Source:
    """A folder whose sound is in archives at its top, with them looked into; any other source as it is."""
    if not isinstance(source, FolderSource) or any(is_sound(f.name) for f in source.files):
        return source
    names = [f.name for f in source.files if "/" not in f.name and is_archive(Path(f.name))]
    return _Unpacked(source, {n: open_source(source.path / n) for n in names}) if names else source


class _Unpacked(Source):
    """A folder with archives in it, as if they had been unpacked where they are; nothing is."""

    def __init__(self, folder: FolderSource, archives: dict[str, Source]) -> None:
        parts: list[Source] = [folder, *archives.values()]
        self._home: dict[str, Source] = {}
        repeated: list[Skipped] = []
        files = []
        for label, part in zip(("", *archives), parts, strict=True):
            for file in part.files:
                if part is folder and file.name in archives:
                    continue
                if file.name in self._home:
                    repeated.append(Skipped(name=f"{label}/{file.name}", reason="a file of this name is there already"))
                    continue
                self._home[file.name] = part
                files.append(file)
        skipped = [s for part in parts for s in part.skipped]
        super().__init__(folder.path, files, [f for part in parts for f in part.folders], [*skipped, *repeated])

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """The contents of files, archive by archive."""
        names_of: dict[int, list[str]] = {}
        homes: dict[int, Source] = {}
        for name in names:
            home = self._home[name]
            homes[id(home)] = home
            names_of.setdefault(id(home), []).append(name)
        for key, home in homes.items():
            yield from home.read(names_of[key])
