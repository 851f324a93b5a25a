// Texts that are written while one looks on.
import { make, say, sendByKeys, sentence } from "../dom.js";
import { optionFields } from "../options.js";
import { ask } from "../server.js";

/** A text that is written while one looks on. */
export function panel(model) {
  const address = `v1/models/${encodeURIComponent(model.name)}/predict`;
  const options = optionFields(model.options);
  const text = make("textarea", { id: "text", rows: 3, spellcheck: false, maxLength: model.limits.max_characters });
  const write = make("button", { className: "main" }, "Write");
  const stop = make("button", { type: "button", hidden: true }, "Stop");
  const on = make("button", { type: "button", hidden: true }, "Write on");
  const out = make("output", { className: "written", hidden: true, tabIndex: 0, "aria-label": "The text", "aria-live": "off" });
  const status = make("p", { className: "said" });
  const form = make(
    "form", {}, make("label", { htmlFor: "text" }, "How it begins"), text,
    make("p", { className: "buttons" }, write, stop, on, make("span", { className: "hint keys" }, "Ctrl+Enter")), options.element,
  );
  let running = null;

  async function run(prompt) {
    running?.abort();
    const request = (running = new AbortController());
    const begin = performance.now();
    const piece = document.createTextNode("");
    out.replaceChildren(make("span", { className: "prompt" }, prompt), piece);
    out.classList.add("busy");
    out.hidden = stop.hidden = false;
    on.hidden = write.disabled = true;
    status.className = "said";
    status.textContent = "Writing…";
    say("Writing");
    let error = "";
    try {
      const body = JSON.stringify({ inputs: [prompt], options: options.read() });
      const headers = { "Content-Type": "application/json", Accept: "text/event-stream" };
      const answer = await ask(address, { method: "POST", headers, body, signal: request.signal });
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
    if (running !== request) return;
    out.classList.remove("busy");
    stop.hidden = true;
    write.disabled = false;
    on.hidden = !piece.length;
    const seconds = (performance.now() - begin) / 1000;
    status.textContent = error ? sentence(error) : `${piece.length.toLocaleString("en")} characters in ${seconds.toFixed(1)} s${request.signal.aborted ? ", stopped" : ""}`;
    status.classList.toggle("error", Boolean(error));
    say(status.textContent);
    if (document.activeElement === document.body) write.focus();
  }

  sendByKeys(form);
  form.addEventListener("submit", (event) => { event.preventDefault(); if (!write.disabled) run(text.value); });
  stop.addEventListener("click", () => running?.abort());
  on.addEventListener("click", () => run(out.textContent.slice(-model.limits.max_characters)));
  return { content: [form, out, status], leave: () => running?.abort() };
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
