"""Boxes in the format of Pascal VOC: an XML file a picture.

The layouts: ``Annotations/`` and ``JPEGImages/`` with lists in ``ImageSets/Main/``, XML files beside the pictures, and
either of these below train, val and test.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NoReturn

from dolmen.data.boxes.files import BoxListing, PictureFinder, is_picture, number, split_of
from dolmen.data.boxes.set import BoxSet
from dolmen.data.sources.layout import Split
from dolmen.data.sources.open import Source, reason_of

PICTURE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", "")
LISTS: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}


class _Builder(ET.TreeBuilder):
    """Refuses what makes XML dangerous: entities, which only a document type can declare."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        """Called where a document type is declared."""
        raise ValueError("it declares a DOCTYPE, which no annotation needs")


def parse_xml(content: bytes) -> ET.Element:
    """Read an XML file that somebody else wrote.

    Raises:
        ValueError: it is no XML, or declares a document type.
    """
    parser = ET.XMLParser(target=_Builder())
    try:
        parser.feed(content)
        root: ET.Element = parser.close()
    except ET.ParseError as error:
        raise ValueError(f"no XML ({error})") from None
    except LookupError:
        raise ValueError("an encoding that nobody knows") from None
    return root


def read_voc(source: Source, name: str) -> BoxSet | None:
    """Read boxes of Pascal VOC, or return None if there are none in the source.

    Raises:
        UserError: there are annotations, and no picture or no box that goes with them.
    """
    files = [f.name for f in source.files if f.name.lower().endswith(".xml")]
    if not files:
        return None
    listing, finder = BoxListing(source, name), PictureFinder(source)
    lists = _Lists(source, listing)
    contents = dict(source.read(files))
    annotated: dict[str, str] = {}
    is_voc = False
    for file in files:
        content, root, reason = contents.pop(file), None, ""
        if isinstance(content, OSError):
            reason = reason_of(content)
        else:
            try:
                root = parse_xml(content)
            except ValueError as error:
                reason = str(error)
        if root is not None and root.tag != "annotation":
            continue
        is_voc = is_voc or root is not None
        split = split_of(file)
        picture = _picture_of(file, root, finder, split)
        if picture is None:
            listing.note("boxes-without-picture", file)
            listing.files.skip(file, "no picture of this name")
            continue
        if picture in annotated:
            listing.note("two-annotations", f"{file}: {picture} has {annotated[picture]}")
            listing.files.skip(file, f"{picture} has another annotation file")
            continue
        annotated[picture] = file
        listed = lists.split_of(file)
        listing.used.add(file)
        if listed is None:
            listing.files.skip(picture, f"in no list of {lists.folder_of(file)}")
            continue
        index = listing.picture(picture, listed or split)
        if root is None:
            listing.unusable(index, file, reason)
        else:
            _read_objects(listing, index, file, root)
    if not is_voc and not annotated:
        return None  # XML of another format
    lists.note_missing()
    return listing.done(
        not_listed="no annotation file",
        expected="expected each beside its XML file or in JPEGImages, with the same name",
    )


def _picture_of(file: str, root: ET.Element | None, finder: PictureFinder, split: Split) -> str | None:
    """The picture of an annotation: of its own name, else of the name that stands in it."""
    folder, _, base = file.rpartition("/")
    outer, _, inner = folder.rpartition("/")
    places = [folder]
    if inner.lower() in ("annotations", "labels", "xmls", "annots", "annotation"):
        places += [f"{outer}/{p}".strip("/") for p in PICTURE_FOLDERS]
    stem = base[: -len(".xml")]
    file_name = "" if root is None else (root.findtext("filename") or "").strip()
    suffix = PurePosixPath(file_name).suffix
    return (
        (finder.find(stem + suffix, places, split) if suffix else None)
        or finder.with_stem(f"{folder}/{stem}".strip("/"), places, split)
        or (finder.find(file_name, places, split) if file_name else None)
    )


def _read_objects(listing: BoxListing, picture: int, file: str, root: ET.Element) -> None:
    listing.annotated_size(picture, root.findtext("size/height"), root.findtext("size/width"))
    for position, element in enumerate(root.findall("object"), start=1):
        label = (element.findtext("name") or "").strip()
        texts = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        left, top, right, bottom = (number(t) for t in texts)
        if left is None or top is None or right is None or bottom is None:
            listing.note("unreadable-boxes", f"{file}: object {position} has no xmin, ymin, xmax and ymax in numbers")
        elif not label:
            listing.note("unreadable-boxes", f"{file}: object {position} has no name")
        else:
            difficult = (element.findtext("difficult") or "").strip() in ("1", "true", "True")
            listing.box(picture, (left, top, right, bottom), label, difficult)


class _Lists:
    """The lists in ``ImageSets/Main``, for each root that has some."""

    def __init__(self, source: Source, listing: BoxListing) -> None:
        self._listing = listing
        self._splits: dict[str, dict[str, Split]] = {}
        self._used: dict[str, set[str]] = {}
        files = {f.name for f in source.files if _is_list(f.name)}
        for root in sorted({f.rpartition("ImageSets/Main/")[0] for f in files}):
            folder = f"{root}ImageSets/Main/"
            names = {w: f"{folder}{w}.txt" for w in LISTS if f"{folder}{w}.txt" in files}
            trainval = f"{folder}trainval.txt"
            parts: list[tuple[Split, str]] = [(LISTS[w], name) for w, name in names.items()]
            if trainval in files and not {"train", "val"} & names.keys():
                parts.append(("train", trainval))
            elif trainval in files:
                listing.used.add(trainval)  # it says what train.txt and val.txt say
            splits: dict[str, Split] = {}
            for split, file in parts:
                listing.used.add(file)
                for listed in _ids(source.read_one(file)):
                    if splits.get(listed, split) != split:
                        listing.note("in-two-splits", f"{listed}: {splits[listed]} and {split}")
                    splits[listed] = split
            if splits:
                self._splits[root], self._used[root] = splits, set()

    def folder_of(self, file: str) -> str:
        """The folder of the lists that count for an annotation file; "" where there are none."""
        root = self._root(file)
        return "" if root is None else f"{root}ImageSets/Main"

    def split_of(self, file: str) -> Split | None:
        """The split of an annotation file; "" without lists, None where there are some and it is in none."""
        root = self._root(file)
        if root is None:
            return ""
        stem = file.removeprefix(root).rpartition(".")[0]
        for known in (stem, stem.partition("/")[2], stem.rpartition("/")[2]):
            if known in self._splits[root]:
                self._used[root].add(known)
                return self._splits[root][known]
        return None

    def _root(self, file: str) -> str | None:
        roots = [r for r in self._splits if file.startswith(r)]
        return max(roots, key=len) if roots else None

    def note_missing(self) -> None:
        """Note the names in the lists that have no annotation file."""
        for root, splits in self._splits.items():
            for listed, split in splits.items():
                if listed not in self._used[root]:
                    self._listing.note("missing-pictures", f"{listed} of {root}ImageSets/Main/{split}.txt")


def _is_list(name: str) -> bool:
    *_, outer, inner, base = ["", "", *name.split("/")]
    return (outer, inner) == ("ImageSets", "Main") and base in {"trainval.txt", *(f"{w}.txt" for w in LISTS)}


def _ids(content: bytes) -> Iterator[str]:
    """The name in each line, without the ending of a picture."""
    for line in content.decode("utf-8-sig", "replace").splitlines():
        if listed := line.strip():
            yield listed.rpartition(".")[0] if is_picture(listed) else listed
