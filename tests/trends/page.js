// A series of numbers and which way it goes.
import { alarm, make, percent, say } from "../dom.js";
import { ask } from "../server.js";

/** A field for a series, and the answer below it. */
export function panel(model) {
  const address = `v1/models/${encodeURIComponent(model.name)}/predict`;
  const series = make("input", { id: "series", required: true, placeholder: "0.1 0.3 0.5" });
  const out = make("output", { className: "said", id: "trend" });
  const form = make("form", {}, make("label", { htmlFor: "series" }, "Numbers"), series, make("button", { className: "main" }, "Which way?"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = JSON.stringify({ inputs: [series.value] });
    try {
      const [one] = (await (await ask(address, { method: "POST", headers: { "Content-Type": "application/json" }, body })).json()).predictions;
      out.replaceChildren(one.error ? alarm(one.error) : `It ${one.label}, ${percent(one.probability)} after ${one.num_values} values`);
    } catch (error) {
      out.replaceChildren(alarm(error.message));
    }
    say(out.textContent);
  });
  return { content: [form, out] };
}
