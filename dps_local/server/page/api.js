// What the page asks of the server, and of nobody else.

const KEY = "dps-local-key";
const BROKEN_OFF = "the answer was broken off";
const key = ownKey();

// The link that opened the page brought the key behind the #. It is kept for this tab, and out of the history.
function ownKey() {
  if (location.hash) {
    sessionStorage.setItem(KEY, location.hash.slice(1));
    history.replaceState(null, "", "/");
  }
  return sessionStorage.getItem(KEY) ?? "";
}

function headers() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// An error that the server said, in one line.
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch (error) {
    throw unlessStopped(error, "the server cannot be reached: is `dps-local serve` still running?");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

function unlessStopped(error, message) {
  return error.name === "AbortError" ? error : new ServerError(message, 0);
}

async function failure(response) {
  if (response.status === 401) {
    return new ServerError("open this page by the link that `dps-local serve` printed last", 401);
  }
  const said = await response.json().catch(() => null);
  return new ServerError(said?.error?.message ?? `the server answered with ${response.status}`, response.status);
}

// Return the models: the plain one, and those of people, with what steers them in `dps`.
export async function models() {
  return (await (await ask("/v1/models", {})).json()).data;
}

// Yield the chunks of an answer as they come.
export async function* answer(body, signal) {
  const sent = { method: "POST", headers: { "Content-Type": "application/json" }, signal };
  const response = await ask("/v1/chat/completions", { ...sent, body: JSON.stringify({ ...body, stream: true }) });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(chunk.error.message, 200);
    yield chunk;
  }
  throw new ServerError(BROKEN_OFF, 0);
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw unlessStopped(error, BROKEN_OFF);
    });
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}

// Return the drawing of a person's heads, the nodes of a page of its own. An XMLHttpRequest parses it without scripts.
export function headMap(model) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", `/v1/models/${encodeURIComponent(model)}/heads`);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.responseType = "document";
    request.onload = () => {
      if (request.status === 200) resolve(adopted(request.response.body));
      else reject(new ServerError("there is no head map of this person yet", request.status));
    };
    request.onerror = () => reject(new ServerError("the head map cannot be had", 0));
    request.send();
  });
}

// The content policy allows styles that a script sets, but none in the markup.
function adopted(body) {
  const nodes = document.createDocumentFragment();
  nodes.append(...body.childNodes);
  for (const element of nodes.querySelectorAll("[data-style]")) element.style.cssText = element.dataset.style;
  return nodes;
}
