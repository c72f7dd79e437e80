// What this browser remembers. One that blocks storage throws on the mere mention of it: it forgets then, and goes on.

export function recall(kind, name) {
  try {
    return window[kind].getItem(name);
  } catch {
    return null;
  }
}

export function keep(kind, name, value) {
  try {
    if (value === null) window[kind].removeItem(name);
    else window[kind].setItem(name, value);
  } catch {
    // forgotten on refresh
  }
}

/** What was typed in this tab, for one room, and has not been sent: it outlives a refresh. */
export class Outbox {
  #name;
  #draft;
  #lines;

  constructor(room) {
    this.#name = `unsent.${room}`;
    this.#draft = `draft.${room}`;
    this.#lines = linesFrom(recall("sessionStorage", this.#name));
  }

  /** Lines `{id, text, begun}` in the order in which they were typed; `begun`: the refresh may have come after it was sent. */
  get lines() {
    return this.#lines;
  }

  /** What stands in the field, not yet handed over. */
  get draft() {
    return recall("sessionStorage", this.#draft) ?? "";
  }

  set draft(text) {
    keep("sessionStorage", this.#draft, text || null);
  }

  add(line) {
    this.#lines = [...this.#lines, { ...line, begun: false }];
    this.#save();
  }

  /** It is noted before a line is sent, so that no refresh sends it twice. */
  begin(line, begun) {
    this.#lines = this.#lines.map((one) => (one.id === line.id ? { ...one, begun } : one));
    this.#save();
  }

  remove(line) {
    this.#lines = this.#lines.filter((one) => one.id !== line.id);
    this.#save();
  }

  #save() {
    keep("sessionStorage", this.#name, this.#lines.length > 0 ? JSON.stringify(this.#lines) : null);
  }
}

function linesFrom(text) {
  try {
    return JSON.parse(text).filter((line) => typeof line.id === "string" && typeof line.text === "string");
  } catch {
    return []; // none yet, or not written by this page
  }
}
