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

const DOUBTFUL = 20; // lines that were sent, and of which it is not known whether they arrived

/** What was typed in this tab, for one room, and is not known to have arrived: it outlives a refresh. */
export class Outbox {
  #name;
  #draft;
  #sentName;
  #lines;
  #sent;

  constructor(room) {
    this.#name = `unsent.${room}`;
    this.#draft = `draft.${room}`;
    this.#sentName = `sent.${room}`;
    this.#lines = linesFrom(recall("sessionStorage", this.#name));
    this.#sent = linesFrom(recall("sessionStorage", this.#sentName));
  }

  /** Lines `{id, text, begun}` in the order in which they were typed; `begun`: the refresh may have come after it was sent. */
  get lines() {
    return this.#lines;
  }

  /** Lines `{id, text, to}` that were sent to the agent `to`, which has not been heard since. */
  get sent() {
    return this.#sent;
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

  handOver({ id, text }, to) {
    this.#lines = this.#lines.filter((one) => one.id !== id);
    this.#sent = [...this.#sent, { id, text, to }].slice(-DOUBTFUL);
    this.#save();
  }

  /** Whoever speaks has got what was sent before. */
  arrivedAt(agent) {
    if (!this.#sent.some((line) => line.to === agent)) return;
    this.#sent = this.#sent.filter((line) => line.to !== agent);
    this.#save();
  }

  /** Of lines that were sent, those that are `lost` are to be sent again, before all others: these; the rest arrived. */
  settle(lines, lost) {
    const again = this.#sent.filter((one) => lost.includes(one)); // none of a call that is over
    this.#sent = this.#sent.filter((one) => !lines.includes(one));
    this.#lines = [...again.map(({ id, text }) => ({ id, text, begun: false })), ...this.#lines];
    this.#save();
    return again;
  }

  #save() {
    keep("sessionStorage", this.#name, this.#lines.length > 0 ? JSON.stringify(this.#lines) : null);
    keep("sessionStorage", this.#sentName, this.#sent.length > 0 ? JSON.stringify(this.#sent) : null);
  }
}

function linesFrom(text) {
  try {
    return JSON.parse(text).filter((line) => typeof line.id === "string" && typeof line.text === "string");
  } catch {
    return []; // none yet, or not written by this page
  }
}
