// The classes of a picture, and what the answer rests on.
import { make, percent, say, sentence } from "../dom.js";
import { PictureCard, picturePanel } from "../pictures.js";

const TOP = 5;
const SHADES = [[20, 20, 90], [200, 50, 80], [255, 220, 80]];

export const panel = (model) => picturePanel(model, ClassCard);

class ClassCard extends PictureCard {
  inWords(reply) {
    return `${reply.label}, ${percent(reply.probability)}`;
  }

  show(reply) {
    const sorted = Object.entries(reply.probabilities).sort((a, b) => b[1] - a[1]);
    const rows = sorted.slice(0, TOP).map(([name, p]) => {
      const bar = make("i");
      bar.style.width = `${100 * p}%`;
      return make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, bar), make("td", {}, percent(p)));
    });
    const table = make("table", { className: "bars", "aria-label": "Probabilities" }, make("tbody", {}, ...rows));
    const more = sorted.length > TOP ? make("p", { className: "file" }, `and ${sorted.length - TOP} less probable`) : null;
    this.image.alt = `${this.file.name || "pasted picture"}, taken for ${reply.label}`;
    this.buttons = this.model.explains ? this.heatButtons() : null;
    const title = make("h3", {}, `${reply.label} `, make("span", {}, percent(reply.probability)));
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
