// Files: drop, paste or choose them; each gets a card with the model's answer.
import { make, say } from "./dom.js";
import { ask } from "./server.js";

const AT_ONCE = 4;
const MOST_CARDS = 100;

/** A place to bring files to. `what` they are called, what the browser is to `accept`, and `card(file)` that makes a card. */
export function fileZone({ what, accept, card }) {
  const cards = make("ol", { className: "cards", "aria-label": "Answers, the latest first" });
  const input = make("input", { type: "file", id: "files", multiple: true, accept, className: "unseen" });
  const label = make("label", { htmlFor: "files", className: "drop" });
  label.innerHTML = '<svg viewBox="0 0 32 32" aria-hidden="true"><path d="M4 23v3a2 2 0 0 0 2 2h20a2 2 0 0 0 2-2v-3M16 4v18M9 11l7-7 7 7"/></svg>';
  label.append(
    make("b", {}, `Choose ${what}`),
    make("span", { className: "keys" }, "or drop them here, or paste one with Ctrl+V"),
  );
  const zone = make("div", {}, input, label);

  let running = 0;
  let shown = [];
  const waiting = [];
  function put(one) {
    cards.prepend(one.element);
    shown.unshift(one);
    for (const old of shown.splice(MOST_CARDS)) { old.element.remove(); old.leave(); }
  }
  function add(files) {
    for (const file of files) {
      const one = card(file);
      put(one);
      waiting.push(one);
    }
    next();
  }
  async function next() {
    while (running < AT_ONCE && waiting.length) {
      running++;
      waiting.shift().predict().finally(() => { running--; next(); });
    }
  }

  input.addEventListener("change", () => { add(input.files); input.value = ""; });
  input.addEventListener("keydown", (event) => { // browsers open it by the space bar only
    if (event.key === "Enter") { event.preventDefault(); input.click(); }
  });
  const heard = new AbortController();
  const on = (name, listener) => document.addEventListener(name, listener, { signal: heard.signal });
  on("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) { event.preventDefault(); add(files); }
  });
  on("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  on("dragleave", (event) => { if (!event.relatedTarget) zone.classList.remove("over"); });
  on("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    add(event.dataTransfer?.files ?? []);
  });
  const leave = () => { heard.abort(); for (const one of shown) one.leave(); shown = []; };
  return { zone, cards, put, leave };
}

/** A file and what the model says of it: `show(reply)` shows it, `inWords(reply)` says it. */
export class FileCard {
  constructor(model, address, file, waiting = "Looking") {
    Object.assign(this, { model, address, file });
    this.address_of_file = URL.createObjectURL(file);
    this.answer = make("div", {}, make("p", { className: "wait" }, waiting));
    this.element = make("li", { className: "card" }, this.answer);
  }

  get name() {
    return make("p", { className: "file" }, `${this.file.name || "pasted"}, ${Math.max(1, Math.round(this.file.size / 1024)).toLocaleString("en")} KiB`);
  }

  /** What is asked for besides the file. */
  options() {
    return {};
  }

  async post(verb, options = {}) {
    const most = this.model.limits.max_bytes;
    if (this.file.size > most) throw new Error(`The file is larger than the ${Math.floor(most / 1048576)} MiB that this server takes.`);
    if (!Object.keys(options).length) {
      const headers = { "Content-Type": "application/octet-stream" };
      return (await ask(`${this.address}/${verb}`, { method: "POST", headers, body: this.file })).json();
    }
    const form = new FormData();
    form.append("inputs", this.file);
    form.append("options", JSON.stringify(options));
    return (await ask(`${this.address}/${verb}`, { method: "POST", body: form })).json();
  }

  async predict() {
    try {
      const reply = (await this.post("predict", this.options())).predictions[0];
      this.show(reply);
      say(`${this.file.name || "The pasted file"}: ${this.inWords(reply)}`);
    } catch (error) {
      this.answer.replaceChildren(make("p", { className: "error", role: "alert" }, error.message), this.name);
    }
  }

  /** It is shown no more. */
  leave() {
    URL.revokeObjectURL(this.address_of_file);
  }
}
