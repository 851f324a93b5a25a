"""Text from files: encodings, archives, splits, tokens, windows, streams."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dolmen.data.sources.text_files import find_text
from dolmen.processors.text.tokens import fit_text
from dolmen.tasks.text_generation.data.checks import check_text
from dolmen.tasks.text_generation.data.windows import Stretch, TextDataset, split_text, tokenise
from dolmen.types import UserError

TEXT = "".join(f"Line {i} tells of {i * i} things.\n" for i in range(400))


def text_of(stretch: Stretch) -> str:
    return "".join(stretch.pieces())


def test_one_file_is_cut_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(TEXT)
    parts = split_text(find_text(str(tmp_path / "book.txt")), "utf-8", 0.1, 0.05)
    assert list(parts) == ["train", "val", "test"]
    assert "".join(text_of(p) for p in parts.values()) == TEXT
    assert len(text_of(parts["test"])) == round(len(TEXT) * 0.05)
    assert len(text_of(parts["val"])) == round(len(TEXT) * 0.1)


@pytest.mark.parametrize("names", [("train.txt", "valid.txt"), ("train/a.txt", "dev/b.txt"), ("train.md", "val.md")])
def test_names_tell_the_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, text in zip(names, ("the train", "the val"), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    files = find_text(str(tmp_path))
    parts = split_text(files, "utf-8", 0.1, 0.1)
    assert {s: text_of(p) for s, p in parts.items()} == {"train": "the train", "val": "the val"}
    assert {s.name for s in files.skipped} == {"notes.txt", "picture.png"}
    assert files.num_files == 4


def test_archives_and_compressed_files_read_the_same(tmp_path: Path) -> None:
    blob = TEXT.encode()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train.txt", blob)
    for suffix, squeeze in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        (tmp_path / f"train.txt{suffix}").write_bytes(squeeze(blob))
    names = ["a.zip", "train.txt.gz", "train.txt.bz2", "train.txt.xz"]
    for name in names:
        parts = split_text(find_text(str(tmp_path / name)), "utf-8", 0.1, 0.1)
        assert "".join(text_of(p) for p in parts.values()) == TEXT


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.txt").write_bytes("Süß,\r\nwie Öl.\rEnde\n".encode(encoding))
    parts = split_text(find_text(str(tmp_path / "t.txt")), encoding, 0.0, 0.0)
    assert text_of(parts["train"]) == "Süß,\nwie Öl.\nEnde\n"


def test_a_wrong_encoding_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"a" * (1 << 20) + b"bc" + "Süß".encode("latin-1"))  # behind the first piece
    with pytest.raises(UserError) as caught:
        split_text(find_text(str(path)), "utf-8", 0.1, 0.1)
    assert str(caught.value) == (
        f"{path} is not text in utf-8: byte 0xfc at position {(1 << 20) + 3:,}; say what it is in, "
        "e.g. --encoding latin-1, or convert it to UTF-8"
    )


def test_a_character_over_the_border_of_two_pieces(tmp_path: Path) -> None:
    text = "a" * ((1 << 20) - 1) + "ü\r\nb"
    (tmp_path / "t.txt").write_bytes(text.encode())
    parts = split_text(find_text(str(tmp_path / "t.txt")), "utf-8", 0.0, 0.0)
    assert text_of(parts["train"]) == text.replace("\r\n", "\n")


@pytest.mark.parametrize(("files", "message"), [({}, "no file ends in"), ({"a.txt": b""}, "it is empty")])
def test_nothing_to_read(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        find_text(str(tmp_path))


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(TEXT.encode())[:100])
    with pytest.raises(UserError, match=r"t\.txt\.gz can't be read"):
        split_text(find_text(str(tmp_path / "t.txt.gz")), "utf-8", 0.1, 0.1)


@pytest.mark.parametrize("units", ["characters", "words", "bpe"])
def test_tokens_are_those_of_the_text(tmp_path: Path, units: str) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    files = find_text(str(tmp_path / "t.txt"))
    whole = split_text(files, "utf-8", 0.0, 0.0)["train"]
    processor = fit_text(units, whole.pieces(), 320 if units == "bpe" else None, 1)  # type: ignore[arg-type]
    first, again = (tokenise(whole, processor, files.fingerprint) for _ in range(2))
    assert isinstance(first.numbers.base, np.memmap)
    assert first.num_characters == len(TEXT)
    assert first.num_unknown == 0
    np.testing.assert_array_equal(first.numbers, processor.encode_text(TEXT))
    np.testing.assert_array_equal(first.numbers, again.numbers)
    assert processor.decode_tokens(first.numbers) == TEXT


# ---- windows and streams


def test_windows_cover_the_text_and_know_what_was_before() -> None:
    data = TextDataset(np.arange(1, 24, dtype=np.uint8), window=5, num_characters=23)
    assert len(data) == 5
    assert data.num_targets == 22
    batch = data.batch(np.arange(5))
    assert batch["tokens"][0].tolist() == [1, 2, 3, 4, 5, 6]
    assert batch["tokens"][4].tolist() == [21, 22, 23, -1, -1, -1]
    assert batch["before"][0].tolist() == [-1] * 5
    assert batch["before"][2].tolist() == [6, 7, 8, 9, 10]
    few = data.subset(np.array([1, 3]))
    assert few.batch(np.arange(2))["tokens"][:, 0].tolist() == [6, 16]
    np.testing.assert_array_equal(few.digests, data.digests[[1, 3]])
    assert len(np.unique(data.digests, axis=0)) == 5


@pytest.mark.parametrize(("num", "streams", "length"), [(1000, 4, 16), (997, 3, 50), (50, 8, 64), (9, 2, 100)])
def test_streams_go_on_where_they_were(num: int, streams: int, length: int) -> None:
    data = TextDataset(np.arange(num, dtype=np.int32), window=8, num_characters=num)
    steps = data.steps_per_epoch(streams, length)
    seen, last = [], np.zeros(0)
    for step in range(3 * steps):
        epoch, batch = data.training_batch(step, streams, length, seed=0)
        tokens = batch["tokens"].numpy()
        assert epoch == step // steps
        assert tokens.shape[1] >= 2
        assert bool(batch["fresh"].all()) == (step % steps == 0)
        assert batch["fresh"].any() == batch["fresh"].all()
        np.testing.assert_array_equal(np.diff(tokens, axis=1), 1)  # consecutive tokens of this text
        if step % steps:
            np.testing.assert_array_equal(tokens[:, 0], last)
        last = tokens[:, -1]
        seen.append(tokens[:, 1:].ravel())
    targets = np.concatenate(seen[:steps])
    assert len(np.unique(targets)) == len(targets)
    assert len(targets) >= num - 1 - streams - length
    again = data.training_batch(steps, streams, length, seed=0)[1]["tokens"]
    assert np.array_equal(again.numpy()[:, 1:].ravel(), seen[steps])


def test_stretches_have_random_lengths() -> None:
    data = TextDataset(np.zeros(10_000, np.uint8), window=8, num_characters=10_000)
    lengths = {data.training_batch(step, 4, 50, seed=0)[1]["tokens"].shape[1] for step in range(40)}
    assert len(lengths) > 5


# ---- checks


def findings(folder: Path, **texts: str) -> dict[str, str]:
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    files = find_text(str(folder))
    parts = split_text(files, "utf-8", 0.1, 0.1)
    processor = fit_text("characters", parts["train"].pieces(), None, 1)
    tokens = {s: tokenise(p, processor, files.fingerprint) for s, p in parts.items()}
    report = check_text(files, parts, tokens, {s: len(t.numbers) for s, t in tokens.items()}, processor)
    assert report.num_files == report.num_used + len(report.skipped)
    return {f.code: f.level for f in report.findings}


def test_check_finds_what_is_wrong(tmp_path: Path) -> None:
    lines = [f"{i} " * 40 for i in range(100)]
    cases = {
        "clean": ({"train": TEXT, "valid": "tells of things in lines.\n" * 20}, {}),
        "leak": ({"train": "\n".join(lines), "valid": "\n".join(lines[:50])}, {"lines-across-splits": "leak"}),
        "few": ({"train": "\n".join(lines), "valid": "\n".join([*("x" * (70 + i) for i in range(50)), lines[0]])},
                {"lines-across-splits": "warning", "unknown-tokens": "warning"}),
        "short": ({"train": "too short", "valid": TEXT}, {"too-short": "error", "unknown-tokens": "warning"}),
        "unknown": ({"train": TEXT, "valid": "ЖЖЖЖЖ" * 9}, {"unknown-tokens": "warning"}),
        "nul": ({"train": TEXT + "\0", "valid": TEXT[:50]}, {"nul-characters": "warning"}),
        "long": ({"train": "abcd" * 300_000, "valid": "abcd"}, {"long-line": "info"}),
        "one": ({"train": "a" * 2000, "valid": "aaaa"}, {"few-symbols": "warning"}),
    }  # fmt: skip
    for name, (texts, wanted) in cases.items():
        (tmp_path / name).mkdir()
        assert findings(tmp_path / name, **texts) == wanted, name
