// Markdown as a model writes it, drawn as elements made one by one: a text never becomes HTML.

// C0 but for tab and line feed, DEL, C1, and what turns the direction of the text behind it
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;
const MAX_DEPTH = 12; // of quotes, lists and emphasis in one another: beyond it, all is text

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const BAR = /^:?-+:?$/;
const LINK = /^(?:https?:\/\/|mailto:)/i;
const URL_AT = /https?:\/\/[^\s<>]+/y;
const TAG_AT = /<(?:(https?:\/\/[^\s<>]*)|br ?\/?)>/iy;

export function printable(text) {
  return text.replaceAll("\r\n", "\n").replace(CONTROL, "");
}

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  made.append(...children); // first, as dir=auto would be found out again with each of them
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const drawn = new WeakMap(); // the sources of what each element shows

// Draw a text that grows: what is the same as before stays, and with it what a person has selected there.
export function draw(parent, text) {
  const before = drawn.get(parent) ?? [];
  const now = [...blocks(printable(text).split("\n"), 0)];
  let same = 0;
  while (same < before.length && same < now.length && before[same] === now[same].source) same++;
  while (parent.childNodes.length > same) parent.lastChild.remove();
  for (const block of now.slice(same)) parent.append(block.build());
  drawn.set(parent, now.map((block) => block.source));
}

// --- blocks ---

function* blocks(lines, depth) {
  for (let at = 0; at < lines.length; ) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const [end, build] = blockAt(lines, at, depth);
    yield { source: lines.slice(at, end).join("\n"), build };
    at = end;
  }
}

// Return where a block ends, and what makes its element.
function blockAt(lines, at, depth) {
  const line = lines[at];
  let found;
  if (depth > MAX_DEPTH) return [lines.length, () => paragraph(lines.slice(at), depth)];
  if ((found = FENCE.exec(line))) return code(lines, at, found);
  if ((found = HEADING.exec(line))) {
    const [, marks, text = ""] = found;
    return [at + 1, () => element(`h${Math.min(marks.length + 2, 6)}`, { dir: "auto" }, ...inline(bare(text), depth))];
  }
  if (RULE.test(line)) return [at + 1, () => element("hr")];
  if (QUOTE.test(line)) {
    const end = endOf(lines, at, (next) => QUOTE.test(next));
    const inner = lines.slice(at, end).map((next) => next.replace(QUOTE, ""));
    return [end, () => element("blockquote", {}, ...built(inner, depth + 1))];
  }
  if (ITEM.test(line)) return list(lines, at, depth);
  if (isTable(lines, at)) {
    const end = endOf(lines, at, (next) => next.includes("|"));
    return [end, () => table(lines.slice(at, end), depth)];
  }
  const end = endOf(lines, at, (next, i) => i === at || (next.trim() && !begins(lines, i)));
  return [end, () => paragraph(lines.slice(at, end), depth)];
}

function built(lines, depth) {
  return [...blocks(lines, depth)].map((block) => block.build());
}

function paragraph(lines, depth) {
  return element("p", { dir: "auto" }, ...inline(lines.join("\n").trim(), depth));
}

function endOf(lines, at, goesOn) {
  let end = at;
  while (end < lines.length && goesOn(lines[end], end)) end++;
  return end;
}

function begins(lines, at) {
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((mark) => mark.test(lines[at])) || isTable(lines, at);
}

// A heading without the marks that may close it.
function bare(text) {
  const end = text.trimEnd();
  const open = end.replace(/#+$/, "");
  return open === "" || /[ \t]$/.test(open) ? open.trim() : end;
}

function code(lines, at, [, fence, language]) {
  const closes = (line) => line.trim().startsWith(fence) && !line.trim().replaceAll(fence[0], "");
  const end = endOf(lines, at + 1, (line) => !closes(line));
  const attributes = { tabindex: "0", ...(language.trim() ? { "aria-label": `code, ${language.trim()}` } : {}) };
  return [
    Math.min(end + 1, lines.length),
    () => element("pre", attributes, element("code", {}, lines.slice(at + 1, end).join("\n"))),
  ];
}

function list(lines, at, depth) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const items = [];
  const isNext = (line) => {
    const found = ITEM.exec(line);
    return found && !RULE.test(line) && /\d/.test(found[2]) === ordered && found[1].length <= indent.length + 1;
  };
  while (at < lines.length && isNext(lines[at])) {
    const end = itemEnd(lines, at + 1, indent.length);
    const [whole] = ITEM.exec(lines[at]);
    const rest = lines.slice(at + 1, end).map((line) => outdented(line, whole.length));
    items.push([lines[at].slice(whole.length), ...rest]);
    at = end;
  }
  const attributes = ordered ? { start: String(parseInt(mark, 10)) } : {};
  const build = () =>
    element(ordered ? "ol" : "ul", attributes, ...items.map((item) => element("li", {}, ...built(item, depth + 1))));
  return [at, build];
}

// Return where an item ends: at a line that is not indented, unless it goes on with a paragraph.
function itemEnd(lines, at, indent) {
  for (let blank = false; at < lines.length; at++) {
    if (!lines[at].trim()) {
      blank = true;
      continue;
    }
    const inside = lines[at].search(/\S/) >= indent + 2;
    if (!inside && (blank || begins(lines, at))) break;
    blank = false;
  }
  return at;
}

function outdented(line, width) {
  return line.slice(Math.min(Math.max(line.search(/\S/), 0), width));
}

function cells(line) {
  const row = line.trim().replace(/^\|/, "").replace(/([^\\])\|$/, "$1");
  return row.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function isTable(lines, at) {
  if (!lines[at].includes("|") || !lines[at + 1]?.includes("-")) return false;
  const bars = cells(lines[at + 1]);
  return bars.every((bar) => BAR.test(bar)) && bars.length === cells(lines[at]).length;
}

function table([head, , ...rows], depth) {
  const row = (line, name) =>
    element("tr", {}, ...cells(line).map((cell) => element(name, { dir: "auto" }, ...inline(cell, depth))));
  const body = element("tbody", {}, ...rows.map((line) => row(line, "td")));
  const whole = element("table", {}, element("thead", {}, row(head, "th")), body);
  return element("div", { class: "scroll", tabindex: "0" }, whole);
}

// --- within a line ---

const ESCAPE = /\\[!-/:-@[-`{-~]/y;
const EMPHASIS = { "*": ["em", "strong"], _: ["em", "strong"], "~": [null, "del"] };

// Return the nodes of a text.
function inline(text, depth) {
  if (depth > MAX_DEPTH) return [text];
  const nodes = [];
  let plain = "";
  const line = new Line(text);
  for (let at = 0; at < text.length; ) {
    const found = line.codes.get(at) ?? nodeAt(line, at, depth);
    if (typeof (found?.node ?? "") === "string") {
      plain += found?.node ?? text[at];
    } else {
      if (plain) nodes.push(plain);
      plain = "";
      nodes.push(found.node);
    }
    at = found?.end ?? at + 1;
  }
  if (plain) nodes.push(plain);
  return nodes;
}

// A text with its code, by where it begins, and a mask: the text with x for code and what a \ escapes, where no mark
// counts. absent: marks that nothing closes, so that each is looked for once.
class Line {
  constructor(text) {
    Object.assign(this, { text, codes: new Map(), absent: new Set() });
    const masked = [];
    for (let at = 0; at < text.length; ) {
      const end = text[at] === "`" ? this.addCode(at) : at + (matchAt(ESCAPE, text, at) ? 2 : 1);
      masked.push(end > at + 1 || text[at] === "`" ? "x".repeat(end - at) : text[at]);
      at = end;
    }
    this.mask = masked.join("");
  }

  // Take up the code that begins here, and return where it, or a mark that nothing closes, ends.
  addCode(at) {
    const size = run(this.text, at);
    const mark = "`".repeat(size);
    const end = this.absent.has(mark) ? -1 : closingTicks(this.text, at + size, size);
    if (end < 0) this.absent.add(mark);
    const inner = this.text.slice(at + size, end).replaceAll("\n", " ");
    const padded = inner.trim() && inner.startsWith(" ") && inner.endsWith(" ");
    const node = end < 0 ? mark : element("code", {}, padded ? inner.slice(1, -1) : inner);
    this.codes.set(at, { node, end: end < 0 ? at + size : end + size });
    return this.codes.get(at).end;
  }
}

function nodeAt(line, at, depth) {
  const { text } = line;
  const letter = text[at];
  if (letter === "\n") return { node: element("br"), end: at + 1 };
  if (letter === "\\" && matchAt(ESCAPE, text, at)) return { node: text[at + 1], end: at + 2 };
  if (letter in EMPHASIS) return emphasisAt(line, at, depth);
  if (letter === "[" || (letter === "!" && text[at + 1] === "[")) return linkAt(line, at, depth);
  if (letter === "<") return tagAt(text, at);
  if (letter === "h" && !/\w/.test(text[at - 1] ?? "")) return urlAt(text, at);
  return null;
}

function matchAt(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

// How often a letter stands here in a row.
function run(text, at) {
  let end = at;
  while (text[end] === text[at]) end++;
  return end - at;
}

function closingTicks(text, from, size) {
  for (let at = text.indexOf("`", from), length; at >= 0; at = text.indexOf("`", at + length)) {
    length = run(text, at);
    if (length === size) return at;
  }
  return -1;
}

function emphasisAt(line, at, depth) {
  const { text } = line;
  const letter = text[at];
  const length = run(text, at);
  const opens = /\S/.test(text[at + length] ?? " ") && !(letter === "_" && /\w/.test(text[at - 1] ?? ""));
  for (const size of opens ? [2, 1] : []) {
    const name = EMPHASIS[letter][size - 1];
    const end = name && length >= size ? closing(line, at + length, letter, size) : -1;
    if (end >= 0) return { node: element(name, {}, ...inline(text.slice(at + size, end), depth + 1)), end: end + size };
  }
  return { node: text.slice(at, at + length), end: at + length };
}

// Return where the mark is that closes an emphasis, -1 where there is none.
function closing({ mask, absent }, from, letter, size) {
  const mark = letter.repeat(size);
  if (absent.has(mark)) return -1;
  for (let at = mask.indexOf(letter, from), length; at >= 0; at = mask.indexOf(letter, at + length)) {
    length = run(mask, at);
    const fits = size === 2 ? length >= 2 : length % 2 === 1;
    const closes = /\S/.test(mask[at - 1]) && !(letter === "_" && /\w/.test(mask[at + length] ?? ""));
    if (fits && closes) return at + length - size;
  }
  absent.add(mark);
  return -1;
}

// A picture is not fetched: its description stands for it.
function linkAt({ text, mask }, at, depth) {
  const start = at + (text[at] === "!" ? 2 : 1);
  const middle = matching(mask, start, "[", "]");
  const end = mask[middle + 1] === "(" ? matching(mask, middle + 2, "(", ")") : -1;
  if (middle < 0 || end < 0) return null;
  const [address] = text.slice(middle + 2, end).trim().split(/\s/);
  const label = inline(text.slice(start, middle), depth + 1);
  return { node: link(address.replace(/^<|>$/g, ""), label), end: end + 1 };
}

// Return where the bracket closes that was opened before `from`, -1 where it does not soon.
function matching(mask, from, opening, closing) {
  for (let at = from, open = 1; at < Math.min(mask.length, from + 1000); at++) {
    if (mask[at] === opening) open++;
    else if (mask[at] === closing && --open === 0) return at;
  }
  return -1;
}

function tagAt(text, at) {
  const found = matchAt(TAG_AT, text, at);
  if (!found) return null;
  return { node: found[1] ? link(found[1], [found[1]]) : element("br"), end: at + found[0].length };
}

function urlAt(text, at) {
  let address = matchAt(URL_AT, text, at)?.[0];
  if (!address) return null;
  while (/[.,;:!?'"*_~`\])]$/.test(address) && !(address.endsWith(")") && address.includes("("))) {
    address = address.slice(0, -1);
  }
  return { node: link(address, [address]), end: at + address.length };
}

// A link is followed when a person clicks it, and shows where it leads; what is no web or mail address is text.
function link(address, label) {
  if (!LINK.test(address)) return element("span", { class: "no-link", title: address }, ...label);
  return element("a", { href: address, title: address, target: "_blank", rel: "noopener noreferrer" }, ...label);
}
