// Objects in pictures: boxes over the picture, how many of each class, and a slider for how sure is sure enough.
import { make, percent, say, svg } from "../dom.js";
import { PictureCard, picturePanel } from "../pictures.js";

const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"]; // Okabe & Ito (2008)
const LOWEST = 0.05; // scores below this are not asked for
const NAMED = 25; // more boxes than this have their names in the table only

export const panel = (model) => picturePanel(model, BoxCard);

/** [{name, score, box}] of an answer, best first. */
function objects(reply) {
  return reply.labels.map((name, i) => ({ name, score: reply.scores[i], box: reply.boxes_xyxy[i] }));
}

class BoxCard extends PictureCard {
  constructor(...given) {
    super(...given);
    this.element.classList.add("wide");
  }

  inWords(reply) {
    const counts = this.counts(objects(reply));
    return counts.map(([name, those]) => `${those.length} ${name}`).join(", ") || "nothing found";
  }

  counts(shown) {
    const classes = new Map();
    for (const one of shown) classes.set(one.name, [...(classes.get(one.name) ?? []), one]);
    return [...classes].sort((a, b) => b[1].length - a[1].length);
  }

  show(reply) {
    this.size = [reply.width, reply.height];
    this.chosen = objects(reply);
    this.all = null;
    this.title = make("h3");
    this.table = make("div");
    this.drawn = svg("svg", { viewBox: `0 0 ${reply.width} ${reply.height}`, role: "img", class: "boxes" });
    this.picture.append(this.drawn);
    this.answer.replaceChildren(this.title, this.name, this.table, this.slider());
    this.draw(this.chosen);
    new ResizeObserver(() => this.letters()).observe(this.picture);
  }

  slider() {
    const input = make("input", { type: "range", min: LOWEST, max: 0.95, step: 0.01, value: 0.5 });
    const shown = make("output", {}, "as chosen on validation");
    const back = make("button", { type: "button", hidden: true }, "As chosen on validation");
    const error = make("span", { className: "error", role: "alert" });
    input.addEventListener("input", async () => {
      shown.textContent = Number(input.value).toFixed(2);
      back.hidden = false;
      try {
        this.all ??= this.post("predict", { threshold: LOWEST }).then((answer) => objects(answer.predictions[0]));
        const all = await this.all;
        this.draw(all.filter(({ score }) => score >= Number(input.value)));
      } catch (problem) {
        this.all = null;
        error.textContent = problem.message;
      }
    });
    input.addEventListener("change", () => say(`${this.title.textContent} from a score of ${input.value} on`));
    back.addEventListener("click", () => {
      shown.textContent = "as chosen on validation";
      back.hidden = true;
      this.draw(this.chosen);
      input.focus();
    });
    const label = make("label", { className: "slider" }, "Shown from a score of ", shown, input);
    return make("div", {}, label, back, error);
  }

  draw(shown) {
    const counts = this.counts(shown);
    this.title.textContent = shown.length === 1 ? "1 object" : `${shown.length || "No"} objects`;
    this.drawn.setAttribute("aria-label", `${this.title.textContent}: ${counts.map(([n, those]) => `${those.length} ${n}`).join(", ")}`);
    const rows = counts.map(([name, those]) => {
      const key = make("i", { className: "key" });
      key.style.background = this.colour(name);
      const scores = those.map(({ score }) => score);
      const range = those.length > 1 ? `${percent(Math.min(...scores))} to ${percent(Math.max(...scores))}` : percent(scores[0]);
      const row = make("tr", {}, make("th", { scope: "row" }, key, name), make("td", {}, String(those.length)), make("td", {}, range));
      row.addEventListener("pointerenter", () => this.single(name));
      row.addEventListener("pointerleave", () => this.single(null));
      return row;
    });
    const head = make("tr", {}, ...["Class", "Objects", "Score"].map((text) => make("th", { scope: "col" }, text)));
    this.table.replaceChildren(...(rows.length ? [make("table", { className: "counts" }, make("thead", {}, head), make("tbody", {}, ...rows))] : []));
    const groups = [...shown].reverse().map((one) => this.mark(one, shown.length <= NAMED)); // the surest on top
    this.drawn.replaceChildren(...groups);
    this.letters();
  }

  mark({ name, score, box: [left, top, right, bottom] }, named) {
    const place = { x: left, y: top, width: right - left, height: bottom - top };
    const group = svg("g", { "data-name": name });
    const title = svg("title");
    title.textContent = `${name}, ${percent(score)}`;
    group.append(title, svg("rect", { ...place, class: "ground" }), svg("rect", { ...place, stroke: this.colour(name) }));
    if (named) {
      const text = svg("text", { x: left, y: top, "dominant-baseline": "text-before-edge" });
      text.textContent = name;
      group.append(text);
    }
    return group;
  }

  colour(name) {
    return COLOURS[Math.max(0, [...this.model.labels].sort().indexOf(name)) % COLOURS.length];
  }

  /** Only the boxes of one class stand out; all of them for null. */
  single(name) {
    for (const group of this.drawn.children) group.classList.toggle("faint", name !== null && group.dataset.name !== name);
  }

  /** Names are of one size on the screen, however large the picture is. */
  letters() {
    const [width, height] = this.size;
    const scale = Math.min(this.drawn.clientWidth / width, this.drawn.clientHeight / height) || 1;
    this.drawn.style.fontSize = `${12 / scale}px`;
    this.drawn.style.setProperty("--halo", `${3 / scale}px`);
  }
}
