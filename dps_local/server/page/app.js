// The page: who answers, what is asked, and what is shown.

import * as api from "./api.js";
import { Answer, Conversation, Turn } from "./conversation.js";
import { gammaAt, gammaOf, sentence, slider, steerable, steers } from "./evidence.js";
import { element } from "./markdown.js";
import { TurnView } from "./view.js";

const RETRY = 1000; // ms, while the model is being loaded
const NEAR = 80; // pixels from the end within which the conversation follows the answer

const part = (id) => document.getElementById(id);
const [person, gamma, beside, tint] = ["person", "gamma", "beside", "tint"].map(part);
const [log, question, regenerate] = [part("log"), part("question"), element("button", { type: "button" }, "Regenerate")];

let models = []; // the plain one first
let current = null; // of the models
let conversation = null;
let views = [];
let running = null; // what stops the answer that is coming
const conversations = new Map(); // of each model's name
const drawings = new Map();

const plain = () => models[0];
const nameOf = (model) => (model === plain() ? "plain" : model.id.slice(plain().id.length + 1));
const step = () => Number(gamma.value);
const tints = () => tint.checked;

// --- who answers ---

async function load() {
  for (;;) {
    try {
      models = await api.models();
      break;
    } catch (error) {
      if (error.status !== 503) return say(error.message);
      say("The model is being loaded…");
      await new Promise((done) => setTimeout(done, RETRY));
    }
  }
  say("");
  const [alone, ...people] = models;
  const options = people.map((model) => element("option", { value: model.id }, nameOf(model)));
  person.replaceChildren(...options, element("option", { value: alone.id }, `${alone.id}, plain`));
  pick();
}

// Take up the conversation with who is picked: each has one of their own.
function pick() {
  current = models.find((model) => model.id === person.value);
  if (!conversations.has(current.id)) conversations.set(current.id, new Conversation());
  conversation = conversations.get(current.id);
  const { steps, own } = slider(current.dps);
  gamma.max = steps;
  gamma.value = part("own-step").firstElementChild.value = own;
  gamma.disabled = !steerable(current.dps);
  beside.disabled = !current.dps;
  showEvidence();
  showConversation();
  showHeads();
}

function showEvidence() {
  const { dps } = current;
  part("gamma-value").textContent = steerable(dps) ? String(gammaAt(dps, step())) : "";
  part("evidence").replaceChildren(...withCode(sentence(dps, step())));
  part("own-gamma").hidden = !steerable(dps) || step() === slider(dps).own;
  tint.disabled = !steers(dps, step());
}

// What stands between backticks is a command.
function withCode(text) {
  return text.split("`").map((piece, i) => (i % 2 ? element("code", {}, piece) : piece));
}

async function showHeads() {
  const shown = current;
  const button = part("open-heads");
  button.hidden = true;
  if (!shown.dps?.head_map) return;
  try {
    if (!drawings.has(shown.id)) drawings.set(shown.id, await api.headMap(shown.id));
  } catch (error) {
    say(error.message);
    return;
  }
  if (shown !== current) return;
  const drawing = drawings.get(shown.id).cloneNode(true);
  part("thumbnail").replaceChildren(drawing.querySelector("svg").cloneNode(true));
  part("heads-title").textContent = `Head map of ${nameOf(shown)}`;
  part("heads-content").replaceChildren(drawing);
  button.hidden = false;
}

// --- the conversation ---

function showConversation() {
  views = conversation.turns.map((turn) => new TurnView(turn, tints()));
  const start = element("div", { class: "start" }, element("p", {}, greeting()));
  log.replaceChildren(...(views.length ? views.map((view) => view.element) : [start]));
  showRegenerate();
  log.scrollTop = log.scrollHeight;
}

function greeting() {
  return current === plain() ? `Ask ${plain().id} something.` : `Ask something: ${plain().id} answers as ${nameOf(current)} likes it.`;
}

function showRegenerate() {
  if (!running && views.length) views.at(-1).element.append(regenerate);
  else regenerate.remove();
}

function newAnswers() {
  const { dps } = current;
  const strength = gammaOf(dps, step());
  const steered = steers(dps, step());
  const asked = {
    ...(strength === undefined ? {} : { gamma: strength }),
    ...(steered && tint.checked ? { explain: true } : {}),
  };
  const name = steered ? `${nameOf(current)}, γ ${gammaAt(dps, step())}` : nameOf(current);
  const answers = [new Answer(name, { model: current.id, ...(dps ? { dps: asked } : {}) })];
  if (beside.checked && dps) answers.push(new Answer("plain", { model: plain().id }));
  return answers;
}

function ask() {
  const text = question.value.trim();
  if (!text || !current || running) return;
  question.value = "";
  fit();
  const turn = new Turn(text, newAnswers());
  conversation.turns.push(turn);
  if (!views.length) log.replaceChildren();
  views.push(new TurnView(turn, tints()));
  log.append(views.at(-1).element);
  run(views.at(-1));
}

function askAgain() {
  const view = views.at(-1);
  view.turn.answers = newAnswers();
  view.show(tints());
  question.focus();
  run(view);
}

// Fill the answers of the last turn, one after the other: the server has one model.
async function run(view) {
  running = new AbortController();
  setBusy(true);
  say("");
  log.scrollTop = log.scrollHeight;
  for (const [column, shown] of view.views.entries()) await fill(shown, conversation.messages(view.turn, column));
  running = null;
  setBusy(false);
  const [{ error, text }] = view.turn.answers;
  if (error && !text) takeBack(view);
  showRegenerate();
  if (!current.dps?.scored) refresh();
}

async function fill(view, messages) {
  const { answer } = view;
  try {
    for await (const chunk of api.answer({ ...answer.request, messages }, running.signal)) {
      answer.take(chunk);
      view.drawSoon(tints, follow());
    }
  } catch (error) {
    if (error.name !== "AbortError") say((answer.error = error.message));
  }
  const then = follow();
  answer.state = "done";
  view.draw(tints());
  then();
}

// Return what scrolls to the end, where the end is in sight now.
function follow() {
  const near = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
  return () => {
    if (near) log.scrollTop = log.scrollHeight;
  };
}

// A question that was not answered goes back to where it was typed.
function takeBack(view) {
  conversation.turns.pop();
  question.value ||= view.turn.question;
  fit();
  showConversation();
}

// A profile may be scored by now.
async function refresh() {
  const found = await api.models().catch(() => models);
  const changed = found.find(({ id, dps }) => id === current.id && dps?.scored);
  models = found;
  if (changed) pick();
  else current = found.find(({ id }) => id === current.id) ?? current;
}

function setBusy(busy) {
  part("send").hidden = busy;
  part("stop").hidden = !busy;
  person.disabled = part("new-chat").disabled = busy;
  if (busy) regenerate.remove();
}

function say(text) {
  const line = part("error");
  line.replaceChildren(...withCode(text));
  line.hidden = !text;
}

function stop() {
  running?.abort();
  question.focus();
}

// As high as its text, up to what the style sheet allows.
function fit() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

// --- what a person does ---

part("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask();
});
question.addEventListener("input", fit);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !part("heads").open) stop();
});
part("stop").addEventListener("click", stop);
regenerate.addEventListener("click", askAgain);
person.addEventListener("change", pick);
gamma.addEventListener("input", showEvidence);
part("own-gamma").addEventListener("click", () => {
  gamma.value = slider(current.dps).own;
  showEvidence();
  gamma.focus();
});
tint.addEventListener("change", () => {
  for (const view of views) view.draw(tints());
});
part("new-chat").addEventListener("click", () => {
  if (!current) return;
  conversations.delete(current.id);
  say("");
  pick();
  question.focus();
});
part("open-panel").addEventListener("click", () => {
  const open = document.body.classList.toggle("panel-open");
  part("open-panel").setAttribute("aria-expanded", String(open));
});
part("open-heads").addEventListener("click", () => part("heads").showModal());
part("close-heads").addEventListener("click", () => part("heads").close());

load();
