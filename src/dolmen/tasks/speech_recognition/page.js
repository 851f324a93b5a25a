// Recordings and the microphone: what was said, when, and how surely.
import { make, percent, say, svg } from "../dom.js";
import { FileCard, fileZone } from "../files.js";
import { Live } from "../live.js";
import { optionFields } from "../options.js";
import { outline } from "../waveform.js";

const UNSURE = 0.5;
const SECOND_REM = 6; // what a second is wide at least, so that words can be read
const WIDEST_REM = 600;

export function panel(model) {
  const address = `v1/models/${encodeURIComponent(model.name)}`;
  const options = optionFields(model.options);
  const card = (file) => new SpeechCard(model, address, file, options.read);
  const files = fileZone({ what: "recordings", accept: "audio/*", card });
  const live = new Live(model, address, options.read, files.cards, spoken, (file, stretches, seconds) => {
    const added = card(file);
    files.put(added);
    if (stretches === null) return added.predict();
    const transcript = joined(stretches, seconds);
    say(`Stopped. ${transcript.text || nothing(transcript)}`);
    return added.show(transcript);
  });
  const bring = make("div", { className: "bring" }, live.button, files.zone);
  return {
    content: [bring, live.said, ...(options.element ? [options.element] : []), files.cards],
    leave: () => { live.leave(); files.leave(); },
  };
}

/** A word with how sure it is: as its underline, and as what is said of it. */
function wordElement(tag, { text, confidence, start_s }, properties = {}) {
  const element = make(tag, { className: "word", title: `${percent(confidence)} sure, at ${start_s.toFixed(2)} s`, ...properties }, text);
  element.style.setProperty("--sure", Math.max(0, 2 * confidence - 1).toFixed(3));
  element.classList.toggle("unsure", confidence < UNSURE);
  return element;
}

/** What stands for a transcript without words. */
function nothing({ rejected }) {
  return rejected ? "None of the commands" : "Nothing was heard";
}

/** A stretch of a stream as it is shown while the microphone is on. */
function spoken(stretch) {
  const words = stretch.words.flatMap((word) => [wordElement("span", word), " "]);
  return words.length ? words : [make("span", { className: "none" }, `(${nothing(stretch).toLowerCase()}) `)];
}

/** The stretches of a stream as one transcript. */
function joined(reply, seconds) {
  return {
    text: reply.map(({ text }) => text).filter(Boolean).join(" "),
    words: reply.flatMap(({ words }) => words),
    end_s: seconds,
    rejected: reply.length > 0 && reply.every(({ rejected }) => rejected),
  };
}

class SpeechCard extends FileCard {
  constructor(model, address, file, read) {
    super(model, address, file, "Listening");
    this.read = read;
    this.element.classList.add("sound");
  }

  options() {
    return this.read();
  }

  inWords(reply) {
    return reply.text || nothing(reply);
  }

  show(reply) {
    this.player?.pause();
    this.player = make("audio", { controls: true, src: this.address_of_file, preload: "metadata" });
    this.player.addEventListener("error", () => this.silent());
    this.words = reply.words.map((word, i) => {
      const label = `${word.text}, ${percent(word.confidence)} sure, at ${word.start_s.toFixed(1)} seconds`;
      const button = wordElement("button", word, { type: "button", tabIndex: i ? -1 : 0, "aria-label": label });
      button.addEventListener("click", () => this.play(word.start_s));
      return button;
    });
    const text = this.words.length
      ? make("p", { className: "transcript", role: "group", "aria-label": "What was said; arrow keys go from word to word" }, ...this.spaced())
      : make("p", { className: "transcript none" }, nothing(reply));
    text.addEventListener("keydown", (event) => this.arrow(event));
    const doubtful = reply.words.filter(({ confidence }) => confidence < UNSURE).length;
    const doubt = doubtful ? make("p", { className: "file" }, `${doubtful} of ${reply.words.length} words dashed: below ${100 * UNSURE} % sure`) : null;
    this.strip = make("div", { className: "strip", hidden: true, tabIndex: -1 }); // the words above are for keys
    const again = make("button", { type: "button" }, "Hear it again");
    again.title = "With the options as they are now";
    again.addEventListener("click", () => this.again(again));
    const scale = make("span", { className: "scale sure" }, "doubtful", make("i"), "sure");
    this.answer.replaceChildren(...[
      text, this.name, doubt, this.strip, this.player, this.readings(reply), this.table(reply),
      make("p", { className: "buttons" }, again, this.words.length ? scale : null),
    ].filter(Boolean));
    this.draw(reply);
    this.player.addEventListener("play", () => this.follow());
  }

  spaced() {
    return this.words.flatMap((word) => [word, " "]);
  }

  arrow(event) {
    const at = this.words.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: this.words.length - 1 }[event.key];
    if (at < 0 || this.words[to] === undefined) return;
    event.preventDefault();
    this.words[at].tabIndex = -1;
    this.words[to].tabIndex = 0;
    this.words[to].focus();
  }

  async again(button) {
    button.disabled = true;
    button.textContent = "Listening…";
    await this.predict();
    this.element.querySelector(".buttons button")?.focus();
  }

  play(seconds) {
    this.player.currentTime = seconds;
    this.player.play().catch(() => {}); // a browser that can't has said so by an error of the player
  }

  /** While it plays, the word that is said stands out. */
  follow() {
    const { player, words, head, strip } = this;
    const step = () => {
      const now = player.currentTime;
      this.times.forEach(([start, end], i) => words[i].classList.toggle("now", !player.paused && now >= start && now < end));
      if (head) {
        head.style.left = `${(100 * now) / this.seconds}%`;
        const { scrollLeft, clientWidth } = strip;
        if (head.offsetLeft < scrollLeft || head.offsetLeft > scrollLeft + clientWidth) strip.scrollLeft = head.offsetLeft - 20;
      }
      if (!player.paused && player.isConnected) requestAnimationFrame(step);
    };
    step();
  }

  /** The browser can't play the file. */
  silent() {
    this.player.replaceWith(make("p", { className: "file" }, "This browser can't play this kind of file."));
    for (const word of this.words) word.disabled = true;
  }

  async draw(reply) {
    this.times = reply.words.map((word) => [word.start_s, word.end_s]);
    this.seconds = Math.max(reply.end_s, 0.1);
    const path = await outline(this.file, this.seconds);
    if (path === null) return; // what the browser can't decode has no picture
    const drawing = svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { d: path }));
    const marks = reply.words.map((word, i) => { // its text may be as wide as up to the next, its line is as long as it
      const mark = wordElement("span", word);
      const room = Math.max(0.01, (reply.words[i + 1]?.start_s ?? this.seconds) - word.start_s);
      mark.style.left = `${(100 * word.start_s) / this.seconds}%`;
      mark.style.width = `${(100 * room) / this.seconds}%`;
      mark.style.setProperty("--own", `${Math.min(100, (100 * (word.end_s - word.start_s)) / room)}%`);
      return mark;
    });
    this.head = make("i", { className: "head" });
    const track = make("div", { className: "track", "aria-hidden": "true" }, drawing, ...marks, this.head);
    track.style.minWidth = `${Math.min(WIDEST_REM, SECOND_REM * this.seconds)}rem`;
    track.addEventListener("click", (event) => {
      const { left, width } = track.getBoundingClientRect();
      this.play((this.seconds * (event.clientX - left)) / width);
    });
    this.strip.append(track);
    this.strip.hidden = false;
  }

  table(reply) {
    if (!reply.words.length) return null;
    const head = make("tr", {}, ...["Word", "From", "To", "Sure"].map((text) => make("th", { scope: "col" }, text)));
    const rows = reply.words.map((word) => make(
      "tr", {}, make("th", { scope: "row" }, word.text), make("td", {}, `${word.start_s.toFixed(2)} s`),
      make("td", {}, `${word.end_s.toFixed(2)} s`), make("td", {}, percent(word.confidence)),
    ));
    const table = make("table", { className: "counts" }, make("thead", {}, head), make("tbody", {}, ...rows));
    return make("details", {}, make("summary", {}, "Words and times"), table);
  }

  readings(reply) {
    if (!reply.alternatives) return null;
    const rows = reply.alternatives.map(({ text, probability }) => {
      const bar = make("i");
      bar.style.width = `${100 * probability}%`;
      return make("tr", {}, make("th", { scope: "row" }, text || "(nothing)"), make("td", {}, bar), make("td", {}, percent(probability)));
    });
    return make("table", { className: "bars", "aria-label": "Most probable readings" }, make("tbody", {}, ...rows));
  }

  leave() {
    this.player?.pause();
    super.leave();
  }
}
