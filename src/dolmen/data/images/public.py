"""Public sets by name: where they are, what they must hash to, whose they are. Fetched only when a person says so."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dolmen.data.cache.cache_dir import cache_dir
from dolmen.types import UserError

TIMEOUT_S = 30
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class PublicFile:
    """One file of a set.

    Attributes:
        name: as it is kept.
        size: in bytes; 0 where it is not known.
        digest: "sha256:..." or, where the publisher gives nothing better, "md5:...".
        urls: tried in order.
    """

    name: str
    size: int
    digest: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class PublicSet:
    """A set that can be named instead of a path.

    Attributes:
        files: all that is needed.
        licence: as its owners state it.
        citation: whom to name.
        home: a page to read.
        classes: their names, where the files only number them.
    """

    files: tuple[PublicFile, ...]
    licence: str
    citation: str
    home: str
    classes: tuple[str, ...] = ()


def _mnist_like(hosts: tuple[str, ...], files: dict[str, tuple[int, str]]) -> tuple[PublicFile, ...]:
    return tuple(
        PublicFile(name, size, "sha256:" + digest, tuple(host + name for host in hosts))
        for name, (size, digest) in files.items()
    )


def _medmnist(name: str, md5: str, classes: tuple[str, ...]) -> PublicSet:
    """One of MedMNIST's sets (28 x 28). Its authors publish MD5 sums only, in ``medmnist/info.py``."""
    url = f"https://zenodo.org/records/10519652/files/{name}.npz?download=1"
    return PublicSet(
        (PublicFile(f"{name}.npz", 0, f"md5:{md5}", (url,)),),
        "CC BY 4.0",
        "J. Yang et al., MedMNIST v2, Scientific Data 10:41, 2023",
        "https://medmnist.com",
        classes,
    )


PUBLIC: dict[str, PublicSet] = {
    "cifar10": PublicSet(
        (
            PublicFile(
                "cifar-10-binary.tar.gz",
                170052171,
                "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            ),
        ),
        "none stated; its authors ask to be cited",
        "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "mnist": PublicSet(
        _mnist_like(
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            {
                "train-images-idx3-ubyte.gz": (
                    9912422,
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                ),
                "train-labels-idx1-ubyte.gz": (
                    28881,
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                ),
                "t10k-images-idx3-ubyte.gz": (
                    1648877,
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                ),
                "t10k-labels-idx1-ubyte.gz": (
                    4542,
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
            },
        ),
        "CC BY-SA 3.0",
        "Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits, 1998",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    "fashion-mnist": PublicSet(
        _mnist_like(
            ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            {
                "train-images-idx3-ubyte.gz": (
                    26421880,
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                "train-labels-idx1-ubyte.gz": (
                    29515,
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                "t10k-images-idx3-ubyte.gz": (
                    4422102,
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                "t10k-labels-idx1-ubyte.gz": (
                    5148,
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            },
        ),
        "MIT",
        "H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, 2017",
        "https://github.com/zalandoresearch/fashion-mnist",
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
    "pneumoniamnist": _medmnist("pneumoniamnist", "28209eda62fecd6e6a2d98b1501bb15f", ("normal", "pneumonia")),
    "breastmnist": _medmnist("breastmnist", "750601b1f35ba3300ea97c75c52ff8f6", ("malignant", "normal, benign")),
    "bloodmnist": _medmnist(
        "bloodmnist",
        "7053d0359d879ad8a5505303e11de1dc",
        (
            *("basophil", "eosinophil", "erythroblast", "immature granulocyte"),
            *("lymphocyte", "monocyte", "neutrophil", "platelet"),
        ),
    ),
}


def locate(name: str, *, fetch: bool = False, progress: Callable[[int, int], None] | None = None) -> Path:
    """Where a public set is on this computer.

    Args:
        name: a key of ``PUBLIC``.
        fetch: download what is missing.
        progress: called with (bytes, total).

    Returns:
        A file where the set is one file, else its folder.

    Raises:
        UserError: it is not here and may not be fetched, or can't be.
    """
    published = PUBLIC[name]
    folder = cache_dir() / "public" / name
    missing = [f for f in published.files if not (folder / f.name).is_file()]
    if missing and not fetch:
        size = sum(f.size for f in published.files)
        about = f"{size / 1e6:.0f} MB, " if size else ""
        raise UserError(
            f"{name} is not on this computer ({about}licence: {published.licence}; {published.home}); to download it, "
            f"type: dolmen check image-classification {name} --fetch"
        )
    for file in missing:
        download(file, folder, progress)
    return folder / published.files[0].name if len(published.files) == 1 else folder


def download(file: PublicFile, folder: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Download and check one file; what an earlier attempt left is gone on with.

    Raises:
        UserError: no address answers, or what came is not the file, or it can't be kept.
    """
    part = folder / (file.name + ".part")
    problems = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for url in file.urls:
            resumed = part.exists()
            problem = _attempt(url, file, part, progress)
            if resumed and problem and not part.exists():  # perhaps what was there already is what was wrong
                problem = _attempt(url, file, part, progress)
            if not problem:
                os.replace(part, folder / file.name)
                return folder / file.name
            problems.append(f"{url}: {problem}")
    except OSError as error:
        raise UserError(
            f"{file.name} can't be kept in {folder} ({error.strerror or error}); free some space there, "
            "or set DOLMEN_CACHE to another folder"
        ) from error
    raise UserError(f"{file.name} can't be downloaded ({'; '.join(problems)}); check the connection and try again")


def _attempt(url: str, file: PublicFile, part: Path, progress: Callable[[int, int], None] | None) -> str:
    """Bring ``part`` to its end and check it; return what went wrong, "" for nothing. A wrong file is deleted.

    Raises:
        OSError: of the disk; those of the network are returned.
    """
    problem = ""
    with part.open("ab") as out:
        try:
            _receive(url, out, file.size, progress)
        except _NetworkError as error:
            problem = str(error)
    if not problem and _digest(part, file.digest) != file.digest:
        problem = f"what came is not the file (its {file.digest.partition(':')[0]} differs)"
        part.unlink()
    elif not part.stat().st_size and problem:
        part.unlink()
    return problem


class _NetworkError(Exception):
    """The other side did not do what it should; the message says what."""


def _receive(url: str, out: BinaryIO, size: int, progress: Callable[[int, int], None] | None) -> None:
    """Append to ``out`` what is missing of ``url``; from the front where the server can't skip."""
    received = out.tell()
    if size and received >= size:
        return
    request = urllib.request.Request(
        url, headers={"User-Agent": "dolmen"} | ({"Range": f"bytes={received}-"} if received else {})
    )
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and received:  # nothing is left to send: the digest decides
                return
            raise _NetworkError(f"the server answers {error.code}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(str(getattr(error, "reason", None) or error)) from None
    with answer:
        if answer.status != 206:
            received = 0
            out.truncate(0)
        length = answer.headers.get("Content-Length", "")
        total = size or (int(length) + received if length.isdecimal() else 0)
        while block := _block(answer):
            received += len(block)
            if total and received > total:
                raise _NetworkError(f"the server sends more than the {total} bytes of the file")
            out.write(block)
            if progress is not None:
                progress(received, total)
    if received < total:
        raise _NetworkError(f"the connection broke after {received} of {total} bytes")


def _block(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(f"the connection broke ({error})") from None


def _digest(path: Path, like: str) -> str:
    """The file's digest in the form of ``like``."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"
