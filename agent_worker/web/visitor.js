// Who opened the page, into which room, and how the page proves it to its server.

import { keep, recall } from "./memory.js";

const PERSON = "caller"; // localStorage: the same person after a refresh and in another tab
const NAME = "caller.name";
const KEY = "page.key"; // sessionStorage: this tab only
const JOINED = "call.joined";
const MUTED = "call.muted";

/** The server said no, with a sentence: asking again would not help. */
export class RefusedError extends Error {}

export class Visitor {
  #key;
  #person;
  #room;

  constructor() {
    this.#key = recall("sessionStorage", KEY);
    this.takeKey();
    this.#room = roomFromAddress();
    this.#person = personFrom(recall("localStorage", PERSON));
  }

  get room() {
    return this.#room;
  }

  get identity() {
    return this.#person?.identity ?? null;
  }

  get name() {
    return recall("localStorage", NAME) ?? "";
  }

  set name(value) {
    keep("localStorage", NAME, value || null);
  }

  /** Whether this tab was in this room's call when it was last closed or refreshed. */
  get joined() {
    return recall("sessionStorage", JOINED) === this.#room;
  }

  set joined(value) {
    keep("sessionStorage", JOINED, value ? this.#room : null);
  }

  get muted() {
    return recall("sessionStorage", MUTED) === "yes";
  }

  set muted(value) {
    keep("sessionStorage", MUTED, value ? "yes" : null);
  }

  /** Move the key from the address bar, where it would be copied along with a link, into this tab's memory. */
  takeKey() {
    const key = new URLSearchParams(location.hash.slice(1)).get("key");
    if (key === null) return false;
    this.#key = key;
    keep("sessionStorage", KEY, key);
    history.replaceState(null, "", location.pathname + location.search);
    return true;
  }

  /** A fresh token: `{url, token}`. Throws `RefusedError`, or another error if the server does not answer. */
  async requestTicket() {
    let [response, body] = await this.#ask();
    if (response.status === 403 && body.code === "identity") {
      // given by a server with another secret: be somebody new
      this.#person = null;
      [response, body] = await this.#ask();
    }
    if (response.status >= 500) throw new Error("the page's server failed");
    if (!response.ok) throw new RefusedError(body.error ?? "The page's server refused.");
    this.#person = { identity: body.identity, identity_proof: body.identity_proof };
    keep("localStorage", PERSON, JSON.stringify(this.#person));
    return { url: body.url, token: body.token };
  }

  /** Have an agent called to the room; `worker`, `agent`, `overdue` or `unanswered`: what is waited for. Never throws. */
  async askForAgent() {
    try {
      const [response, body] = await this.#post("/agent", this.#self);
      return response.ok ? body.waiting : "unanswered";
    } catch {
      return "unanswered";
    }
  }

  /** What was said in the room's conversation, the oldest first; null where that cannot be learnt. Never throws. */
  async storedLines() {
    if (this.#person === null) return [];
    try {
      const [response, body] = await this.#post("/conversation", this.#self);
      return response.ok ? body.lines : null;
    } catch {
      return null;
    }
  }

  #ask() {
    return this.#post("/token", this.name ? { ...this.#self, name: this.name } : this.#self);
  }

  get #self() {
    return { room: this.#room, ...this.#person };
  }

  async #post(path, wish) {
    const headers = { "Content-Type": "application/json" };
    if (this.#key !== null) headers.Authorization = `Bearer ${this.#key}`;
    const response = await fetch(path, {
      method: "POST",
      headers,
      body: JSON.stringify(wish),
      signal: AbortSignal.timeout(15_000),
    });
    return [response, await response.json().catch(() => ({}))];
  }
}

function personFrom(text) {
  try {
    const { identity, identity_proof } = JSON.parse(text);
    return { identity, identity_proof };
  } catch {
    return null; // nobody yet, or not written by this page
  }
}

function roomFromAddress() {
  const address = new URL(location.href);
  const given = address.searchParams.get("room");
  if (given) return given;
  const letters = "abcdefghjkmnpqrstuvwxyz23456789";
  const random = crypto.getRandomValues(new Uint8Array(8));
  const room = `room-${Array.from(random, (byte) => letters[byte % letters.length]).join("")}`;
  address.searchParams.set("room", room);
  history.replaceState(null, "", address);
  return room;
}
