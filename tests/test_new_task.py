"""What a task costs: a folder (``trends``), a line in the catalogue, and nothing else. It does all that tasks do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trends.cases
from contract.case import Case
from contract.test_contract import *  # noqa: F403 - all that every task promises
from contract.test_contract import program
from contract.test_serving import *  # noqa: F403 - and where it is served
from runtime.server.test_page import CHROMIUM

import dolmen

FOLDER = Path(trends.cases.__file__).parent


@pytest.fixture(scope="module")
def task() -> str:
    return "trends"


def test_it_costs_one_folder() -> None:
    """Printed with ``-s``; what CONTRIBUTING says of it is kept true here."""
    lines = {p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in sorted(FOLDER.glob("*.*"))}
    print(lines, sum(lines.values()))
    assert sum(lines.values()) < 500
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in lines if name != "__init__.py")


def test_no_other_file_knows_it() -> None:
    package = Path(dolmen.__file__).parent
    files = [p for p in package.rglob("*") if p.suffix in {".py", ".js", ".html", ".jinja"}]
    assert not [p for p in files if "trends" in p.read_text(encoding="utf-8")]


@pytest.mark.slow
def test_its_panel_is_on_the_page(case: Case, run: Any) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    code = "import sys\nfrom dolmen.cli import main\nsys.exit(main(sys.argv[1:]))"
    server = subprocess.Popen(program(case, code, "serve", run.path, "--port", "0"), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
        assert address
        with playwright.sync_playwright() as running:
            browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            complaints: list[str] = []
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
            page.goto(f"{address[0]}/")
            page.wait_for_selector("#series")
            assert "says which way a series goes" in page.inner_text("body").lower()
            page.fill("#series", "0.1 0.3 0.5 0.7")
            page.keyboard.press("Enter")
            page.get_by_text("after 4 values").first.wait_for()
            assert page.inner_text("#trend").startswith(tuple(f"It {trend}, " for trend in run.predictor.labels()))
            if folder := os.environ.get("DOLMEN_SCREENSHOTS"):
                page.screenshot(path=f"{folder}/trends.png")
            page.fill("#series", "many")
            page.keyboard.press("Enter")
            page.wait_for_selector("#trend .error")
            assert "A series is numbers with spaces between them" in page.inner_text("#trend")
            assert [c for c in complaints if "status of 422" not in c] == []  # what is no number is refused
            browser.close()
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_the_command_line_knows_it(run: Any, data: Path, case: Case) -> None:
    code = f"{case.setup}\nimport sys\nfrom dolmen.cli import main\nsys.exit(main(sys.argv[1:]))"

    def call(*words: object) -> str:
        done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "works  trends" in call("tasks")
    assert "--hidden N" in call("train", "trends", "--help")
    assert json.loads(call("evaluate", run.path, data, "--json"))["num_examples"] == 40
    assert json.loads(call("predict", run.path, data / "one.txt", "--json"))["label"] in run.predictor.labels()
    assert call("watch", run.path, data / "one.txt", "--json").count("\n") == 10
