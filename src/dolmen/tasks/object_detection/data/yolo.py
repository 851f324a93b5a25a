"""Boxes in YOLO's format: a text file a picture, maybe with a YAML file that names folders and classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from dolmen.data.boxes.files import Box, BoxListing, PictureFinder, number, numbers, split_of
from dolmen.data.boxes.set import BoxSet
from dolmen.data.sources.layout import Split
from dolmen.data.sources.open import Source, printable, reason_of
from dolmen.types import UserError

YAML_SUFFIXES = (".yaml", ".yml")
NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "class_names.txt", "names.txt", "predefined_classes.txt")
MAX_YAML_BYTES = 4_000_000
SPLIT_KEYS: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
Config = dict[str, Any]
MAX_SHARE = 2.0
"""A share of the picture's side can't be this large; where many are, they are pixels."""


def read_yolo(source: Source, name: str, described: tuple[str, Config] | None = None) -> BoxSet | None:
    """Read boxes of YOLO, or return None if there are none in the source.

    Args:
        source: with the labels and the pictures.
        name: what the person typed.
        described: the name of a YAML file and what it says; None to look for one in the source.

    Raises:
        UserError: the YAML file can't be read, or there is no picture or no box.
    """
    finder = PictureFinder(source)
    yaml_file, config = described or _find_config(source)
    labels = _Labels(source)
    if config is None and not any(labels.of(p) for p in finder.names):
        return None
    listing = BoxListing(source, name)
    if config is None:
        names, name_file = _names_beside(source)
        listing.used.update(n for n in (name_file,) if n)
        parts: dict[str, Split] = {p: split_of(p) for p in finder.names}
    else:
        listing.used.add(str(yaml_file))
        names = _names(config)
        if names is None:
            names, name_file = _names_beside(source)
            listing.used.update(n for n in (name_file,) if n)
        parts = _Parts(source, finder, listing, str(yaml_file)).read(config)
    files: dict[str, int] = {}
    for picture, split in parts.items():
        index = listing.picture(picture, split)
        if label_file_name := labels.of(picture):
            files[label_file_name] = index
    reader = _Lines(listing, names)
    for label_file, content in source.read(files):
        listing.used.add(label_file)
        reader.read(label_file, files[label_file], content)
    reader.require_shares()
    for lost in labels.without(files):
        listing.note("boxes-without-picture", lost)
        listing.files.skip(lost, "labels without a picture")
    return listing.done(
        reader.classes(),
        relative=True,
        not_listed=f"in no part of {yaml_file}",
        expected="expected them in images/ as the labels are in labels/, or beside their labels",
    )


# ---- the YAML file


def _find_config(source: Source) -> tuple[str | None, Config | None]:
    """The outermost YAML file that describes the data, and what it says."""
    files = [f.name for f in source.files if f.name.lower().endswith(YAML_SUFFIXES)]
    for file in sorted(files, key=lambda n: n.count("/")):
        content = source.read_one(file)
        if b"names" in content or b"nc:" in content:
            config = parse_config(f"{source.path / file}", content)
            if config is not None:
                return file, config
    return None, None


def parse_config(path: str, content: bytes) -> Config | None:
    """Read a YAML file; None if it does not describe boxes.

    Raises:
        UserError: it is no YAML.
    """
    config = parse_yaml(path, content)
    return config if isinstance(config, dict) and ("names" in config or "nc" in config) else None


def parse_yaml(path: str, content: bytes) -> Any:
    """Read YAML as texts, lists and dicts: nothing in it becomes a number, a date or an object.

    Raises:
        UserError: it is no YAML.
    """
    try:
        import yaml
    except ImportError:
        raise UserError(f"{path} needs PyYAML to be read; type: pip install 'dolmen[train]'") from None
    try:
        if len(content) > MAX_YAML_BYTES:
            raise ValueError("larger than a description of data can be")
        return yaml.load(content.decode("utf-8-sig"), Loader=yaml.BaseLoader)  # texts only
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is no YAML ({reason}); mend it, or get it anew") from None


def _names(config: Config) -> dict[int, str] | None:
    """The name of each class number; None where the file has only their number, or nothing."""
    listed = config.get("names")
    if isinstance(listed, list):
        return {i: printable(n.strip()) for i, n in enumerate(listed) if isinstance(n, str)}
    if isinstance(listed, dict):
        pairs = ((number(k), n) for k, n in listed.items())
        return {int(k): printable(n.strip()) for k, n in pairs if k is not None and abs(k) < 1e9 and isinstance(n, str)}
    return None


def _names_beside(source: Source) -> tuple[dict[int, str] | None, str | None]:
    """Class names from a text file with one in a line."""
    name_files = [f.name for f in source.files if PurePosixPath(f.name).name.lower() in NAME_FILES]
    for file in sorted(name_files, key=lambda n: n.count("/")):
        lines = [n.strip() for n in source.read_one(file).decode("utf-8-sig", "replace").splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        if lines:
            return dict(enumerate(lines)), file
    return None, None


class _Parts:
    """Finds the pictures that a YAML file names for each split, also where its paths describe another machine."""

    def __init__(self, source: Source, finder: PictureFinder, listing: BoxListing, file: str) -> None:
        self.source, self.finder, self.listing, self.file = source, finder, listing, file
        self.home = file.rpartition("/")[0]
        self.texts = {f.name for f in source.files if f.name.lower().endswith(".txt")}
        self.inside: dict[str, list[str]] = {}
        for name in finder.names:
            folder = name
            while folder:
                folder = folder.rpartition("/")[0]
                self.inside.setdefault(folder, []).append(name)

    def read(self, config: Config) -> dict[str, Split]:
        """Return the split of each picture that is in one."""
        by_split: dict[Split, dict[str, None]] = {}
        prefix = config.get("path", "")
        for key, split in SPLIT_KEYS.items():
            value = config.get(key)
            for entry in value if isinstance(value, list) else [value]:
                if not isinstance(entry, str) or not entry.strip():
                    continue
                pictures = self._entry(prefix if isinstance(prefix, str) else "", entry.strip(), split)
                if pictures is None:
                    self.listing.note("split-not-there", f"{key}: {entry} of {self.file}")
                else:
                    by_split.setdefault(split, {}).update(dict.fromkeys(pictures))
        if not any(by_split.values()):
            return {p: split_of(p) for p in self.finder.names}
        if by_split.get("train") and by_split.get("train", {}).keys() == by_split.get("val", {}).keys():
            self.listing.note("train-is-val", self.file)
            by_split = {"": by_split["train"], **{s: p for s, p in by_split.items() if s == "test"}}
        parts: dict[str, Split] = {}
        for split in ("", "train", "val", "test"):
            for picture in by_split.get(split, ()):
                if picture in parts:
                    self.listing.picture(picture, parts[picture])
                parts[picture] = split
        return parts

    def _entry(self, prefix: str, entry: str, split: Split) -> list[str] | None:
        """The pictures of a folder, or of a list; None if there is neither."""
        for place in self._places(prefix, entry, split):
            if place in self.texts:
                return self._listed(place, split)
            if place in self.inside and (place or entry in (".", "./")):
                return self.inside[place]
        return None

    def _places(self, prefix: str, entry: str, split: Split) -> Iterator[str]:
        """Where a path may lead in this source: as written, without what was in front of it elsewhere, by custom."""
        whole, bare = _parts_of(f"{prefix}/{entry}"), _parts_of(entry)
        for parts in (whole, bare):
            yield "/".join([*_parts_of(self.home), *parts])
            yield "/".join(parts)
        for start in range(1, len(bare)):
            yield "/".join([*_parts_of(self.home), *bare[start:]])
            yield "/".join(bare[start:])
        if not entry.endswith(".txt"):
            for word in ("val", "valid", "validation") if split == "val" else (split,):
                for custom in (f"{word}/images", f"images/{word}", word):
                    yield "/".join([*_parts_of(self.home), custom])

    def _listed(self, file: str, split: Split) -> list[str]:
        """The pictures of a list, a path a line."""
        self.listing.used.add(file)
        pictures = []
        for line in self.source.read_one(file).decode("utf-8-sig", "replace").splitlines():
            if not line.strip():
                continue
            picture = self.finder.find(line.strip(), [self.home, file.rpartition("/")[0]])
            if picture is None:
                self.listing.note("missing-pictures", f"{line.strip()} of {file}")
            else:
                pictures.append(picture)
        return pictures


def _parts_of(path: str) -> list[str]:
    return [p for p in path.replace("\\", "/").split("/") if p not in ("", ".", "..")]


# ---- the labels


class _Labels:
    """The label file of each picture."""

    def __init__(self, source: Source) -> None:
        self._all = {
            f.name
            for f in source.files
            if f.name.lower().endswith(".txt") and PurePosixPath(f.name).name.lower() not in NAME_FILES
        }
        self._by_stem: dict[str, list[str]] = {}
        for name in sorted(self._all):
            if _is_label_place(name):
                self._by_stem.setdefault(PurePosixPath(name).stem, []).append(name)

    def of(self, picture: str) -> str | None:
        """The label file of a picture: where the last ``images`` is ``labels``, beside it, or the one of its name."""
        stem = picture.rpartition(".")[0]
        parts = stem.split("/")
        for i in reversed(range(len(parts) - 1)):
            if parts[i].lower() in ("images", "imgs", "jpegimages"):
                for word in ("labels", "Labels", "annotations"):
                    if (file := "/".join([*parts[:i], word, *parts[i + 1 :]]) + ".txt") in self._all:
                        return file
        for file in (f"{stem}.txt", "/".join([*parts[:-1], "labels", parts[-1]]) + ".txt"):
            if file in self._all:
                return file
        same = [f for f in self._by_stem.get(parts[-1], ()) if split_of(f) == split_of(picture)]
        return same[0] if len(same) == 1 else None

    def without(self, used: dict[str, int]) -> list[str]:
        """The label files that belong to no picture."""
        return sorted(f for f in self._all if f not in used and _is_label_place(f))


def _is_label_place(file: str) -> bool:
    """Whether a text file is where labels are."""
    return any(p.lower() == "labels" for p in file.split("/")[:-1])


class _Lines:
    """Reads label files line by line."""

    def __init__(self, listing: BoxListing, names: dict[int, str] | None) -> None:
        self._listing, self._names = listing, names
        self._numbers: set[int] = set()
        self._num_pixels = 0
        self._first_pixels = ""

    def read(self, file: str, picture: int, content: bytes | OSError) -> None:
        """Add the boxes of one file."""
        if isinstance(content, OSError):
            self._listing.unusable(picture, file, reason_of(content))
            return
        try:
            lines = content.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            self._listing.unusable(picture, file, "no text")
            return
        for line_number, line in enumerate(lines, start=1):
            words = line.replace(",", " ").split()
            if words:
                self._line(f"{file}:{line_number}", picture, words)

    def _line(self, where: str, picture: int, words: list[str]) -> None:
        values = numbers(words)
        if values is None or len(values) < 5 or len(values) % 2 == 0 or values[0] != values[0] // 1:
            text = " ".join(words[:6]) + (" ..." if len(words) > 6 else "")
            self._listing.note("unreadable-boxes", f"{where} is {text!r}, expected class cx cy width height")
            return
        label = int(values[0])
        if label < 0 or (self._names is not None and label not in self._names):
            self._listing.note("unknown-class", f"{where} is of the class {label}")
            return
        self._numbers.add(label)
        if max(values[1:]) > MAX_SHARE:
            self._num_pixels += 1
            self._first_pixels = self._first_pixels or where
        polygon = [values[1:]] if len(values) > 5 else None
        name = str(label) if self._names is None else self._names[label]
        self._listing.box(picture, _box(values[1:]), name, polygon=polygon)

    def require_shares(self) -> None:
        """Refuse labels in pixels.

        Raises:
            UserError: most values are too large for shares.
        """
        if self._num_pixels * 2 > self._listing.num_boxes:
            raise UserError(
                f"the boxes of {self._listing.name} are in pixels (first: {self._first_pixels}), expected shares of "
                "the picture's width and height from 0 to 1; divide them, or bring the boxes as CSV"
            )

    def classes(self) -> list[str]:
        """The names in the order of their numbers."""
        names = self._names or {i: str(i) for i in self._numbers}
        return [names[i] for i in sorted(names)]


def _box(values: list[float]) -> Box:
    """Centre and size, or an outline, to left, top, right and bottom."""
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return min(values[0::2]), min(values[1::2]), max(values[0::2]), max(values[1::2])
