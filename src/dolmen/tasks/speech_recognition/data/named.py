"""Recordings whose names tell what is said: a folder for each word, or the names of FSDD and yesno."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from dolmen.data.sources.layout import SPLIT_WORDS, Split, outer_folders
from dolmen.data.sources.open import Source
from dolmen.tasks.speech_recognition.data.set import RecordingListing, Recordings, is_sound, texts_in

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FSDD = re.compile(r"([0-9])_([A-Za-z][A-Za-z0-9-]*)_([0-9]+)\.\w+")
NUM_FSDD_TEST = 5
"""Recordings of each digit and speaker that are its official test: those with a lower number."""
YESNO = re.compile(r"[01](_[01])+\.\w+")
SPEAKER = re.compile(r"(.+)_nohash_[0-9]+\.\w+")
NUMBERED = re.compile(r"[A-Za-z]+[-_ ]?[0-9]+|[0-9]+[A-Za-z]+")
"""Names of speakers and sessions, not words."""
MIN_MATCHING_SHARE = 0.5
"""Above this share of the recordings have to be named so."""


def read_fsdd(source: Source, name: str, encoding: str) -> Recordings | None:
    """``7_jackson_12.wav``: digit, speaker and number, as in the Free Spoken Digit Dataset; None of other names.

    Numbers 0 to 4 are its official test; all others have no split.
    """
    del encoding
    named = _matching(source, FSDD)
    if not named:
        return None
    listing = RecordingListing(source, name)
    for file, match in named.items():
        digit, speaker, number = match.groups()
        listing.add(file, DIGITS[int(digit)], "test" if int(number) < NUM_FSDD_TEST else "", speaker)
    splits = {item.split for item in listing.items}
    if splits == {"test"}:
        listing.notes.append("these are recordings of the official test only")
    elif "test" in splits:
        listing.notes.append(
            f"numbers 0 to {NUM_FSDD_TEST - 1} are the official test, which has the speakers of training"
        )
    return listing.done(
        "Free Spoken Digit Dataset", expected="expected names such as 7_jackson_12.wav", otherwise="its name is another"
    )


def read_yesno(source: Source, name: str, encoding: str) -> Recordings | None:
    """``0_1_1_0_1_0_0_1.wav``: a word for each number, 1 yes and 0 no, of one speaker (yesno, OpenSLR 1)."""
    del encoding
    named = _matching(source, YESNO)
    if not named:
        return None
    listing = RecordingListing(source, name)
    for file in named:
        numbers = PurePosixPath(file).stem.split("_")
        listing.add(file, " ".join("yes" if n == "1" else "no" for n in numbers), "", "yesno")
    return listing.done("yesno", expected="expected names such as 0_1_1_0.wav", otherwise="its name is another")


def read_word_folders(source: Source, name: str, encoding: str) -> Recordings | None:
    """``yes/0a7c2a8d_nohash_0.wav``: a folder for each word, maybe below train, val and test; None of other folders.

    Names as in Speech Commands tell the speaker, and its validation_list.txt and testing_list.txt name the splits.
    """
    sounds = [tuple(f.name.split("/")) for f in source.files if is_sound(f.name)]
    if not sounds:
        return None
    outer = outer_folders(sounds)
    depth = len(outer)
    with_splits = any(len(p) > depth + 2 and p[depth].lower() in SPLIT_WORDS for p in sounds)
    in_place = [p for p in sounds if len(p) == depth + 2 + with_splits]
    words = {p[-2] for p in in_place if not _is_noise(p[-2])}
    if len(words) < 2 or len(in_place) <= MIN_MATCHING_SHARE * len(sounds):
        return None
    if sum(NUMBERED.fullmatch(w) is not None for w in words) > MIN_MATCHING_SHARE * len(words):
        return None
    listing = RecordingListing(source, name)
    listed = _listed_splits(listing, "".join(f"{p}/" for p in outer), encoding)
    for parts in sounds:
        file, inner = "/".join(parts), parts[depth:]
        split: Split = listed.get("/".join(inner), "train") if listed else ""
        if with_splits:
            if inner[0].lower() not in SPLIT_WORDS:
                listing.skip(file, "outside train, val and test")
                continue
            split, inner = SPLIT_WORDS[inner[0].lower()], inner[1:]
        if len(inner) != 2:
            listing.skip(file, "not in the folder of a word")
        elif _is_noise(inner[0]):
            listing.skip(file, f"{inner[0]} is not a word")
        else:
            speaker = SPEAKER.fullmatch(inner[1])
            listing.add(file, inner[0].replace("_", " "), split, speaker[1] if speaker else "")
    return listing.done("a folder for each word", expected="expected yes/1.wav, no/2.wav")


def _listed_splits(listing: RecordingListing, home: str, encoding: str) -> dict[str, Split]:
    """The split of each recording that Speech Commands' lists name."""
    names = {f.name for f in listing.source.files}
    files: dict[str, Split] = {f"{home}validation_list.txt": "val", f"{home}testing_list.txt": "test"}
    contents = texts_in(listing.source, [f for f in files if f in names], encoding)
    listing.read_from += contents
    lines = ((file, line.strip()) for file, text in contents.items() for line in text.split("\n"))
    return {line: files[file] for file, line in lines if line}


def _is_noise(folder: str) -> bool:
    """Folders such as _background_noise_ hold no words."""
    return folder.startswith("_")


def _matching(source: Source, pattern: re.Pattern[str]) -> dict[str, re.Match[str]]:
    """Sound files whose own name matches, with the match; none where too small a share of all sound files does."""
    sounds = [f.name for f in source.files if is_sound(f.name)]
    matches = {n: m for n in sounds if (m := pattern.fullmatch(n.rpartition("/")[2]))}
    return matches if len(matches) > MIN_MATCHING_SHARE * len(sounds) else {}
