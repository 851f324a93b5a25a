// Speaking: the microphone over a stream, and what is heard while it is heard.
import { make, say } from "./dom.js";
import { level, listen, wav } from "./microphone.js";
import { openSession } from "./server.js";

const MOST_KEPT_S = 600; // of sound, to be played again
const MOST_BEHIND_S = 20;
const ICONS = {
  off: '<svg viewBox="0 0 32 32" aria-hidden="true"><rect x="12" y="4" width="8" height="14" rx="4"/><path d="M7 15a9 9 0 0 0 18 0M16 24v4M11 28h10"/></svg>',
  on: '<svg viewBox="0 0 32 32" aria-hidden="true"><rect x="8" y="8" width="16" height="16" rx="3"/></svg>',
};

/**
 * A button that listens until it is pressed again.
 * `shown(result)` gives the elements of a result that is final; of others the text is shown. `done(file, results, seconds)`
 * is given the sound and all final results; null where the model has to hear it as a whole.
 */
export class Live {
  constructor(model, address, options, place, shown, done) {
    Object.assign(this, { model, address, options, place, elements: shown, done });
    this.button = make("button", { type: "button", className: "drop speak" });
    this.said = make("p", { className: "error", role: "alert", hidden: true });
    this.button.addEventListener("click", () => (this.running ? this.stop() : this.start()));
    this.ready();
  }

  ready() {
    this.shown("Speak", "into this device's microphone");
  }

  /** What the button says. */
  shown(title, more, on = false) {
    this.button.innerHTML = ICONS[on ? "on" : "off"];
    this.note = make("span", {}, more);
    this.meter = make("i", { className: "meter", hidden: !on });
    this.button.append(make("b", {}, title), this.note, this.meter);
    this.button.classList.toggle("on", on);
  }

  async start() {
    if (this.button.getAttribute("aria-disabled")) return;
    this.button.setAttribute("aria-disabled", "true"); // a disabled one would lose the focus
    this.said.hidden = true;
    this.shown("Speak", "The browser asks for the microphone…");
    const run = { pieces: [], num_samples: 0, results: [], session: null, sound: null };
    try {
      run.sound = await listen((piece) => this.heard(run, piece), () => this.stop("The microphone has gone."));
      if (this.gone) { run.sound.stop(); return; }
      this.running = run;
      if (this.model.streams) await this.open(run);
      this.shown("Stop", "0:00", true);
      say("Listening");
    } catch (error) {
      this.close(run);
      this.fail(error.message);
    } finally {
      this.button.removeAttribute("aria-disabled");
    }
  }

  async open(run) {
    this.log = make("span", { role: "log", "aria-label": "What was heard", "aria-live": "polite" });
    this.partial = make("span", { className: "partial", "aria-live": "off" }, "Say something…");
    run.element = make("li", { className: "card sound" }, make("p", { className: "transcript" }, this.log, this.partial));
    this.place.prepend(run.element);
    const session = await openSession(`${this.address}/stream`);
    await session.send({ begin: { ...this.options(), rate: run.sound.rate, partial: true } });
    run.session = session;
    for (const piece of run.pieces) this.send(run, piece);
  }

  heard(run, piece) {
    if (this.ending) return;
    run.num_samples += piece.length;
    const seconds = run.sound ? run.num_samples / run.sound.rate : 0;
    if (seconds <= MOST_KEPT_S) run.pieces.push(piece);
    if (!run.sound) return;
    this.meter.style.setProperty("--level", level(piece).toFixed(3));
    if (this.button.classList.contains("on")) this.note.textContent = `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
    if (run.session) this.send(run, piece);
    const { max_seconds: most, max_bytes: bytes } = this.model.limits;
    const room = Math.min(most, (bytes - 1000) / (2 * run.sound.rate)) - 1;
    if (!this.model.streams && seconds > room) this.stop(`This model takes ${Math.floor(room)} seconds at once.`);
  }

  send(run, piece) {
    if (run.session.behind > 2 * MOST_BEHIND_S * run.sound.rate) {
      this.stop("The server hears slower than is spoken.");
      return;
    }
    run.session.send(piece).then(({ results }) => this.results(run, results)).catch((error) => this.stop(error.message));
  }

  results(run, results) {
    for (const one of results) {
      if (!one.final) {
        this.partial.textContent = one.text;
        continue;
      }
      run.results.push(one);
      this.log.append(make("span", {}, ...this.elements(one)));
      this.partial.textContent = "";
    }
  }

  /** Hear the rest and make a card of it; with a sentence if something ended it. */
  async stop(why = "") {
    const run = this.running;
    if (!run || this.ending) return;
    this.ending = true;
    run.sound.stop();
    this.shown("Speak", "Hearing the rest…");
    try {
      if (run.session) this.results(run, (await run.session.send({ finish: true })).results);
    } catch (error) {
      why ||= error.message;
    }
    this.close(run);
    this.ready();
    if (why) this.fail(why);
    if (!run.pieces.length || this.gone) return;
    const time = new Date().toLocaleTimeString("en-GB").replaceAll(":", ".");
    const file = wav(run.pieces, run.sound.rate, `spoken at ${time}.wav`);
    this.done(file, this.model.streams ? run.results : null, run.num_samples / run.sound.rate);
  }

  close(run) {
    run.sound?.stop();
    run.session?.close();
    run.element?.remove();
    this.running = null;
    this.ending = false;
  }

  fail(text) {
    this.ready();
    this.said.textContent = text;
    this.said.hidden = false;
  }

  leave() {
    this.gone = true;
    if (this.running) this.close(this.running);
  }
}
