// A conversation with one person, in this page's memory alone.

export class Answer {
  // name: who answers. request: what is asked of the server, but for the messages.
  constructor(name, request) {
    Object.assign(this, { name, request, text: "", dps: null, finish: null, error: "", state: "waiting" });
  }

  get done() {
    return this.state === "done";
  }

  take(chunk) {
    this.state = "answering";
    this.dps = chunk.dps ?? this.dps;
    for (const { delta, finish_reason: finish } of chunk.choices) {
      this.text += delta.content ?? "";
      this.finish = finish ?? this.finish;
    }
  }

  // What is to be known beside the text.
  get note() {
    if (!this.done || this.error) return "";
    if (this.finish === null) return this.text ? "Stopped." : "Stopped before the first word.";
    if (this.finish === "length") return "Cut off: the context is full. A new chat has room again.";
    return this.text.trim() ? "" : "The model said nothing.";
  }
}

export class Turn {
  constructor(question, answers) {
    Object.assign(this, { question, answers });
  }
}

export class Conversation {
  turns = [];

  // The messages of one column, as far as a turn: where a turn has one answer, both columns go on from it.
  messages(turn, column) {
    const earlier = this.turns.slice(0, this.turns.indexOf(turn)).filter(({ answers }) => answers[0].text);
    const said = earlier.flatMap(({ question, answers }) => [
      { role: "user", content: question },
      { role: "assistant", content: (answers[column]?.text ? answers[column] : answers[0]).text },
    ]);
    return [...said, { role: "user", content: turn.question }];
  }
}
