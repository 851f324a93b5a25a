// The page around the models: which there are, which is shown, and how the server is asked.
import { boxPanel } from "./boxes.js";
import { picturePanel } from "./pictures.js";
import { speechPanel } from "./recordings.js";
import { otherPanel, tagPanel, writePanel } from "./texts.js";

const PANELS = {
  "image-classification": picturePanel,
  "object-detection": boxPanel,
  "token-classification": tagPanel,
  "text-generation": writePanel,
  "speech-recognition": speechPanel,
};
const TASKS = {
  "image-classification": "says what a picture shows",
  "object-detection": "finds what is in a picture, and where",
  "token-classification": "finds what a text names",
  "text-generation": "writes on from how a text begins",
  "speech-recognition": "writes down what is said, and when",
};
const SENT = {
  picture: "-H 'Content-Type: image/jpeg' --data-binary @picture.jpg",
  recording: "-H 'Content-Type: audio/wav' --data-binary @recording.wav",
  text: "--json '{\"inputs\": [\"a text\"]}'",
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

/** A session of a model: `send(message)` gives the server's answer to it, or throws its sentence. */
export async function openSession(path) {
  const address = new URL(path, location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const packed = token && btoa(String.fromCharCode(...new TextEncoder().encode(token)));
  const key = packed ? [`bearer.${packed.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`] : [];
  const socket = new WebSocket(address, ["dolmen", ...key]);
  const waiting = [];
  let ended = null;
  const end = (text) => {
    ended ??= new Error(sentence(text));
    for (const one of waiting.splice(0)) one.fail(ended);
  };
  socket.addEventListener("message", ({ data }) => {
    const said = JSON.parse(data);
    const one = waiting.shift();
    if (said.error === undefined) one.done(said);
    else if (one) one.fail(new Error(sentence(said.error)));
    else end(said.error); // the server says why it closes
  });
  socket.addEventListener("close", () => end("the connection to the server has ended"));
  await new Promise((done, fail) => {
    socket.addEventListener("open", done);
    socket.addEventListener("error", () => fail(new Error("The server takes no more streams at the moment. Try again later.")));
  });
  const send = (message) => new Promise((done, fail) => {
    if (ended) { fail(ended); return; }
    waiting.push({ done, fail });
    socket.send(ArrayBuffer.isView(message) ? message : JSON.stringify(message));
  });
  return { send, close: () => socket.close(), get behind() { return socket.bufferedAmount; } };
}

/** A field for an option, from its JSON schema: `{ input, read(), usual }`. */
function optionField(name, about) {
  const kind = about.type ?? about.anyOf?.find((one) => one.type !== "null")?.type ?? "string";
  const id = `option-${name}`;
  if (kind === "array") {
    const input = make("textarea", { id, rows: 2, spellcheck: false });
    return { input, read: () => input.value.split("\n").map((line) => line.trim()).filter(Boolean), about: `${about.description ?? ""}; one a line` };
  }
  if (kind === "boolean") {
    const input = make("input", { type: "checkbox", id, checked: about.default === true });
    return { input, read: () => input.checked, about: about.description ?? "" };
  }
  const number = kind === "integer" || kind === "number";
  const input = make("input", { type: number ? "number" : "text", id, autocomplete: "off" });
  if (number) {
    input.step = kind === "integer" ? "1" : "any";
    if (about.minimum !== undefined) input.min = about.minimum;
    if (about.maximum !== undefined) input.max = about.maximum;
  }
  if (about.default !== null && about.default !== undefined) input.value = about.default;
  const read = () => (input.value === "" ? null : number ? Number(input.value) : input.value);
  return { input, read, about: about.description ?? "" };
}

/** Fields for a model's options, from their JSON schema; `read()` gives those that differ from what is usual. */
export function optionFields(schema) {
  const fields = Object.entries(schema.properties ?? {}).map(([name, about]) => ({ name, ...optionField(name, about) }));
  for (const field of fields) {
    field.usual = JSON.stringify(field.read());
    if (field.about) field.input.setAttribute("aria-describedby", `about-${field.name}`);
  }
  const grid = make("div", { className: "options" }, ...fields.map((field) => make(
    "div", {},
    make("label", { htmlFor: field.input.id }, field.name.replaceAll("_", " ")), field.input,
    make("small", { id: `about-${field.name}` }, inWords(field.about)),
  )));
  const element = fields.length ? make("details", {}, make("summary", {}, "Options"), grid) : null;
  const read = () => Object.fromEntries(fields
    .map((field) => [field.name, field.read(), field.usual])
    .filter(([, value, usual]) => value !== null && JSON.stringify(value) !== usual));
  return { element, read };
}

/** What the command line calls --word-bonus is "word bonus" here. */
function inWords(text) {
  return text.replace(/--[a-z-]+/g, (name) => name.slice(2).replaceAll("-", " "));
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
  return `curl ${address}${key} \\\n     ${SENT[model.takes]}`;
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
