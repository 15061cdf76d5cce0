// What is seen of a conversation: turns, and the answers of each, beside one another.

import { draw, element, printable } from "./markdown.js";
import { tinted } from "./tint.js";

class AnswerView {
  constructor(answer) {
    this.answer = answer;
    this.text = element("div", { class: "text" });
    this.note = element("p", { class: "note" });
    this.element = element("section", { "aria-label": answer.name }, this.text, this.note);
    this.drawsTint = false;
    this.due = false;
  }

  // Draw it before the next frame, however many tokens come until then.
  drawSoon(tint, then) {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.draw(tint());
      then();
    });
  }

  draw(tint) {
    const { answer } = this;
    this.element.setAttribute("aria-busy", String(!answer.done));
    this.element.classList.toggle("busy", !answer.done);
    const drawsTint = Boolean(tint && answer.done && answer.dps);
    if (drawsTint !== this.drawsTint) this.text.replaceWith((this.text = element("div", { class: "text" })));
    if (drawsTint && !this.drawsTint) this.text.append(...tinted(answer.dps));
    if (!drawsTint) draw(this.text, answer.text);
    this.drawsTint = drawsTint;
    this.note.textContent = answer.done ? answer.note : `${answer.state}…`;
    this.note.hidden = !this.note.textContent;
  }
}

export class TurnView {
  constructor(turn, tint) {
    this.turn = turn;
    const said = element("span", { class: "hidden" }, "You: ");
    this.answers = element("div", { class: "answers" });
    const question = element("div", { class: "question", dir: "auto" }, said, printable(turn.question));
    this.element = element("article", { class: "turn" }, question, this.answers);
    this.show(tint);
  }

  // Show the answers anew, as they may be others.
  show(tint) {
    this.views = this.turn.answers.map((answer) => new AnswerView(answer));
    const beside = this.views.length > 1;
    this.element.classList.toggle("beside", beside);
    for (const view of this.views) {
      if (beside) view.element.prepend(element("h2", {}, view.answer.name));
      view.draw(tint);
    }
    this.answers.replaceChildren(...this.views.map((view) => view.element));
  }

  draw(tint) {
    for (const view of this.views) view.draw(tint);
  }
}
