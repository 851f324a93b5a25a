// The page around the models: which there are, which is shown, and how the server is asked.
import { boxPanel } from "./boxes.js";
import { picturePanel } from "./pictures.js";
import { otherPanel, tagPanel, writePanel } from "./texts.js";

const PANELS = { "image-classification": picturePanel, "object-detection": boxPanel, "token-classification": tagPanel, "text-generation": writePanel };
const TASKS = {
  "image-classification": "says what a picture shows",
  "object-detection": "finds what is in a picture, and where",
  "token-classification": "finds what a text names",
  "text-generation": "writes on from how a text begins",
};
const $ = (id) => document.getElementById(id);
let models = [];
let token = sessionStorage.getItem("token");
let leave = () => {};

/** A new element: its properties, then what is in it. */
export function make(tag, properties = {}, ...content) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in found) found[name] = value;
    else found.setAttribute(name, value);
  }
  found.append(...content.filter((part) => part !== null));
  return found;
}

/** Say something to those who listen instead of looking. */
export function say(text) {
  $("status").textContent = text;
}

/** Ask the server. An answer that is no 2xx becomes an Error with the server's sentence; "ask again later" is obeyed. */
export async function ask(path, options = {}) {
  for (let attempt = 0; ; attempt++) {
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer. Is it still running?");
    }
    if (answer.ok) return answer;
    if (answer.status === 401) {
      await askForToken(token !== null);
      continue;
    }
    if (answer.status === 429 && attempt < 20) {
      const seconds = Number(answer.headers.get("Retry-After")) || 1;
      await new Promise((done) => setTimeout(done, 1000 * seconds * (0.5 + Math.random())));
      continue;
    }
    const said = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
    throw new Error(sentence(said.error));
  }
}

/** The server's words as a sentence. */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

let asking = null;

function askForToken(wrong) {
  asking ??= new Promise((done) => {
    $("token-wrong").hidden = !wrong;
    $("token-field").value = "";
    $("token").addEventListener("close", () => {
      token = $("token-field").value;
      sessionStorage.setItem("token", token);
      asking = null;
      done();
    }, { once: true });
    $("token").showModal();
  });
  return asking;
}

/** Fields for a model's options, from their JSON schema; `read()` gives those that differ from what is usual. */
export function optionFields(schema) {
  const fields = Object.entries(schema.properties ?? {}).map(([name, about]) => {
    const kind = about.type ?? about.anyOf?.find((one) => one.type !== "null")?.type ?? "string";
    const number = kind === "integer" || kind === "number";
    const input = make("input", { type: number ? "number" : "text", id: `option-${name}`, autocomplete: "off" });
    if (number) {
      input.step = kind === "integer" ? "1" : "any";
      if (about.minimum !== undefined) input.min = about.minimum;
      if (about.maximum !== undefined) input.max = about.maximum;
    }
    if (about.default !== null && about.default !== undefined) input.value = about.default;
    if (about.description) input.setAttribute("aria-describedby", `about-${name}`);
    return { name, input, number, usual: input.value, about: about.description ?? "" };
  });
  const grid = make("div", { className: "options" }, ...fields.map((field) => make(
    "div", {},
    make("label", { htmlFor: field.input.id }, field.name.replaceAll("_", " ")), field.input,
    make("small", { id: `about-${field.name}` }, field.about),
  )));
  const element = fields.length ? make("details", {}, make("summary", {}, "Options"), grid) : null;
  const read = () => Object.fromEntries(fields
    .filter(({ input, usual }) => input.value !== usual && input.value !== "")
    .map(({ name, input, number }) => [name, number ? Number(input.value) : input.value]));
  return { element, read };
}

/** Ctrl+Enter sends a form, wherever in it the cursor is. */
export function sendByKeys(form) {
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
}

function terminal(model) {
  const address = `${location.origin}/v1/models/${encodeURIComponent(model.name)}/predict`;
  const key = token ? " \\\n     -H 'Authorization: Bearer TOKEN'" : "";
  const what = model.takes === "picture"
    ? " \\\n     -H 'Content-Type: image/jpeg' --data-binary @picture.jpg"
    : " \\\n     --json '{\"inputs\": [\"a text\"]}'";
  return `curl ${address}${key}${what}`;
}

function show() {
  const wanted = decodeURIComponent(location.hash.replace(/^#\/?/, ""));
  const model = models.find((one) => one.name === wanted) ?? models[0];
  leave();
  for (const link of $("models").children) {
    if (link.textContent === model.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${model.name}: Dolmen`;
  $("name").textContent = model.name;
  const labels = model.labels.length > 12 ? `${model.labels.length} labels` : model.labels.join(", ");
  const facts = `a ${model.kind}${model.precision ? ` in ${model.precision}` : ""}`;
  $("facts").textContent = `${sentence(TASKS[model.task] ?? model.task)} ${sentence(facts)}${labels ? ` It knows: ${labels}.` : ""}`;
  $("terminal").hidden = false;
  $("more").hidden = token !== null; // a link can't bring the token along
  $("terminal").querySelector("code").textContent = terminal(model);
  const panel = (PANELS[model.task] ?? otherPanel)(model);
  leave = panel.leave ?? (() => {});
  $("work").replaceChildren(...panel.content);
}

async function start() {
  try {
    models = (await (await ask("v1/models")).json()).models;
  } catch (error) {
    const again = make("button", { type: "button", onclick: start }, "Try again");
    $("work").replaceChildren(make("p", { className: "error", role: "alert" }, error.message), again);
    return;
  }
  $("models").replaceChildren(...models.map((one) => make("a", { href: `#/${encodeURIComponent(one.name)}` }, one.name)));
  $("models").hidden = models.length < 2;
  addEventListener("hashchange", show);
  show();
}

start();
