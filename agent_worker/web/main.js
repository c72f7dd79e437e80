// Puts the call on the page.

import { Captions } from "./captions.js";
import { keep, Outbox, recall } from "./memory.js";
import { Visitor } from "./visitor.js";

const LIBRARY = "/livekit-client.mjs";
const FOCUS = "page.focus"; // sessionStorage: what had the focus when the page went away

const byId = (id) => document.getElementById(id);
const page = Object.fromEntries(
  ["status", "room", "notice", "lobby", "name", "join", "controls", "writing", "text", "send", "sound", "mute", "leave"]
    .concat(["people", "nobody", "audio"])
    .map((id) => [id, byId(id)]),
);

const AGENT_STATES = {
  initializing: "getting ready",
  idle: "idle",
  listening: "listening",
  thinking: "thinking",
  speaking: "speaking",
};

const WAITING = {
  worker: "Waiting for the agent: its worker is not registered yet. It is asked for by itself when it is.",
  overdue: "No agent has come yet. It is asked for again every ten seconds; the worker's log says why none comes.",
  unanswered: "No agent can be called just now, as a server does not answer. It is tried again by itself.",
};

const UNNAMED = { you: "You", agent: "Agent", other: "Guest" };

const visitor = new Visitor();
const outbox = new Outbox(visitor.room);
const captions = new Captions({
  list: byId("captions"),
  scroller: byId("scroller"),
  spoken: byId("spoken"),
  empty: byId("empty"),
});
let call = null;

const listener = {
  changed: render,
  missed: showStored,
  lost: findLost,
  silenced: () => captions.cutAll(),
  heard: (element) => page.audio.append(element),
  said: (reader, speaker, who) => captions.follow(reader, speaker, who),
  wrote: (id, text, speaker, who) => captions.write(`chat/${id}`, speaker, who, text, "final"),
  typed: (line, state) => captions.write(line.id, "you", "You", line.text, state),
  agentCame(which) {
    const told = { there: "The agent is here.", first: "The agent joined.", other: "Another agent took over.", same: "The agent is back." };
    captions.tell("agent-came", told[which]);
  },
  agentGone() {
    captions.cutAll();
    captions.tell("agent-gone", "The agent dropped out.");
  },
  microphoneFailed(error) {
    const reasons = {
      NotAllowedError: "The browser does not allow the microphone: allow it beside the address, then press Unmute.",
      NotFoundError: "There is no microphone.",
      NotReadableError: "Another program holds the microphone.",
    };
    const insecure = "Browsers allow the microphone only on https and on this machine's own addresses.";
    const reason = navigator.mediaDevices ? (reasons[error.name] ?? "The microphone cannot be used.") : insecure;
    notice(`${reason} You can hear the agent and type.`);
  },
};

/** What the page shows: `[state, sentence]`; the state is the status line's data-state. */
function situation() {
  switch (call.phase) {
    case "idle":
      return ["idle", call.reason || "Not in the call."];
    case "joining":
      return ["joining", "Joining…"];
    case "reconnecting":
      return ["reconnecting", "Connection lost: reconnecting…"];
    case "retrying":
      return ["retrying", "No connection to the call: reconnecting…"];
    case "ended":
      return ["ended", call.reason];
  }
  if (call.agent) return ["connected", "Connected"];
  if (call.agentLost) return ["replacing", WAITING[call.waiting] ?? "The agent is being replaced…"];
  return ["waiting", WAITING[call.waiting] ?? "Waiting for the agent…"];
}

function render() {
  const [state, sentence] = situation();
  const inside = state !== "idle" && state !== "ended";
  const focused = document.activeElement;
  if (page.status.textContent !== sentence) page.status.textContent = sentence;
  page.status.dataset.state = state;
  page.lobby.hidden = inside;
  page.controls.hidden = !inside;
  page.join.disabled = false;
  renderMute();
  page.sound.hidden = !call.soundBlocked;
  renderPeople();
  if (!inside) notice("");
  // what is hidden drops the focus, and who types would start at the top of the page again
  if (focused !== document.body && focused?.offsetParent === null) (inside ? page.text : page.join).focus();
}

function renderMute() {
  const open = call.microphone === "on";
  // not `disabled`, which would take the focus away while the connection is lost for a moment
  page.mute.setAttribute("aria-disabled", String(call.microphone === "off"));
  page.mute.textContent = open || call.microphone === "off" ? "Mute" : "Unmute";
  page.mute.setAttribute("aria-pressed", String(!open && call.microphone !== "off"));
  if (open || call.microphone === "muted") notice("");
}

function renderPeople() {
  const people = call.people;
  page.people.replaceChildren(...people.map(personItem));
  page.nobody.hidden = people.length > 0;
  const isOutside = call.phase === "idle" || call.phase === "ended";
  page.nobody.textContent = isOutside ? "Who is here appears when you join." : "Nobody yet.";
}

function personItem(person) {
  const item = document.createElement("li");
  Object.assign(item.dataset, { identity: person.identity, role: person.role, state: person.state });
  item.classList.toggle("speaking", person.speaking);
  const name = document.createElement("span");
  name.className = "name";
  name.dir = "auto";
  name.textContent = person.name || UNNAMED[person.role];
  const about = document.createElement("span");
  about.className = "about";
  about.textContent = describe(person);
  item.append(name, about);
  return item;
}

function describe({ name, role, state, current }) {
  // who has no name is called what they are
  const what = name ? [{ you: "you", agent: "agent", other: "guest" }[role]] : [];
  if (role === "you") what.push({ muted: "muted", blocked: "no microphone" }[call.microphone]);
  if (role === "agent") what.push(current ? (AGENT_STATES[state] ?? state) : "replaced");
  return what.filter(Boolean).join(", ");
}

/** What was said before: after a refresh, and after a connection that was lost for a while. */
async function showStored() {
  const lines = await visitor.storedLines();
  if (lines !== null) captions.restore(lines);
  return lines;
}

/** Which of these lines the conversation does not hold; null where that cannot be learnt now, none if it never can. */
async function findLost(lines) {
  const stored = await showStored();
  if (stored === null) return null;
  return stored.length > 0 ? lines.filter((line) => !captions.isStored(line.id)) : [];
}

function notice(sentence) {
  page.notice.hidden = !sentence;
  if (page.notice.textContent !== sentence) page.notice.textContent = sentence;
}

function join() {
  visitor.name = page.name.value.trim();
  call.join();
}

async function loadLibrary() {
  try {
    await import(LIBRARY); // LiveKit's own build for browsers: its names are in a global
    return globalThis.LivekitClient;
  } catch {
    const response = await fetch(LIBRARY).catch(() => null);
    const body = response?.ok === false ? await response.json().catch(() => ({})) : {};
    throw new Error(body.error ?? "The page could not be loaded completely: reload it.");
  }
}

function wire() {
  page.lobby.addEventListener("submit", (event) => {
    event.preventDefault();
    join();
    page.text.focus();
  });
  page.writing.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = page.text.value.trim();
    if (text) call.send(text);
    page.text.value = outbox.draft = "";
    page.text.focus();
  });
  page.text.addEventListener("input", () => (outbox.draft = page.text.value));
  page.leave.addEventListener("click", () => {
    call.leave();
    page.join.focus();
  });
  page.mute.addEventListener("click", () => {
    if (call.microphone !== "off") call.setMuted(call.microphone === "on");
  });
  page.sound.addEventListener("click", () => call.startSound());
  window.addEventListener("pagehide", () => {
    keep("sessionStorage", FOCUS, document.activeElement?.id || null);
    call.sleep();
  });
  window.addEventListener("pageshow", (event) => event.persisted && call.wake());
  document.addEventListener("freeze", () => call.sleep());
  document.addEventListener("resume", () => call.wake());
  window.addEventListener("online", () => call.wake());
  window.addEventListener("hashchange", () => visitor.takeKey());
}

// For tests and for the curious: nothing here lets anybody in.
Object.defineProperty(window, "callState", {
  get: () =>
    Object.freeze({
      state: page.status.dataset.state,
      room: visitor.room,
      identity: visitor.identity,
      agent: call?.agent ?? null,
      microphone: call?.microphone ?? "off",
    }),
});

async function start() {
  page.room.textContent = visitor.room;
  page.name.value = visitor.name;
  let livekit;
  try {
    livekit = await loadLibrary();
  } catch (error) {
    page.status.dataset.state = "blocked";
    page.status.textContent = error.message;
    return;
  }
  livekit.setLogLevel(livekit.LogLevel.warn);
  const { Call } = await import("./call.js");
  call = new Call(livekit, visitor, outbox, listener);
  wire();
  page.text.value = outbox.draft;
  call.recall();
  if (visitor.joined) call.join();
  else render();
  byId(recall("sessionStorage", FOCUS))?.focus();
  await showStored();
}

start();
