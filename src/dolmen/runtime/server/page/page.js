// The page around the models: which there are, and which is shown. What shows one is its task's own module.
import { $, alarm, make, sentence } from "./dom.js";
import { plainPanel, takesFiles } from "./plain.js";
import { ask, wantsToken } from "./server.js";

let models = [];
let turn = 0;
let leave = () => {};

function terminal(model) {
  const sent = takesFiles(model) ? "-H 'Content-Type: application/octet-stream' --data-binary @FILE" : "--json '{\"inputs\": [\"a text\"]}'";
  const address = `${location.origin}/v1/models/${encodeURIComponent(model.name)}/predict`;
  const key = wantsToken() ? " \\\n     -H 'Authorization: Bearer TOKEN'" : "";
  return `curl ${address}${key} \\\n     ${sent}`;
}

/** What shows a model: `{ content: elements, leave() }`, from its task's module; a plain one where it has none. */
async function panelOf(model) {
  try {
    const { panel } = model.panel ? await import(`./${model.panel}`) : { panel: plainPanel };
    return panel(model);
  } catch (error) {
    return { content: [alarm(`The part of this page for ${model.task} does not work: ${error.message}`)] };
  }
}

async function show() {
  const mine = ++turn;
  const wanted = decodeURIComponent(location.hash.replace(/^#\/?/, ""));
  const model = models.find((one) => one.name === wanted) ?? models[0];
  const parts = await panelOf(model);
  if (mine !== turn) { // another model was chosen while the panel was loaded
    parts.leave?.();
    return;
  }
  leave();
  leave = parts.leave ?? (() => {});
  for (const link of $("models").children) {
    if (link.textContent === model.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${model.name}: Dolmen`;
  $("name").textContent = model.name;
  const labels = model.labels.length > 12 ? `${model.labels.length} labels` : model.labels.join(", ");
  const facts = `a ${model.kind}${model.precision ? ` in ${model.precision}` : ""}`;
  $("facts").textContent = `${sentence(model.does || model.task)} ${sentence(facts)}${labels ? ` It knows: ${labels}.` : ""}`;
  $("terminal").hidden = false;
  $("more").hidden = wantsToken(); // a link can't bring the token along
  $("terminal").querySelector("code").textContent = terminal(model);
  $("work").replaceChildren(...parts.content);
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
