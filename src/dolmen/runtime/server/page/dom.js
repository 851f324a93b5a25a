// Elements and words: what the page and all panels are built of.

export const $ = (id) => document.getElementById(id);

/** A new element: its properties, then what is in it. */
export function make(tag, properties = {}, ...content) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...content.filter((part) => part !== null));
  return element;
}

/** The same for what is drawn; its properties are attributes. */
export function svg(tag, properties = {}, ...content) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  element.append(...content);
  return element;
}

/** Say something to those who listen instead of looking. */
export function say(text) {
  $("status").textContent = text;
}

/** The server's words as a sentence. */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** A sentence that is read out at once. */
export const alarm = (text) => make("p", { className: "error", role: "alert" }, sentence(text));

/** A probability in words. */
export const percent = (p) => (p > 0.9995 && p < 1 ? "> 99.9 %" : p > 0 && p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);

/** Ctrl+Enter sends a form, wherever in it the cursor is. */
export function sendByKeys(form) {
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
}
