// A task without a panel of its own.
import { make, say, sendByKeys } from "./dom.js";
import { optionFields } from "./options.js";
import { ask } from "./server.js";

/** Whether an input of a model is the bytes of a file; else it is a text. */
export const takesFiles = (model) => !model.media.includes("text/plain");

/** An input, and what the model answers to it, as it is. */
export function plainPanel(model) {
  const options = optionFields(model.options);
  const answer = make("pre", { hidden: true, tabIndex: 0, "aria-label": "The answer" });
  const accept = takesFiles(model) ? model.media[0] : null;
  const title = model.takes.charAt(0).toUpperCase() + model.takes.slice(1);
  const field = accept
    ? make("input", { type: "file", id: "text", accept, required: true })
    : make("textarea", { id: "text", required: true });
  const label = make("label", { htmlFor: "text" }, title);
  const form = make("form", {}, label, field, make("p", { className: "buttons" }, make("button", { className: "main" }, "Send")), options.element);
  sendByKeys(form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = new FormData();
    body.append("inputs", accept ? field.files[0] : field.value);
    body.append("options", JSON.stringify(options.read()));
    try {
      const reply = await ask(`v1/models/${encodeURIComponent(model.name)}/predict`, { method: "POST", body });
      answer.textContent = JSON.stringify((await reply.json()).predictions[0], null, 2);
      say("The answer is there");
    } catch (error) {
      answer.textContent = error.message;
      say(error.message);
    }
    answer.hidden = false;
  });
  return { content: [form, answer] };
}
