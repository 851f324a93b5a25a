// How the server is asked, with its token where it wants one.
import { $, sentence } from "./dom.js";

let token = sessionStorage.getItem("token");

/** Whether this server wants a token. */
export const wantsToken = () => token !== null;

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
    const problem = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
    throw new Error(sentence(problem.error));
  }
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
    const message = JSON.parse(data);
    const one = waiting.shift();
    if (message.error === undefined) one.done(message);
    else if (one) one.fail(new Error(sentence(message.error)));
    else end(message.error); // the server says why it closes
  });
  socket.addEventListener("close", () => end("the connection to the server has ended"));
  await new Promise((done, fail) => {
    socket.addEventListener("open", done);
    socket.addEventListener("error", () => fail(new Error("The server takes no more streams at the moment. Try again later.")));
  });
  const send = (content) => new Promise((done, fail) => {
    if (ended) { fail(ended); return; }
    waiting.push({ done, fail });
    socket.send(ArrayBuffer.isView(content) ? content : JSON.stringify(content));
  });
  return { send, close: () => socket.close(), get behind() { return socket.bufferedAmount; } };
}
