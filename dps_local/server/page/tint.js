// What steering did to the tokens of an answer, in the colours of `dps-local generate --explain`.

import { signed } from "./evidence.js";
import { element, printable } from "./markdown.js";

const TONES = 21;
const ROWS = 8; // of the table of tokens that were moved most

export function tinted({ tokens, limit, mode, gamma }) {
  const answer = element("p", { class: "answer", dir: "auto" }, ...tokens.map((token) => tintedToken(token, limit)));
  const about = element("p", { class: "note" }, `${mode}, γ = ${gamma}`);
  const parts = [answer, about, legend(limit)];
  if (tokens.some((token) => token.shift)) parts.push(mostMoved(tokens));
  else parts.push(element("p", { class: "note" }, "No token was moved."));
  return parts;
}

function tintedToken(token, limit) {
  const tone = Math.max(-1, Math.min(1, token.shift / limit));
  const step = Math.round(((tone + 1) * (TONES - 1)) / 2);
  return element("span", { class: `c${step}${token.replaced ? " other" : ""}`, title: words(token) }, running(token.text));
}

function running(text) {
  const spaced = text.trim() ? text : text.replaceAll(" ", "␣");
  return printable(spaced.replaceAll("\t", "⇥")).replaceAll("\n", "↵\n");
}

function visible(text) {
  const shown = printable(text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥"));
  return shown || "\ufffd"; // a part of a character
}

function percent(p) {
  return p >= 0.0005 ? `${(100 * p).toFixed(1)} %` : "< 0.1 %";
}

// The probabilities are among the tokens that steering could choose from.
function odds(token, of) {
  return `${percent(of.p_plain / token.p_plausible)} → ${percent(of.p_steered)}`;
}

function plainOdds(token) {
  return odds(token, token);
}

function words(token) {
  const moved = `${signed(token.shift)} nats: ${plainOdds(token)}`;
  const { replaced } = token;
  return replaced ? `${moved}; instead of ${visible(replaced.text)}, ${odds(token, replaced)}` : moved;
}

function legend(limit) {
  const colours = Array.from({ length: TONES }, (_, tone) => element("i", { class: `c${tone}` }));
  const numbers = [signed(-limit), "0", signed(limit)].map((text) => element("b", {}, text));
  const ends = ["less likely with steering", "likelier with it"].map((text) => element("span", {}, text));
  const said = "Each token’s shift, in nats. Underlined: the plain model would rather have said something else.";
  return element(
    "div",
    { class: "scale note" },
    element("div", { class: "colours", "aria-hidden": "true" }, ...colours),
    element("div", {}, ...numbers),
    element("div", {}, ...ends),
    element("p", {}, said),
  );
}

function mostMoved(tokens) {
  const most = [...tokens].sort((a, b) => Math.abs(b.shift) - Math.abs(a.shift)).slice(0, ROWS);
  const head = ["token", "shift", "plain → steered", "instead of"].map((text) => element("th", { scope: "col" }, text));
  const rows = most.map((token) => {
    const instead = token.replaced ? visible(token.replaced.text) : "";
    const cells = [visible(token.text), signed(token.shift), plainOdds(token), instead];
    return element("tr", {}, ...cells.map((text) => element("td", {}, text)));
  });
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  const scroll = element("div", { class: "scroll", tabindex: "0" }, table);
  return element("details", {}, element("summary", {}, "Tokens that were moved most"), scroll);
}
