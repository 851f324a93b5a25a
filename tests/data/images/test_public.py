"""Public sets by name, fetched from a server on this computer: nothing here leaves it."""

from __future__ import annotations

import errno
import hashlib
import http.server
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dolmen.data.cache.cache_dir import cache_dir
from dolmen.data.images import public
from dolmen.data.images.public import PUBLIC, PublicFile, PublicSet, download, locate
from dolmen.data.images.read import read_images
from dolmen.types import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
ADVICE = "; check the connection and try again"


@dataclass
class Server:
    """Serves CONTENT under every path, in the way that the path's first word says."""

    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)  # path, Range


class Handler(http.server.BaseHTTPRequestHandler):
    notes: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.notes.requests.append((self.path, wanted))
        how = self.path.split("/")[1]
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and how != "no-range" else 0
        if how.isdigit():
            self.send_error(int(how))
            return
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        if how == "wrong":
            body = bytes(len(body))
        self.send_response(206 if start else 200)
        if how == "endless":
            body *= 3
        elif how != "no-length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:100_000] if how == "cut" else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    notes = Server()
    handler = type("Bound", (Handler,), {"notes": notes})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        notes.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield notes
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def a_file(*urls: str, size: int = len(CONTENT), kind: str = "sha256", name: str = "set.bin") -> PublicFile:
    return PublicFile(name, size, f"{kind}:{hashlib.new(kind, CONTENT).hexdigest()}", urls)


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("how", ["whole", "no-length", "no-range"])
@pytest.mark.parametrize("size", [len(CONTENT), 0], ids=["size known", "size unknown"])
@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_file_comes_whole(how, size, kind, server, tmp_path):
    calls: list[tuple[int, int]] = []
    url = f"{server.url}/{how}/set.bin"
    path = download(a_file(url, size=size, kind=kind), tmp_path / "new", lambda *t: calls.append(t))
    assert path == tmp_path / "new" / "set.bin"
    assert path.read_bytes() == CONTENT
    assert left_in(tmp_path / "new") == ["set.bin"]
    assert server.requests == [(f"/{how}/set.bin", "")]
    assert calls[-1] == (len(CONTENT), 0 if how == "no-length" and not size else len(CONTENT))


@pytest.mark.parametrize("size", [len(CONTENT), 0])
@pytest.mark.parametrize("how", ["whole", "no-range"])
def test_a_broken_download_is_gone_on_with(how, size, server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT[:123_456])
    calls: list[tuple[int, int]] = []
    download(a_file(f"{server.url}/{how}/set.bin", size=size), tmp_path, lambda *t: calls.append(t))
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert left_in(tmp_path) == ["set.bin"]
    assert server.requests == [(f"/{how}/set.bin", "bytes=123456-")]
    assert calls[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize(("size", "requests"), [(len(CONTENT), 0), (0, 1)])
def test_what_is_there_already_is_only_checked(size, requests, server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT)
    download(a_file(f"{server.url}/whole/set.bin", size=size), tmp_path)  # unknown size: the server says 416
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert len(server.requests) == requests


def test_a_spoilt_beginning_is_fetched_anew(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(bytes(1000))
    download(a_file(f"{server.url}/whole/set.bin"), tmp_path)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert [r for _, r in server.requests] == ["bytes=1000-", ""]


@pytest.mark.parametrize(
    ("how", "problem", "left"),
    [
        ("404", "the server answers 404", []),
        ("503", "the server answers 503", []),
        ("wrong", "what came is not the file (its sha256 differs)", []),
        ("cut", "the connection broke after 100000 of 300000 bytes", ["set.bin.part"]),
    ],
)
def test_what_goes_wrong_is_said_and_the_next_address_is_tried(how, problem, left, server, tmp_path):
    url = f"{server.url}/{how}/set.bin"
    with pytest.raises(UserError) as caught:
        download(a_file(url), tmp_path)
    assert str(caught.value) == f"set.bin can't be downloaded ({url}: {problem}){ADVICE}"
    assert left_in(tmp_path) == left
    download(a_file(url, f"{server.url}/whole/set.bin"), tmp_path)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert left_in(tmp_path) == ["set.bin"]


def test_each_address_has_its_problem_in_the_message(server, tmp_path):
    urls = [f"{server.url}/{how}/set.bin" for how in ("404", "500")]
    with pytest.raises(UserError) as caught:
        download(a_file(*urls), tmp_path)
    assert str(caught.value) == (
        f"set.bin can't be downloaded ({urls[0]}: the server answers 404; {urls[1]}: the server answers 500){ADVICE}"
    )


def test_more_than_was_announced_is_not_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr(public, "BLOCK_BYTES", 1000)
    url = f"{server.url}/endless/set.bin"
    with pytest.raises(UserError, match="the server sends more than the 300000 bytes of the file"):
        download(a_file(url), tmp_path)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= len(CONTENT)


def test_a_cut_download_goes_on_at_the_next_call(server, tmp_path):
    with pytest.raises(UserError, match="the connection broke after 100000 of 300000 bytes"):
        download(a_file(f"{server.url}/cut/set.bin"), tmp_path)
    download(a_file(f"{server.url}/whole/set.bin"), tmp_path)
    assert [r for _, r in server.requests] == ["", "bytes=100000-"]


def test_a_server_that_speaks_nonsense(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"{0} {hello}\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(UserError, match=re.escape(f"set.bin can't be downloaded ({url}: {{0}} {{hello}}")):
            download(a_file(url), tmp_path)
        thread.join()


def test_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/set.bin"
    with pytest.raises(UserError) as caught:
        download(a_file(url), tmp_path)
    refused = f"[Errno {errno.ECONNREFUSED}] Connection refused"
    assert str(caught.value) == f"set.bin can't be downloaded ({url}: {refused}){ADVICE}"
    assert left_in(tmp_path) == []


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        download(a_file(f"{server.url}/whole/set.bin"), tmp_path / "file")
    assert str(caught.value) == (
        f"set.bin can't be kept in {tmp_path / 'file'} (File exists); free some space there, "
        "or set DOLMEN_CACHE to another folder"
    )


def test_a_full_disk_is_not_the_network(server, tmp_path, monkeypatch):
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(public.os, "replace", full)
    with pytest.raises(UserError, match=r"can't be kept in .* \(No space left on device\); free some space there, or "):
        download(a_file(f"{server.url}/whole/set.bin", f"{server.url}/whole/2"), tmp_path)
    assert len(server.requests) == 1


# ---- sets


@pytest.fixture
def two_files(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    files = tuple(a_file(f"{server.url}/whole/{n}", name=n) for n in ("a.bin", "b.bin"))
    monkeypatch.setitem(PUBLIC, "two", PublicSet(files, "CC0", "nobody", "https://example.org"))
    return "two"


def test_nothing_is_fetched_without_being_asked(two_files, server, cache):
    with pytest.raises(UserError) as caught:
        locate(two_files)
    assert str(caught.value) == (
        "two is not on this computer (1 MB, licence: CC0; https://example.org); to download it, "
        "type: dolmen check image-classification two --fetch"
    )
    assert server.requests == []
    assert not cache.exists()


def test_an_unknown_size_is_not_told(cache):
    with pytest.raises(UserError) as caught:
        locate("pneumoniamnist")
    assert str(caught.value) == (
        "pneumoniamnist is not on this computer (licence: CC BY 4.0; https://medmnist.com); to download it, "
        "type: dolmen check image-classification pneumoniamnist --fetch"
    )


def test_a_set_is_fetched_once(two_files, server, cache):
    folder = locate(two_files, fetch=True)
    assert folder == cache / "public" / "two" == cache_dir() / "public" / "two"
    assert left_in(folder) == ["a.bin", "b.bin"]
    assert [path for path, _ in server.requests] == ["/whole/a.bin", "/whole/b.bin"]
    assert locate(two_files, fetch=True) == locate(two_files) == folder
    assert len(server.requests) == 2
    (folder / "a.bin").unlink()
    locate(two_files, fetch=True)
    assert [path for path, _ in server.requests[2:]] == ["/whole/a.bin"]


def test_a_set_of_one_file_is_that_file(server, cache, monkeypatch):
    file = a_file(f"{server.url}/whole/one", name="one.npz")
    monkeypatch.setitem(PUBLIC, "one", PublicSet((file,), "CC0", "nobody", "https://example.org"))
    assert locate("one", fetch=True) == cache / "public" / "one" / "one.npz"


def test_a_fetched_set_is_read_with_its_licence(cache, monkeypatch):
    home = cache / "public" / "pneumoniamnist"
    home.mkdir(parents=True)
    pictures, labels = np.zeros((3, 28, 28), np.uint8), np.array([[0], [1], [1]], np.uint8)
    np.savez(home / "pneumoniamnist.npz", train_images=pictures, train_labels=labels)
    images = read_images("pneumoniamnist")
    assert (images.source, images.licence, len(images)) == ("pneumoniamnist", "CC BY 4.0", 3)


def test_a_name_that_is_no_set_is_no_path_either(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^there is no nosuchset; check the path; public sets are: digits, cifar10, mnist"
    ):
        read_images("nosuchset", fetch=True)


def test_a_folder_of_that_name_is_taken_before_the_public_set(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    with pytest.raises(UserError, match=r"^mnist holds no pictures"):
        read_images("mnist")


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_set_says_whose_it_is_and_can_be_checked(name):
    published = PUBLIC[name]
    assert published.licence
    assert published.citation
    assert published.home.startswith(("http://", "https://"))
    assert published.files
    for file in published.files:
        kind, _, digest = file.digest.partition(":")
        assert len(digest) == {"sha256": 64, "md5": 32}[kind]
        assert file.urls
        assert all(url.startswith("https://") or kind == "sha256" for url in file.urls)
