"""The sample: what is in it, whose it is, and that it is written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dolmen.data.images.arrays import read_digits
from dolmen.tasks.image_classification.data import sample
from dolmen.tasks.image_classification.data.sample import write_image_sample
from dolmen.types import UserError


def everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_twenty_of_each_digit_with_their_notice(tmp_path):
    write_image_sample(tmp_path / "digits")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits"]
    assert sorted(p.name for p in (tmp_path / "digits").iterdir()) == [*"0123456789", "NOTICE.txt"]
    digits = read_digits()
    pixels = dict(digits.read(range(len(digits))))
    for digit in range(10):
        files = sorted((tmp_path / "digits" / str(digit)).iterdir())
        assert len(files) == 20
        for file in files:
            index = int(file.stem)
            assert digits.labels[index] == digit
            with Image.open(file) as picture:
                assert (picture.mode, picture.size, picture.format) == ("L", (32, 32), "PNG")
                assert np.abs(np.asarray(picture.resize((8, 8)), float) - pixels[index]).mean() < 24
    notice = (tmp_path / "digits" / "NOTICE.txt").read_text(encoding="utf-8")
    for needed in ("Alpaydin", "UCI", "scikit-learn", "CC BY 4.0", "https://doi.org/10.24432/C50P49", "train, val"):
        assert needed in notice


def test_the_same_bytes_every_time(tmp_path):
    write_image_sample(tmp_path / "a")
    write_image_sample(tmp_path / "b")
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    for name in everything(tmp_path / "a"):
        if (tmp_path / "a" / name).is_file():
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_folders_above_are_made_and_others_can_read_it(tmp_path):
    write_image_sample(tmp_path / "some" / "where")
    assert (tmp_path / "some" / "where" / "NOTICE.txt").is_file()
    assert (tmp_path / "some" / "where").stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_is_filled_not_replaced(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o700)
    before = folder.stat()
    write_image_sample(folder)
    assert len(list(folder.iterdir())) == 11
    assert (folder.stat().st_ino, folder.stat().st_mode) == (before.st_ino, before.st_mode)


def test_the_folder_in_which_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image_sample(Path("."))
    assert len(list(tmp_path.iterdir())) == 11
    assert os.getcwd() == str(tmp_path)


def test_a_link_to_an_empty_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_image_sample(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len(list((tmp_path / "real").iterdir())) == 11


@pytest.mark.parametrize("kind", ["folder", "hidden", "file"])
def test_what_is_there_is_left_alone(kind, tmp_path):
    taken = tmp_path / "taken"
    if kind == "file":
        taken.write_text("mine")
    else:
        taken.mkdir()
        (taken / (".mine" if kind == "hidden" else "mine")).write_text("mine")
    before = everything(tmp_path)
    with pytest.raises(
        UserError, match=f"^{re.escape(str(taken))} exists already and is not empty; name a new folder$"
    ):
        write_image_sample(taken)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_half_written_stays(exists, error, tmp_path, monkeypatch):
    folder = tmp_path / "digits"
    if exists:
        folder.mkdir()
    saved = Image.Image.save
    left = [57]

    def save(self, *args, **kwargs):
        left[0] -= 1
        if not left[0]:
            raise error
        saved(self, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", save)
    if isinstance(error, OSError):
        message = f"{folder} can't be written: No space left on device; name a folder that you may write to"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            write_image_sample(folder)
    else:
        with pytest.raises(KeyboardInterrupt):
            write_image_sample(folder)
    assert everything(tmp_path) == (["digits"] if exists else [])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("file/digits", "Not a directory|File exists"), ("a\0b", "embedded null byte"), ("x" * 300, "File name too long")],
)
def test_folders_that_cannot_be_made(name, reason, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"can't be written: ({reason})\W?.*; name a folder that you may write to$"):
        write_image_sample(tmp_path / name)
    assert everything(tmp_path) == ["file"]


def test_without_scikit_learn_it_says_what_to_type(tmp_path, monkeypatch):
    def missing():
        raise UserError("the digits come with scikit-learn; type: pip install 'dolmen[train]'")

    monkeypatch.setattr(sample, "read_digits", missing)
    with pytest.raises(UserError, match=r"^the digits come with scikit-learn; type: pip install 'dolmen\[train\]'$"):
        write_image_sample(tmp_path / "digits")
    assert everything(tmp_path) == []
