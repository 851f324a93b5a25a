"""The server as a process of its own: signals, new bundles, and connections that mean no good."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from runtime.server.fakes import open_fake, png, sound, write_fake

from dolmen.runtime.server.serve import named, serve
from dolmen.types import UserError

pytestmark = pytest.mark.xdist_group("time")

FAKES = Path(__file__).with_name("fakes.py")


class Running:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *paths: Path, **named: Any) -> None:
        tests = str(Path(__file__).parents[2])
        env = os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
        words = [sys.executable, "-W", "error", str(FAKES), json.dumps({"port": 0, **named}), *map(str, paths)]
        self.log = folder / "log"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, env=env, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, self.log.read_text()
        self.port = int(found[1])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def events(self, name: str) -> list[dict[str, Any]]:
        whole = self.log.read_text().rpartition("\n")[0]  # the last line may be on its way
        return [e for line in whole.splitlines() if (e := json.loads(line))["event"] == name]

    def wait_for(self, name: str, number: int = 1) -> None:
        for _ in range(3000):
            if len(self.events(name)) >= number:
                return
            time.sleep(0.01)
        raise AssertionError(f"no {name}: {self.log.read_text()[-2000:]}")

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(*paths: Path, **named: Any) -> Running:
        running.append(Running(tmp_path, *paths, **named))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        assert one.process.stdout is not None
        one.process.stdout.close()


class Load:
    """Clients that ask one thing after the other, each on a connection that it keeps, until told to stop."""

    def __init__(self, server: Running, path: str, body: bytes, kind: str, num_clients: int = 16) -> None:
        self.server, self.path, self.body, self.kind = server, path, body, kind
        self.statuses: Counter[int] = Counter()
        self.answers: list[Any] = []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.ask, daemon=True) for _ in range(num_clients)]
        for thread in self.threads:
            thread.start()

    def ask(self) -> None:
        connection = self.server.connect()
        while not self.stopped.is_set():
            try:
                connection.request("POST", self.path, self.body, {"Content-Type": self.kind})
                answer = connection.getresponse()
                said = json.loads(answer.read())
            except (OSError, http.client.HTTPException):  # it takes no more connections: it has ended
                break
            self.statuses[answer.status] += 1
            self.answers.append(said)
        connection.close()

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(60)


def test_sigterm_under_load_answers_all_that_was_accepted(run: Callable[..., Running], tmp_path: Path) -> None:
    server = run(write_fake(tmp_path, "pictures", batch_ms=20))
    load = Load(server, "/v1/models/pictures/predict", png(), "image/png")
    server.wait_for("request", 100)
    assert server.end() == 0
    load.stop()
    [ended] = server.events("ended")
    assert ended["accepted"] == ended["answered"] == sum(load.statuses.values())
    assert set(load.statuses) == {200}


def test_text_and_stream_are_finished_at_the_end(run: Callable[..., Running], tmp_path: Path) -> None:
    from websockets.sync.client import connect

    server = run(write_fake(tmp_path, "texts", input_ms=2))
    with (
        closing(server.connect()) as connection,
        connect(f"ws://127.0.0.1:{server.port}/v1/models/texts/stream") as session,
    ):
        session.send(json.dumps({"write": {"length": 1000}}))
        body = json.dumps({"inputs": [""], "options": {"length": 1000}})
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        connection.request("POST", "/v1/models/texts/predict", body, headers)
        answer = connection.getresponse()
        assert "piece" in json.loads(session.recv())
        server.process.send_signal(signal.SIGTERM)
        events = answer.read().decode()
        said = [json.loads(message) for message in session]
    assert events.endswith('data: {"done": true}\n\n')
    assert " 999" in events
    assert {"done": True} in said
    assert "shutting down" in said[-1]["error"]
    assert session.close_code == 1001
    assert server.process.wait(60) == 0


def test_second_signal_ends_it_at_once(run: Callable[..., Running], tmp_path: Path) -> None:
    server = run(write_fake(tmp_path, "texts", input_ms=100))
    with closing(server.connect()) as connection:
        connection.request("POST", "/v1/models/texts/predict", b"so", {"Content-Type": "text/plain"})
        time.sleep(0.3)
        server.process.send_signal(signal.SIGINT)
        server.wait_for("ending")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0


def test_new_bundles_take_over_and_no_request_fails(run: Callable[..., Running], tmp_path: Path) -> None:
    path = write_fake(tmp_path, "pictures", batch_ms=2, classes=["a0", "b0"])
    server = run(path)
    load = Load(server, "/v1/models/pictures/predict", png(), "image/png", 8)
    server.wait_for("request", 20)
    for version in (1, 2):
        write_fake(tmp_path, "pictures", batch_ms=2, classes=[f"a{version}", f"b{version}"])
        server.wait_for("reloaded", version)
    path.write_text("{")
    server.wait_for("reload failed, the old model stays")
    write_fake(tmp_path, "texts", "pictures")  # of another task
    server.wait_for("reload failed, the old model stays", 2)
    number = len(server.events("request"))
    server.wait_for("request", number + 20)
    load.stop()
    labels = [a["predictions"][0]["label"] for a in load.answers]
    assert set(load.statuses) == {200}
    assert set(labels) == {"b0", "b1", "b2"}
    assert labels[-1] == "b2"
    assert (
        "it was image-classification; restart the server"
        in server.events("reload failed, the old model stays")[1]["reason"]
    )
    with closing(server.connect()) as connection:
        connection.request("GET", "/v1/models/pictures")
        assert json.loads(connection.getresponse().read())["version"] == 3


def said_to(server: Running, *parts: bytes) -> bytes:
    """What a connection gets that sends these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:  # it has heard enough
            pass
        found = b""
        try:
            while part := connection.recv(1 << 16):
                found += part
        except OSError:
            pass
        return found


def test_connections_have_bounds(run: Callable[..., Running], tmp_path: Path) -> None:
    server = run(write_fake(tmp_path, "texts"))
    post = b"POST /v1/models/texts/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    assert said_to(server, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert b"longer than 65,536 bytes" in said_to(server, post + b"X-Long: " + b"x" * 200_000)
    assert b" 431 " in said_to(server, b"GET /" + b"x" * 100_000)
    trailers = b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X-T: y\r\n" * 20_000
    assert b" 431 " in said_to(server, post + trailers)
    huge = post + b"Content-Type: text/plain\r\nContent-Length: 99999999999999\r\n\r\n"
    assert b" 413 " in said_to(server, huge, b"x" * 1000)
    waits = post + b"Content-Type: text/plain\r\nContent-Length: 99999999999999\r\nExpect: 100-continue\r\n\r\n"
    assert said_to(server, waits).startswith(b"HTTP/1.1 413")
    tiny = b"Transfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n" + b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n"
    assert said_to(server, post + tiny).startswith(b"HTTP/1.1 200")
    assert not [e for e in server.events("request") if e["status"] >= 500]
    assert not server.events("server failed")


def test_work_of_those_who_have_left_is_dropped(run: Callable[..., Running], tmp_path: Path) -> None:
    server = run(write_fake(tmp_path, "sentences", batch_ms=500), max_batch=1)
    connections = [server.connect() for _ in range(3)]
    for connection in connections:
        connection.request("POST", "/v1/models/sentences/predict", b"Anna", {"Content-Type": "text/plain"})
        time.sleep(0.1)
    connections[1].close()
    for connection in (connections[0], connections[2]):
        with closing(connection), closing(connection.getresponse()) as answer:
            assert answer.status == 200
    server.wait_for("request", 3)
    assert sorted(e["status"] for e in server.events("request")) == [200, 200, 499]
    with closing(server.connect()) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    assert 'dolmen_inputs_total{model="sentences",outcome="answered"} 2.0' in text


def test_bodies_that_do_not_come_are_not_waited_for(run: Callable[..., Running], tmp_path: Path) -> None:
    server = run(write_fake(tmp_path, "texts"), timeout_s=0.5)
    head = b"POST /v1/models/texts/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
    assert said_to(server, head + b"Content-Length: 100\r\n\r\nhalf").startswith(b"HTTP/1.1 408")


@pytest.mark.slow
def test_heads_that_do_not_come_are_not_waited_for(run: Callable[..., Running], tmp_path: Path) -> None:
    server = run(write_fake(tmp_path, "texts"))
    assert b" 408 " in said_to(server, b"GET / HTTP/1.1\r\nHost: ")
    assert b" 408 " in said_to(server)


def test_what_can_not_be_served_is_one_sentence(tmp_path: Path) -> None:
    path = write_fake(tmp_path, "texts")

    def refused(pattern: str, models: dict[str, Path] | None = None, **choices: Any) -> None:
        with pytest.raises(UserError, match=pattern):
            serve(models or {"texts": path}, open_model=open_fake, **choices)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(f"127.0.0.1 port {port} can't be had .*; choose another with --port", port=port)
    refused("no address of this machine", host="nowhere.invalid")
    refused("there is no port 70000; choose one of 0 to 65535", port=70000)
    refused("max_batch = 0 is not possible; give a number above 0", max_batch=0)
    refused("timeout_s = nan is not possible", timeout_s=float("nan"))
    refused("max_wait_ms = -1 is not possible", max_wait_ms=-1)
    refused("the token must be of letters, digits and signs", token="two words")
    refused("the token must be", token="")
    refused("'a/b' can't be part of an address", {"a/b": path})
    refused("is no bundle", {"texts": tmp_path / "absent"}, port=0)


def test_names_come_from_paths(tmp_path: Path) -> None:
    assert named(["runs/digits", "b/my model.dolmen", "x=runs/digits"]) == {
        "digits": Path("runs/digits"),
        "my-model": Path("b/my model.dolmen"),
        "x": Path("runs/digits"),
    }
    with pytest.raises(UserError, match=r"a/m and b/m would both be m; name one, e\.g\.: dolmen serve other=b/m"):
        named(["a/m", "b/m"])
    with pytest.raises(UserError, match="needs a run or a bundle"):
        named([])


def test_decoders_do_not_write_into_the_log(run: Callable[..., Running], tmp_path: Path) -> None:
    server = run(write_fake(tmp_path, "recordings"))
    content = sound(300, format="MP3")
    with closing(server.connect()) as connection:
        for damaged in (content[:700], content[:1000] + bytes(500) + content[1500:], content):
            connection.request("POST", "/v1/models/recordings/predict", damaged, {"Content-Type": "audio/mpeg"})
            answer = connection.getresponse()
            answer.read()
        assert answer.status == 200
    assert server.end() == 0
    lines = [json.loads(line)["event"] for line in server.log.read_text().splitlines()]
    assert lines.count("request") == 3
