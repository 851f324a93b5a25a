// Texts to what they name.
import { alarm, make, say, sendByKeys } from "../dom.js";
import { optionFields } from "../options.js";
import { ask } from "../server.js";

const SHADES = 8;
const UNSURE = 0.5;
const percent = (p) => `${Math.min(99, Math.round(100 * p))} %`;

/** Entities coloured by their label, each with its confidence. */
export function panel(model) {
  const address = `v1/models/${encodeURIComponent(model.name)}/predict`;
  const options = optionFields(model.options);
  const text = make("textarea", { id: "text", rows: 5, spellcheck: false, maxLength: model.limits.max_characters, required: true });
  const button = make("button", { className: "main" }, "Find");
  const out = make("section", { "aria-label": "What was found" });
  const form = make(
    "form", {}, make("label", { htmlFor: "text" }, "Text, a sentence a line"), text,
    make("p", { className: "buttons" }, button, make("span", { className: "hint keys" }, "Ctrl+Enter")), options.element,
  );
  sendByKeys(form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const lines = text.value.split("\n").filter((line) => line.trim()).slice(0, model.limits.max_inputs);
    if (!lines.length) return;
    button.disabled = true;
    try {
      const body = JSON.stringify({ inputs: lines, options: options.read() });
      const predictions = (await (await ask(address, { method: "POST", headers: { "Content-Type": "application/json" }, body })).json()).predictions;
      out.replaceChildren(...tagged(model, predictions));
      const number = predictions.reduce((sum, prediction) => sum + (prediction.spans?.length ?? 0), 0);
      say(`${number} found`);
    } catch (error) {
      out.replaceChildren(alarm(error.message));
    } finally {
      button.disabled = false;
    }
  });
  return { content: [form, out] };
}

function tagged(model, predictions) {
  const shade = new Map(model.labels.map((label, i) => [label, `k${i % SHADES}`]));
  const counts = new Map();
  const lines = predictions.map((prediction) => {
    if (prediction.error) return alarm(prediction.error);
    const spans = prediction.spans.length ? prediction.spans : prediction.tokens.filter((t) => t.tag !== "O").map((t) => ({ ...t, label: t.tag }));
    const characters = [...prediction.text]; // offsets count characters, JavaScript's strings count halves of some
    const parts = [];
    let at = 0;
    for (const span of spans) {
      counts.set(span.label, (counts.get(span.label) ?? 0) + 1);
      if (!shade.has(span.label)) shade.set(span.label, `k${shade.size % SHADES}`);
      parts.push(characters.slice(at, span.start).join(""));
      const about = make("small", {}, make("b", {}, span.label), ` ${percent(span.confidence)}`);
      const mark = make("mark", { className: shade.get(span.label) }, characters.slice(span.start, span.end).join(""), " ", about);
      mark.classList.toggle("unsure", span.confidence < UNSURE);
      parts.push(mark);
      at = span.end;
    }
    parts.push(characters.slice(at).join(""));
    return make("p", { className: "tagged" }, ...parts);
  });
  const legend = [...counts].map(([label, n]) => make("li", { className: shade.get(label) }, `${label} × ${n}`));
  if (predictions.some((prediction) => prediction.spans?.some((span) => span.confidence < UNSURE))) {
    legend.push(make("li", {}, "dashed: below 50 %"));
  }
  const title = make("h2", {}, legend.length ? "Found" : "Nothing found");
  return [title, make("ul", { className: "legend", "aria-label": "How often each" }, ...legend), ...lines];
}
