// The list of what was said. A line is one segment of speech, one typed message, or one event of the call.

const KEPT = 500;
const ANNOUNCED = 5;
const NOT_SENT = new Set(["waiting", "unsent"]);
const NEAR = 80; // px from the end within which the list follows what is said

export class Captions {
  #list;
  #scroller;
  #spoken;
  #empty;
  #lines = new Map();
  #stored = new Map(); // id of an item of the conversation → the line that shows it
  #following = true;

  constructor({ list, scroller, spoken, empty }) {
    this.#list = list;
    this.#scroller = scroller;
    this.#spoken = spoken;
    this.#empty = empty;
    let width = scroller.clientWidth;
    let height = scroller.clientHeight;
    scroller.addEventListener("scroll", () => {
      // lines that wrap anew scroll too, and nobody meant it
      if (width === scroller.clientWidth && height === scroller.clientHeight) this.#following = this.#atEnd();
    });
    // a phone's keyboard takes half of the screen away
    new ResizeObserver(() => {
      width = scroller.clientWidth;
      height = scroller.clientHeight;
      this.#follow();
    }).observe(scroller);
  }

  /** Follow one text stream to its end. Never throws: a stream that breaks leaves its line, marked as cut off. */
  async follow(reader, speaker, who) {
    const { id, attributes = {} } = reader.info;
    const segment = `${speaker}/${attributes["lk.segment_id"] ?? id}`;
    const line = this.#lines.get(segment);
    // Speech is told in one of two ways: one stream that grows, or a stream for each guess at the whole.
    const grows = line === undefined;
    const number = (line?.streams ?? 0) + 1;
    if (line) line.streams = number;
    let text = "";
    try {
      for await (const piece of reader) {
        text += piece;
        if (grows) this.#show(segment, speaker, who, text, "interim");
      }
    } catch {
      this.#cut(segment);
      return;
    }
    const current = this.#lines.get(segment);
    if (!text || (current && current.streams > number)) return;
    const final = reader.info.attributes?.["lk.transcription_final"] === "true";
    this.#show(segment, speaker, who, text, final ? "final" : "interim");
    if (final && speaker !== "you") this.#announce(`${who}: ${text}`);
  }

  /**
   * A line somebody typed; `state` is `final`, or `waiting` until it can be sent, `unsent`, or `unsure` whether it was
   * sent. Shown again to change it.
   */
  write(segment, speaker, who, text, state) {
    this.#show(segment, speaker, who, text, state);
    if (speaker !== "you") this.#announce(`${who}: ${text}`);
  }

  /** Show what the conversation holds, each line once: what is shown already keeps its place. */
  restore(lines) {
    let before = null;
    for (const line of lines) {
      const item = this.#shown(line, before) ?? this.#restored(line, before);
      this.#stored.set(line.id, item);
      before = item;
    }
    this.#trim();
    for (const [id, item] of this.#stored) if (!item.isConnected) this.#stored.delete(id);
    this.#follow();
  }

  /** Whether the conversation held this line when it was last shown. */
  isStored(segment) {
    return [...this.#stored.values()].some((item) => item.dataset.segment === segment);
  }

  #shown(line, before) {
    const known = this.#stored.get(line.id);
    if (known?.isConnected) return known;
    const bound = new Set(this.#stored.values());
    let item = before ? before.nextElementSibling : this.#list.firstElementChild;
    for (; item !== null; item = item.nextElementSibling) {
      const { speaker, state, segment } = item.dataset;
      if (speaker !== line.speaker || NOT_SENT.has(state) || bound.has(item)) continue;
      if (!isSame(item.querySelector(".text").textContent, line.text)) continue;
      if (state === "unsure") this.#mark(this.#lines.get(segment), "final");
      return item;
    }
    return null;
  }

  #restored({ id, speaker, who, text, interrupted }, before) {
    const line = newLine(`stored/${id}`, speaker, who || { you: "You", agent: "Agent", other: "Guest" }[speaker]);
    line.text.textContent = text;
    this.#lines.set(line.item.dataset.segment, line);
    this.#mark(line, interrupted ? "cut" : "final");
    this.#empty.hidden = true;
    if (before) before.after(line.item);
    else this.#list.prepend(line.item);
    return line.item;
  }

  /** Something that happened to the call itself. */
  tell(event, text) {
    const item = document.createElement("li");
    item.dataset.event = event;
    item.textContent = text;
    this.#add(item);
  }

  /** Whoever was speaking will not finish. */
  cutAll() {
    for (const segment of this.#lines.keys()) this.#cut(segment);
  }

  #cut(segment) {
    const line = this.#lines.get(segment);
    if (line?.item.dataset.state === "interim") this.#mark(line, "cut");
  }

  #show(segment, speaker, who, text, state) {
    let line = this.#lines.get(segment);
    if (line === undefined) {
      line = newLine(segment, speaker, who);
      this.#lines.set(segment, line);
      this.#add(line.item);
    }
    line.text.textContent = text;
    this.#mark(line, state);
    this.#follow();
  }

  #mark(line, state) {
    const notes = {
      cut: "cut off",
      waiting: "is sent when the agent listens",
      unsent: "not sent",
      unsure: "may not have been sent: the page was refreshed in the middle of it",
    };
    line.item.dataset.state = state;
    line.note.textContent = notes[state] ?? "";
    line.note.hidden = !(state in notes);
  }

  #add(item) {
    this.#empty.hidden = true;
    this.#list.append(item);
    this.#trim();
    this.#follow();
  }

  #trim() {
    while (this.#list.childElementCount > KEPT) {
      const oldest = this.#list.firstElementChild;
      oldest.remove();
      this.#lines.delete(oldest.dataset.segment);
    }
  }

  // Screen readers get whole sentences, once: the list itself changes with every word.
  #announce(sentence) {
    const item = document.createElement("p");
    item.textContent = sentence;
    this.#spoken.append(item);
    while (this.#spoken.childElementCount > ANNOUNCED) this.#spoken.firstElementChild.remove();
  }

  #atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }

  #follow() {
    if (this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}

// What was heard live may be a part of what was stored, or have other spaces.
function isSame(shown, stored) {
  const [one, other] = [shown, stored].map((text) => text.replace(/\s+/g, " ").trim());
  if (one === other) return true;
  const [short, long] = one.length < other.length ? [one, other] : [other, one];
  return short.length >= 8 && long.startsWith(short);
}

function newLine(segment, speaker, who) {
  const [item, name, text, note] = ["li", "span", "p", "span"].map((tag) => document.createElement(tag));
  item.dataset.segment = segment;
  item.dataset.speaker = speaker;
  name.className = "who";
  name.textContent = who;
  text.className = "text";
  text.dir = "auto";
  note.className = "note";
  note.hidden = true;
  item.append(name, text, note);
  return { item, text, note, streams: 1 };
}
