"""The page in a real browser, by keyboard, in the dark, and on a phone."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime.server.fakes import png, sound, write_fake
from runtime.server.test_process import Running

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--use-fake-ui-for-media-stream"]
FLAGS += ["--use-fake-device-for-media-stream"]
GIVE = """([kind, base64, name, type]) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name ?? "given.png", { type: type ?? "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""
Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser whose microphone hears one recording again and again."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with playwright.sync_playwright() as running:
        spoken = tmp_path_factory.mktemp("microphone") / "spoken.wav"
        spoken.write_bytes(sound(300, 2000, rate=48000))
        flags = [*FLAGS, f"--use-file-for-fake-audio-capture={spoken}"]
        found = running.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Visit]:
    """Open the page of a server of the fakes; whatever the browser complains of fails the test."""
    complaints: list[str] = []
    servers: list[Running] = []
    contexts: list[Any] = []

    def begin(token: str | None = None, *, streams: bool = True, more: tuple[Path, ...] = (), **of_context: Any) -> Any:
        paths = [
            write_fake(tmp_path, "pictures", classes=["night", "dusk", "day"]),
            write_fake(tmp_path, "sentences"),
            write_fake(tmp_path, "texts", input_ms=2),
            write_fake(tmp_path, "objects"),
            write_fake(tmp_path, "recordings", streams=streams),
            *more,
        ]
        servers.append(Running(tmp_path, *paths, token=token))
        contexts.append(browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **of_context}))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        # Choosers are given to us only once the browser knows that we want them, which asking for one when it is
        # about to open doesn't wait for: the key could be first, and the chooser be lost.
        page.on("filechooser", lambda _: None)
        page.goto(f"http://127.0.0.1:{servers[-1].port}/")
        return page

    yield begin
    for context in contexts:
        context.close()
    for server in servers:
        server.end()
        assert server.process.stdout is not None
        server.process.stdout.close()
    refused = "Failed to load resource: the server responded with a status of 4"  # tests mean some of these
    assert [c for c in complaints if not c.startswith(refused)] == []


def tab_to(page: Any, what: str) -> None:
    """Press Tab until an element has the focus, and it can be seen that it has."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("(what) => document.activeElement.matches(what)", what):
            ring = "getComputedStyle({}).outlineStyle"
            focused, beside = (
                ring.format("document.activeElement"),
                ring.format("document.activeElement.nextElementSibling"),
            )
            assert "solid" in (
                page.evaluate(focused),
                page.evaluate(f"document.activeElement.nextElementSibling && {beside}"),
            )
            return
    raise AssertionError(f"Tab never reaches {what}")


def test_everything_works_by_keyboard(visit: Visit) -> None:
    page = visit()
    page.wait_for_selector(".drop")
    page.wait_for_load_state("networkidle")  # a browser that is still busy with the page loses the key
    tab_to(page, "#files")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files({"name": "light.png", "mimeType": "image/png", "buffer": png(size=(60, 20))})
    assert "day" in page.inner_text(".card h3")
    tab_to(page, ".card button")
    page.keyboard.press("Enter")
    page.wait_for_selector(".card canvas")
    assert page.get_attribute(".card button", "aria-pressed") == "true"
    assert "rests most on the middle centre" in page.inner_text("#status")
    picture, heat = page.locator(".card img").bounding_box(), page.locator(".card canvas").bounding_box()
    assert heat["width"] == pytest.approx(picture["width"] / 3, abs=1)  # the network sees the square in the middle
    assert heat["x"] == pytest.approx(picture["x"] + picture["width"] / 3, abs=1)
    page.keyboard.press("Enter")
    assert not page.is_visible(".card canvas")

    page.keyboard.press("Control+Home")
    page.focus("nav a >> nth=0")
    tab_to(page, "nav a[href='#/sentences']")
    page.keyboard.press("Enter")
    page.wait_for_selector("textarea")
    tab_to(page, "textarea")
    page.keyboard.type("Anna met 12 people\nin Rome")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("mark")
    assert re.findall(r"(\w+) (PER|DATE) \d+ %", page.inner_text("section").replace("\n", " ")) == [
        ("Anna", "PER"), ("12", "DATE"), ("Rome", "PER"),
    ]  # fmt: skip
    assert page.inner_text("#status") == "3 found"

    page.focus("nav a >> nth=1")
    tab_to(page, "nav a[href='#/texts']")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=How it begins")
    tab_to(page, "textarea")
    page.keyboard.type("So")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("output:has-text(' 3 4')")
    assert page.is_visible("text=Writing…")
    page.focus("button:has-text('Stop')")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=/characters in .* s, stopped/")
    assert page.inner_text("output").startswith("So 0 1 2")
    assert page.is_visible("button:has-text('Write on')")


def test_text_is_written_to_its_end_with_the_options(visit: Visit) -> None:
    page = visit()
    page.goto(page.url.split("#")[0] + "#/texts")
    page.wait_for_selector("text=How it begins")
    page.click("text=Options")
    assert page.locator(".options label").all_inner_texts() == [
        "Length", "Temperature", "Top k", "Top p", "Repetition penalty", "Stop", "Seed",
    ]  # fmt: skip
    page.fill("#option-length", "5")
    page.fill("#option-seed", "7")
    page.click("button:has-text('Write')")
    page.wait_for_selector("text=/^10,?\\d* characters in|^1\\d characters in/")
    assert page.inner_text("output") == " 7 8 9 10 11"
    page.click("button:has-text('Write on')")
    page.wait_for_selector("text=/^ *7 8 9 10 11 7 8 9 10 11$/")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_pictures_are_pasted_and_dropped(visit: Visit, kind: str) -> None:
    page = visit()
    page.wait_for_selector(".drop")
    page.evaluate(GIVE, [kind, base64.b64encode(png(0)).decode()])
    assert "night" in page.inner_text(".card h3")
    assert page.locator(".bars tr").count() == 3


def test_objects_are_counted_and_the_slider_shows_more_of_them(visit: Visit) -> None:
    page = visit()
    page.wait_for_selector(".drop")
    page.goto(page.url.split("#")[0] + "#/objects")
    page.wait_for_selector("h1:has-text('objects')")
    page.evaluate(GIVE, ["drop", base64.b64encode(png(size=(400, 200))).decode()])
    page.wait_for_selector(".boxes g")
    assert page.inner_text(".card h3") == "1 object"
    assert page.inner_text(".counts tbody").split("\t") == ["light", "1", "90.0 %"]
    box, picture = page.locator(".boxes rect").first.bounding_box(), page.locator(".card img").bounding_box()
    assert abs(box["width"] - picture["width"] / 2) < 6  # as wide as its line more
    assert abs(box["x"] - picture["x"]) < 6
    tab_to(page, "input[type=range]")
    page.keyboard.press("Home")
    page.wait_for_selector(".card h3:has-text('2 objects')")
    assert page.locator(".boxes g title").all_text_contents()[0] == "dark, 20.0 %"
    page.click(".card button")
    assert page.inner_text(".card h3") == "1 object"


def test_what_is_no_picture_is_a_sentence(visit: Visit) -> None:
    page = visit()
    page.wait_for_selector(".drop")
    page.set_input_files("#files", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"none"})
    assert page.inner_text(".card [role=alert]") == "The picture can't be read: not a picture."


def test_it_is_dark_where_the_person_is(visit: Visit) -> None:
    page = visit(color_scheme="dark")
    page.wait_for_selector(".drop")
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
    assert brightness[0] < 150
    assert brightness[1] > 600


def test_it_fits_a_phone(visit: Visit) -> None:
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True)
    page.wait_for_selector(".drop")
    page.evaluate(GIVE, ["paste", base64.b64encode(png(size=(400, 100))).decode()])
    page.wait_for_selector(".bars")
    page.tap(".card button")
    page.wait_for_selector(".card canvas")
    for name in ("pictures", "sentences", "texts", "objects", "recordings"):
        page.goto(page.url.split("#")[0] + f"#/{name}")
        page.wait_for_selector(f"h1:has-text('{name}')")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        sizes = page.evaluate(
            "[...document.querySelectorAll('button, nav a')].map((b) => b.getBoundingClientRect().height)"
        )
        assert all(size >= 24 for size in sizes if size)  # WCAG 2.2, 2.5.8


def test_token_is_asked_for_until_it_is_right(visit: Visit) -> None:
    page = visit(token="secret")
    page.wait_for_selector("dialog[open]")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=That was not the token.")
    page.keyboard.type("secret")
    page.keyboard.press("Enter")
    page.wait_for_selector(".drop")
    page.evaluate(GIVE, ["paste", base64.b64encode(png(255)).decode()])
    assert "day" in page.inner_text(".card h3")


# ---- tasks of other packages

PANEL = """
import { make } from "../dom.js";
import { ask } from "../server.js";

export function panel(model) {
  const button = make("button", {}, `How long is ${model.name}?`);
  const answer = make("output");
  button.addEventListener("click", async () => {
    const body = JSON.stringify({ inputs: [model.name] });
    const headers = { "Content-Type": "application/json" };
    const reply = await ask(`v1/models/${model.name}/predict`, { method: "POST", headers, body });
    answer.textContent = (await reply.json()).predictions[0].length;
  });
  return { content: [button, answer] };
}
"""


def test_a_panel_comes_from_the_task_s_own_package(visit: Visit, tmp_path: Path) -> None:
    package = tmp_path / "lib" / "toy_of_the_page"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "page.js").write_text(PANEL)
    toy = write_fake(tmp_path, "lengths", path=str(package.parent), package=package.name)
    page = visit(more=(toy,))
    page.wait_for_selector(".drop")
    page.goto(page.url.split("#")[0] + "#/lengths")
    page.click("text=How long is lengths?")
    page.wait_for_selector("output:has-text('7')")
    assert page.inner_text("#facts").startswith("Says how long a text is. A bundle in fp32.")


def test_a_task_without_a_panel_gets_a_plain_one(visit: Visit, tmp_path: Path) -> None:
    page = visit(more=(write_fake(tmp_path, "lengths"),))
    page.wait_for_selector(".drop")
    page.goto(page.url.split("#")[0] + "#/lengths")
    page.wait_for_selector("h1:has-text('lengths')")
    assert page.inner_text("label[for=text]") == "Text"
    tab_to(page, "textarea")
    page.keyboard.type("four")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("pre:has-text('\"length\": 4')")
    page.click("text=Options")
    page.fill("#option-factor", "3")
    page.click("button:has-text('Send')")
    page.wait_for_selector("pre:has-text('\"length\": 12')")
    page.fill("#option-factor", "0")
    page.evaluate("document.querySelector('form').noValidate = true")
    page.click("button:has-text('Send')")
    page.wait_for_selector("pre:has-text('Options.factor: input should be greater than or equal to 1')")


# ---- speech


def heard_by(page: Any, name: str = "recordings") -> None:
    """Go to the model of recordings."""
    page.wait_for_selector("nav a")
    page.goto(page.url.split("#")[0] + f"#/{name}")
    page.wait_for_selector(".speak")


def words(page: Any, place: str = ".card") -> list[str]:
    found: list[str] = page.locator(f"{place} >> nth=0").locator(".transcript .word").all_inner_texts()
    return found


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_recordings_are_read_and_played_from_a_word(visit: Visit, kind: str) -> None:
    page = visit()
    heard_by(page)
    content = base64.b64encode(sound(300, 2000, 300)).decode()
    page.evaluate(GIVE, [kind, content, "answers.wav", "audio/wav"])
    page.wait_for_selector(".track .word")
    assert words(page) == ["yes", "no", "yes"]
    assert page.inner_text("#status") == "answers.wav: yes no yes"
    sure, unsure = (
        page.evaluate("(i) => getComputedStyle(document.querySelectorAll('button.word')[i]).borderBottomColor", i)
        for i in (0, 1)
    )
    assert sure != unsure
    page.click("summary:has-text('Words and times')")
    rows = [row.split("\t") for row in page.locator(".counts tbody tr").all_inner_texts()]
    assert rows == [
        ["yes", "0.40 s", "0.80 s", "97.0 %"],
        ["no", "1.60 s", "2.00 s", "60.0 %"],
        ["yes", "2.80 s", "3.20 s", "97.0 %"],
    ]
    mark, track = (page.locator(q).bounding_box() for q in (".track .word >> nth=1", ".track"))
    assert (mark["x"] - track["x"]) / track["width"] == pytest.approx(1.6 / 4, abs=0.02)

    page.keyboard.press("Control+Home")
    tab_to(page, "button.word")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "no"
    page.keyboard.press("Enter")
    page.wait_for_selector("button.word.now:has-text('no')")
    at = page.evaluate("document.querySelector('audio').currentTime")
    assert 1.5 <= at <= 2.2


def test_options_change_what_is_heard(visit: Visit) -> None:
    page = visit()
    heard_by(page)
    page.set_input_files("#files", {"name": "a.wav", "mimeType": "audio/wav", "buffer": sound(300, 2000)})
    page.wait_for_selector("button.word")
    page.click("summary:has-text('Options')")
    assert page.locator("#option-lm").count() == 0
    page.fill("#option-command", "yes no\nno\n")
    page.fill("#option-silence_s", "2")
    page.fill("#option-n_best", "2")
    page.click("text=Hear it again")
    page.wait_for_selector(".bars")
    assert page.locator(".bars th").all_inner_texts() == ["yes no", "no"]
    assert page.evaluate("document.activeElement.textContent") == "Hear it again"
    page.fill("#option-command", "perhaps")
    page.click("text=Hear it again")
    page.wait_for_selector(".card [role=alert]")
    assert "perhaps" in page.inner_text(".card [role=alert]")


def test_the_microphone_streams(visit: Visit) -> None:
    page = visit(token="secret")
    page.wait_for_selector("dialog[open]")
    page.keyboard.type("secret")
    page.keyboard.press("Enter")
    heard_by(page)
    page.focus("nav a >> nth=-1")
    tab_to(page, ".speak")
    page.keyboard.press("Enter")
    page.wait_for_selector(".partial:has-text('yes'), .partial:has-text('no')")
    grey, ink = (
        page.evaluate(f"getComputedStyle(document.querySelector('{q}')).color") for q in (".partial", "[role=log]")
    )
    assert grey != ink
    assert page.inner_text(".speak b") == "Stop"
    page.wait_for_selector("[role=log] .word >> nth=1")
    levels = []
    for _ in range(25):
        levels.append(float(page.evaluate("document.querySelector('.meter').style.getPropertyValue('--level')")))
        page.wait_for_timeout(100)
    assert max(levels) > 0.7
    assert min(levels) < 0.1
    assert page.get_attribute("[role=log]", "aria-live") == "polite"
    live = page.locator("[role=log] .word").all_inner_texts()
    assert "yesno" in "".join(live) or "noyes" in "".join(live)
    page.keyboard.press("Enter")  # the button has kept the focus
    page.wait_for_selector(".card audio")
    assert page.inner_text(".speak b") == "Speak"
    assert words(page)[: len(live)] == live
    assert page.locator("[role=log]").count() == 0
    assert page.inner_text("#status").startswith("Stopped. ")
    page.click("button.word >> nth=0")
    page.wait_for_selector("button.word.now")
    every = words(page)
    page.click("text=Hear it again")  # as a file it says the same
    page.wait_for_selector("button:has-text('Listening…')", state="detached")
    assert words(page) == every


def test_the_microphone_records_for_a_model_that_needs_the_whole(visit: Visit) -> None:
    page = visit(streams=False)
    heard_by(page)
    page.click(".speak")
    page.wait_for_selector(".speak span:has-text('0:03')")
    assert page.locator("[role=log]").count() == 0
    page.click(".speak")
    page.wait_for_selector(".card button.word")
    assert {"yes", "no"} <= set(words(page))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NotAllowedError", "The microphone was refused. Allow it in the browser's settings for this page"),
        ("NotFoundError", "There is no microphone here."),
        ("AbortError", "The microphone can't be used (AbortError). Choose a recording instead."),
        (None, "Browsers let pages listen over HTTPS or at 127.0.0.1 only."),
    ],
)
def test_a_refused_microphone_is_a_sentence(visit: Visit, name: str | None, said: str) -> None:
    page = visit()
    heard_by(page)
    if name is None:
        page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    else:
        page.evaluate(
            "(name) => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', name); }; }",
            name,
        )
    page.click(".speak")
    page.wait_for_selector(".error[role=alert]:not([hidden])")
    assert page.inner_text(".error[role=alert]:not([hidden])").startswith(said)
    assert page.inner_text(".speak b") == "Speak"


def test_speech_fits_a_phone(visit: Visit) -> None:
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True)
    heard_by(page)
    page.set_input_files("#files", {"name": "a.wav", "mimeType": "audio/wav", "buffer": sound(*[300, 2000] * 10)})
    page.wait_for_selector(".track .word")
    page.click("summary:has-text('Options')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('.strip').scrollWidth") > 390  # it scrolls for itself
    heights = page.evaluate(
        "[...document.querySelectorAll('button.word')].map((b) => b.getBoundingClientRect().height)"
    )
    assert min(heights) >= 24
