"""Recordings whose texts are in files beside them: LibriSpeech's, Kaldi's, or one text for each recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from dolmen.data.sources.layout import Split
from dolmen.data.sources.open import Source, reason_of
from dolmen.tasks.speech_recognition.data.set import (
    Finder,
    RecordingListing,
    Recordings,
    decoded_text,
    is_sound,
    split_above,
    split_named,
    texts_in,
)
from dolmen.types import UserError

TRANSCRIPTS = ".trans.txt"


def read_librispeech(source: Source, name: str, encoding: str) -> Recordings | None:
    """``train-clean-100/19/198/19-198.trans.txt`` beside ``19-198-0001.flac``; None where there is no such file.

    A line is an utterance's name and its text; the part of the name before the first dash is the speaker. The folders
    ``train-...``, ``dev-...`` and ``test-...`` are splits.
    """
    lists = [f.name for f in source.files if f.name.lower().endswith(TRANSCRIPTS)]
    if not lists:
        return None
    sounds = {str(PurePosixPath(f.name).with_suffix("")): f.name for f in source.files if is_sound(f.name)}
    listing = RecordingListing(source, name)
    for file, content in texts_in(source, lists, encoding).items():
        folders = PurePosixPath(file).parent.parts
        split = _first_split(part.partition("-")[0] for part in folders)
        listing.read_from.append(file)
        for number, line in enumerate(content.split("\n"), start=1):
            key, _, text = line.strip().partition(" ")
            if not key:
                continue
            sound = sounds.get("/".join((*folders, key)))
            if sound is None:
                listing.skip("/".join((*folders, key)), f"listed in {file} but not there")
            else:
                listing.add(sound, text, split, key.partition("-")[0], where=f"{file}:{number}")
    return listing.done("LibriSpeech", expected=f"expected each recording in the folder of its *{TRANSCRIPTS}")


def read_kaldi(source: Source, name: str, encoding: str) -> Recordings | None:
    """``text``, ``wav.scp`` and maybe ``utt2spk`` in a folder, or in one for each split; None where there are none.

    A line is an utterance's name and its text, path or speaker. Paths count from the folder of wav.scp or from the top;
    absolute ones of another machine are found by their last parts. Commands in wav.scp are not run.

    Raises:
        UserError: there is a ``segments``.
    """
    names = {f.name for f in source.files}
    homes = [h for n in sorted(names) if (h := _home(n, "wav.scp")) is not None and f"{h}text" in names]
    if not homes:
        return None
    listing = RecordingListing(source, name)
    parts = [f"{home}{part}" for home in homes for part in ("text", "wav.scp", "utt2spk") if f"{home}{part}" in names]
    contents = {name: dict(_keys_and_values(text)) for name, text in texts_in(source, parts, encoding).items()}
    listing.read_from += parts
    for home in homes:
        if f"{home}segments" in names:
            raise UserError(
                f"{name} has {home}segments, which cuts long recordings into utterances, and Dolmen takes a file for "
                "each; write them as files of their own, e.g. with Kaldi's extract-segments"
            )
        finder = Finder(names.__contains__, (home.rstrip("/"), ""))
        split = _first_split(reversed(home.split("/")))
        _read_kaldi_folder(listing, home, finder, split, contents)
    return listing.done("Kaldi", expected="expected text and wav.scp with a line for each recording")


def _read_kaldi_folder(
    listing: RecordingListing, home: str, finder: Finder, split: Split, contents: dict[str, dict[str, str]]
) -> None:
    """Add the utterances of a folder; ``contents`` are key and value of each line of each file."""
    texts, paths = contents[f"{home}text"], contents[f"{home}wav.scp"]
    speakers = contents.get(f"{home}utt2spk", {})
    for key, path in paths.items():
        if path.endswith("|"):
            listing.skip(key, "wav.scp names a command, which is not run: write its output to a file")
        elif (sound := finder.find(path)) is None:
            listing.skip(path, "listed in wav.scp but not there")
        else:
            listing.add(sound, texts.get(key, ""), split, speakers.get(key, ""), where=f"{home}text")
    for key in texts.keys() - paths.keys():
        listing.skip(key, f"in {home}text but not in wav.scp")


def read_pairs(source: Source, name: str, encoding: str) -> Recordings | None:
    """``1.wav`` beside ``1.txt``, maybe below train, val and test; None where no two files go together."""
    texts = {f.name.removesuffix(".txt"): f.name for f in source.files if f.name.endswith(".txt")}
    sounds = {f.name: text for f in source.files if is_sound(f.name) and (text := texts.get(_without_suffix(f.name)))}
    if not sounds:
        return None
    listing = RecordingListing(source, name)
    contents = dict(source.read(sorted(set(sounds.values()))))
    for sound, file in sounds.items():
        content = contents[file]
        if isinstance(content, OSError):
            listing.skip(sound, f"{file} can't be read ({reason_of(content)})")
            continue
        text = decoded_text(content, str(source.path / file), encoding)
        listing.add(sound, text, split_above(sound.split("/")[:-1]), where=file)
    listing.read_from += sorted(contents)
    return listing.done(
        "a text for each recording", expected="expected 1.txt beside 1.wav", otherwise="no .txt beside it"
    )


def _first_split(folders: Iterable[str]) -> Split:
    """The split of the first name that tells one; "" if none does."""
    return next((split for folder in folders if (split := split_named(folder))), "")


def _without_suffix(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _home(name: str, file: str) -> str | None:
    """The folder of a file of this name, with a slash; None of another file."""
    home, _, last = name.rpartition("/")
    return (f"{home}/" if home else "") if last == file else None


def _keys_and_values(text: str) -> Iterator[tuple[str, str]]:
    """The first word of each line, and the text behind it."""
    for line in text.split("\n"):
        if parts := line.split(None, 1):
            yield parts[0], parts[1].strip() if len(parts) > 1 else ""
