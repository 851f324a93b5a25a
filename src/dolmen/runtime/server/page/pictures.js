// Pictures: drop, paste or choose them; of a classifier see the classes, and what the answer rests on.
import { ask, make, say, sentence } from "./page.js";

const AT_ONCE = 4;
const MOST_CARDS = 100;
const TOP = 5;
const SHADES = [[20, 20, 90], [200, 50, 80], [255, 220, 80]];
export const percent = (p) => (p > 0.9995 && p < 1 ? "> 99.9 %" : p > 0 && p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);

/** A place to bring pictures to; each gets a card of the kind. */
export function picturePanel(model, Kind = ClassCard) {
  const address = `v1/models/${encodeURIComponent(model.name)}`;
  const cards = make("ol", { className: "cards", "aria-label": "Answers, the latest first" });
  const input = make("input", { type: "file", id: "files", multiple: true, accept: "image/*", className: "unseen" });
  const label = make("label", { htmlFor: "files", className: "drop" });
  label.innerHTML = '<svg viewBox="0 0 32 32" aria-hidden="true"><path d="M4 23v3a2 2 0 0 0 2 2h20a2 2 0 0 0 2-2v-3M16 4v18M9 11l7-7 7 7"/></svg>';
  label.append(
    make("b", {}, "Choose pictures"),
    make("span", { className: "keys" }, "or drop them here, or paste one with Ctrl+V"),
  );
  const zone = make("div", {}, input, label);

  let running = 0;
  const waiting = [];
  function add(files) {
    for (const file of files) {
      const card = new Kind(model, address, file);
      cards.prepend(card.element);
      waiting.push(card);
    }
    while (cards.children.length > MOST_CARDS) cards.lastChild.remove();
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
  return { content: [zone, cards], leave: () => heard.abort() };
}

/** A picture and what the model says of it: `show(found)` shows it, `inWords(found)` says it. */
export class Card {
  constructor(model, address, file) {
    Object.assign(this, { model, address, file });
    this.address_of_file = URL.createObjectURL(file);
    this.image = make("img", { alt: "", src: this.address_of_file });
    this.picture = make("div", { className: "picture" }, this.image);
    this.image.addEventListener("load", () => this.image.classList.toggle("small", this.image.naturalWidth < 128));
    this.image.addEventListener("error", () => {
      this.image.remove();
      this.picture.append(make("p", {}, "No preview of this file"));
    });
    this.answer = make("div", {}, make("p", { className: "wait" }, "Looking"));
    this.element = make("li", { className: "card" }, this.picture, this.answer);
  }

  get name() {
    return make("p", { className: "file" }, `${this.file.name || "pasted"}, ${Math.max(1, Math.round(this.file.size / 1024)).toLocaleString("en")} KiB`);
  }

  async post(verb, options = null) {
    const most = this.model.limits.max_bytes;
    if (this.file.size > most) throw new Error(`The file is larger than the ${Math.floor(most / 1048576)} MiB that this server takes.`);
    if (options === null) {
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
      const found = (await this.post("predict")).predictions[0];
      this.show(found);
      say(`${this.file.name || "The pasted picture"}: ${this.inWords(found)}`);
    } catch (error) {
      this.answer.replaceChildren(make("p", { className: "error", role: "alert" }, error.message), this.name);
    }
  }
}

class ClassCard extends Card {
  inWords(found) {
    return `${found.label}, ${percent(found.probability)}`;
  }

  show(found) {
    const sorted = Object.entries(found.probabilities).sort((a, b) => b[1] - a[1]);
    const rows = sorted.slice(0, TOP).map(([name, p]) => {
      const bar = make("i");
      bar.style.width = `${100 * p}%`;
      return make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, bar), make("td", {}, percent(p)));
    });
    const table = make("table", { className: "bars", "aria-label": "Probabilities" }, make("tbody", {}, ...rows));
    const more = sorted.length > TOP ? make("p", { className: "file" }, `and ${sorted.length - TOP} less probable`) : null;
    this.image.alt = `${this.file.name || "pasted picture"}, taken for ${found.label}`;
    this.buttons = this.model.explains ? this.heatButtons() : null;
    const title = make("h3", {}, `${found.label} `, make("span", {}, percent(found.probability)));
    this.answer.replaceChildren(...[title, this.name, table, more, this.buttons].filter(Boolean));
  }

  heatButtons() {
    const button = make("button", { type: "button", "aria-pressed": "false" }, "Show what it rests on");
    const scale = make("span", { className: "scale", hidden: true }, "less", make("i"), "more");
    button.addEventListener("click", async () => {
      if (!this.canvas) {
        button.disabled = true;
        button.textContent = "Looking closer…";
        try {
          this.draw(await this.post("explain"));
        } catch (error) {
          this.buttons.append(make("span", { className: "error", role: "alert" }, sentence(error.message)));
          button.textContent = "Show what it rests on";
          button.disabled = false;
          return;
        }
        button.disabled = false;
        button.focus();
        this.canvas.hidden = true;
      }
      this.canvas.hidden = !this.canvas.hidden;
      scale.hidden = this.canvas.hidden;
      button.setAttribute("aria-pressed", String(!this.canvas.hidden));
      button.textContent = this.canvas.hidden ? "Show what it rests on" : "Hide what it rests on";
      say(this.canvas.hidden ? "The plain picture is shown" : `The heat map is shown; the answer rests most on ${this.where}`);
    });
    return make("div", { className: "buttons" }, button, scale);
  }

  draw({ heat_map: rows, area }) {
    this.canvas = make("canvas", { width: rows[0].length, height: rows.length, "aria-hidden": "true" });
    const context = this.canvas.getContext("2d");
    const pixels = context.createImageData(rows[0].length, rows.length);
    let best = [0, 0, -1];
    rows.flat().forEach((value, i) => {
      if (value > best[2]) best = [i % rows[0].length, Math.floor(i / rows[0].length), value];
      const at = Math.min(value * 2, 1.999);
      const [low, high] = [SHADES[Math.floor(at)], SHADES[Math.floor(at) + 1]];
      low.forEach((shade, c) => { pixels.data[4 * i + c] = shade + (high[c] - shade) * (at % 1); });
      pixels.data[4 * i + 3] = 255 * (0.45 + 0.3 * value);
    });
    context.putImageData(pixels, 0, 0);
    const side = (at, size, names) => names[Math.min(2, Math.floor((3 * (at + 0.5)) / size))];
    this.where = `the ${side(best[1], rows.length, ["top", "middle", "bottom"])} ${side(best[0], rows[0].length, ["left", "centre", "right"])}`;
    this.area = area;
    this.picture.append(this.canvas);
    this.place();
    new ResizeObserver(() => this.place()).observe(this.picture);
  }

  /** Lay the map where the network saw the picture: the image may be letterboxed, and the network may see a part only. */
  place() {
    const { naturalWidth: w, naturalHeight: h, clientWidth: width, clientHeight: height, offsetLeft, offsetTop } = this.image;
    if (!w || !this.image.isConnected) { this.canvas.style.inset = "0"; this.canvas.style.width = this.canvas.style.height = "100%"; return; }
    const scale = Math.min(width / w, height / h);
    const [left, top, right, bottom] = this.area;
    const style = this.canvas.style;
    style.left = `${offsetLeft + (width - w * scale) / 2 + left * w * scale}px`;
    style.top = `${offsetTop + (height - h * scale) / 2 + top * h * scale}px`;
    style.width = `${(right - left) * w * scale}px`;
    style.height = `${(bottom - top) * h * scale}px`;
  }
}
