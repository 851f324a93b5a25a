// Texts: see what they name, or watch them being written.
import { ask, make, optionFields, say, sendByKeys, sentence } from "./page.js";

const JSON_TYPE = { "Content-Type": "application/json" };
const SHADES = 8;
const UNSURE = 0.5;
const percent = (p) => `${Math.min(99, Math.round(100 * p))} %`;
const hint = () => make("span", { className: "hint keys" }, "Ctrl+Enter");
const alarm = (text) => make("p", { className: "error", role: "alert" }, sentence(text));

/** Entities coloured by their label, each with its confidence. */
export function tagPanel(model) {
  const address = `v1/models/${encodeURIComponent(model.name)}/predict`;
  const options = optionFields(model.options);
  const text = make("textarea", { id: "text", rows: 5, spellcheck: false, maxLength: model.limits.max_characters, required: true });
  const button = make("button", { className: "main" }, "Find");
  const out = make("section", { "aria-label": "What was found" });
  const form = make(
    "form", {}, make("label", { htmlFor: "text" }, "Text, a sentence a line"), text,
    make("p", { className: "buttons" }, button, hint()), options.element,
  );
  sendByKeys(form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const lines = text.value.split("\n").filter((line) => line.trim()).slice(0, model.limits.max_inputs);
    if (!lines.length) return;
    button.disabled = true;
    try {
      const body = JSON.stringify({ inputs: lines, options: options.read() });
      const found = (await (await ask(address, { method: "POST", headers: JSON_TYPE, body })).json()).predictions;
      out.replaceChildren(...tagged(model, found));
      const number = found.reduce((sum, one) => sum + (one.spans?.length ?? 0), 0);
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
  const lines = predictions.map((one) => {
    if (one.error) return alarm(one.error);
    const spans = one.spans.length ? one.spans : one.tokens.filter((t) => t.tag !== "O").map((t) => ({ ...t, label: t.tag }));
    const characters = [...one.text]; // offsets count characters, JavaScript's strings count halves of some
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
  if (predictions.some((one) => one.spans?.some((span) => span.confidence < UNSURE))) {
    legend.push(make("li", {}, "dashed: below 50 %"));
  }
  const title = make("h2", {}, legend.length ? "Found" : "Nothing found");
  return [title, make("ul", { className: "legend", "aria-label": "How often each" }, ...legend), ...lines];
}

/** A text that is written while one looks on. */
export function writePanel(model) {
  const address = `v1/models/${encodeURIComponent(model.name)}/predict`;
  const options = optionFields(model.options);
  const text = make("textarea", { id: "text", rows: 3, spellcheck: false, maxLength: model.limits.max_characters });
  const write = make("button", { className: "main" }, "Write");
  const stop = make("button", { type: "button", hidden: true }, "Stop");
  const on = make("button", { type: "button", hidden: true }, "Write on");
  const out = make("output", { className: "written", hidden: true, tabIndex: 0, "aria-label": "The text", "aria-live": "off" });
  const said = make("p", { className: "said" });
  const form = make(
    "form", {}, make("label", { htmlFor: "text" }, "How it begins"), text,
    make("p", { className: "buttons" }, write, stop, on, hint()), options.element,
  );
  let running = null;

  async function run(prompt) {
    running?.abort();
    const mine = (running = new AbortController());
    const begin = performance.now();
    const piece = document.createTextNode("");
    out.replaceChildren(make("span", { className: "prompt" }, prompt), piece);
    out.classList.add("busy");
    out.hidden = stop.hidden = false;
    on.hidden = write.disabled = true;
    said.className = "said";
    said.textContent = "Writing…";
    say("Writing");
    let error = "";
    try {
      const body = JSON.stringify({ inputs: [prompt], options: options.read() });
      const headers = { ...JSON_TYPE, Accept: "text/event-stream" };
      const answer = await ask(address, { method: "POST", headers, body, signal: mine.signal });
      for await (const event of events(answer.body)) {
        if (event.error) error = event.error;
        if (!event.piece) continue;
        const follow = out.scrollHeight - out.scrollTop - out.clientHeight < 40;
        piece.appendData(event.piece);
        if (follow) out.scrollTop = out.scrollHeight;
      }
    } catch (failure) {
      if (failure.name !== "AbortError") error = failure.message;
    }
    if (running !== mine) return;
    out.classList.remove("busy");
    stop.hidden = true;
    write.disabled = false;
    on.hidden = !piece.length;
    const seconds = (performance.now() - begin) / 1000;
    said.textContent = error ? sentence(error) : `${piece.length.toLocaleString("en")} characters in ${seconds.toFixed(1)} s${mine.signal.aborted ? ", stopped" : ""}`;
    said.classList.toggle("error", Boolean(error));
    say(said.textContent);
    if (document.activeElement === document.body) write.focus();
  }

  sendByKeys(form);
  form.addEventListener("submit", (event) => { event.preventDefault(); if (!write.disabled) run(text.value); });
  stop.addEventListener("click", () => running?.abort());
  on.addEventListener("click", () => run(out.textContent.slice(-model.limits.max_characters)));
  return { content: [form, out, said], leave: () => running?.abort() };
}

/** The values of a stream of events. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
  }
}

/** A task that this page knows nothing about: what it answers, as it is. */
export function otherPanel(model) {
  const out = make("pre", { hidden: true, tabIndex: 0 });
  const [title, accept] = { picture: ["Picture", "image/*"], recording: ["Recording", "audio/*"] }[model.takes] ?? ["Text", null];
  const field = accept
    ? make("input", { type: "file", id: "text", accept, required: true })
    : make("textarea", { id: "text", required: true });
  const label = make("label", { htmlFor: "text" }, title);
  const form = make("form", {}, label, field, make("p", { className: "buttons" }, make("button", { className: "main" }, "Send")));
  sendByKeys(form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    out.hidden = false;
    try {
      const headers = { "Content-Type": accept ? "application/octet-stream" : "text/plain" };
      const body = accept ? field.files[0] : field.value;
      const answer = await ask(`v1/models/${encodeURIComponent(model.name)}/predict`, { method: "POST", headers, body });
      out.textContent = JSON.stringify((await answer.json()).predictions[0], null, 2);
    } catch (error) {
      out.textContent = error.message;
    }
  });
  return { content: [form, out] };
}
