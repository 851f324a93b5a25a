// Fields for the options of a model.
import { make } from "./dom.js";

/** A field for an option, from its JSON schema: `{ input, read(), usual }`. */
function optionField(name, about) {
  const type = about.type ?? about.anyOf?.find((one) => one.type !== "null")?.type ?? "string";
  const id = `option-${name}`;
  if (type === "array") {
    const input = make("textarea", { id, rows: 2, spellcheck: false });
    return { input, read: () => input.value.split("\n").map((line) => line.trim()).filter(Boolean), about: `${about.description ?? ""}; one a line` };
  }
  if (type === "boolean") {
    const input = make("input", { type: "checkbox", id, checked: about.default === true });
    return { input, read: () => input.checked, about: about.description ?? "" };
  }
  const number = type === "integer" || type === "number";
  const input = make("input", { type: number ? "number" : "text", id, autocomplete: "off" });
  if (number) {
    input.step = type === "integer" ? "1" : "any";
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
