// One caller's call: the connection and its repair, the microphone, the agent that may be replaced under it.
// It knows nothing of the page; it tells a listener what changed.

import { RefusedError } from "./visitor.js";

const FIRST_DELAY = 500; // ms; doubled with every attempt
const LONGEST_DELAY = 15_000;
const STABLE = 10_000; // ms after which a connection counts as one that works
const SETTLING = 2_000; // ms after which an agent that tells no state is taken to listen
const STORING = 1_000; // ms after which what was said is stored
const ASKING = 2_000; // ms between two questions for an agent, where there is none
const RESENDING = 2_000; // ms behind a line that could not be sent
const LOOKING = 5_000; // ms between two looks at a conversation that cannot be read
const FOLLOWING = 15_000; // ms after which an agent is asked for behind one that is gone: workers have another one come

const UNREADY = new Set(["initializing"]);
const UNNAMED = { agent: "Agent", other: "Guest" };

// An identity is made for programs, and no name.
function nameOf(person) {
  return person?.name && person.name !== person.identity ? person.name : "";
}

export class Call {
  /** idle | joining | connected | reconnecting | retrying | ended */
  phase = "idle";
  /** Why the call ended, or why it does not begin; a sentence. */
  reason = "";
  /** off | on | muted | blocked: the last when the browser gives no microphone. */
  microphone = "off";
  /** Where there is no agent: what its absence is due to, as the page's server says; "" before it was asked. */
  waiting = "";

  #livekit;
  #visitor;
  #listener;
  #room = null;
  #wanted = false;
  #asleep = false;
  #attempts = 0;
  #retry = 0;
  #stable = 0;
  #agents = new Map(); // identity → when it was first seen, and whether it was there before us
  #met = new Set(); // identities of all agents of this call
  #goneTold = false;
  #outbox;
  #sending = false;
  #missesLine = false;
  #asking = 0;
  #looking = 0;
  #resending = 0;

  /** `outbox` keeps what is not sent yet; what it holds already is sent first. */
  constructor(livekit, visitor, outbox, listener) {
    this.#livekit = livekit;
    this.#visitor = visitor;
    this.#outbox = outbox;
    this.#listener = listener;
  }

  /** Everybody in the call, oneself first. */
  get people() {
    if (!this.#here) return [];
    return [this.#room.localParticipant, ...this.#room.remoteParticipants.values()].map((person) => ({
      identity: person.identity,
      name: nameOf(person),
      role: this.#roleOf(person),
      speaking: person.isSpeaking,
      state: person.attributes["lk.agent.state"] ?? "",
      current: person === this.#agent,
    }));
  }

  /** `{identity, state}` of the agent that came last, or null. */
  get agent() {
    const agent = this.#agent;
    return agent ? { identity: agent.identity, state: agent.attributes["lk.agent.state"] ?? "" } : null;
  }

  /** There was an agent, and there is none. */
  get agentLost() {
    return this.#met.size > 0 && this.#agent === null;
  }

  get soundBlocked() {
    return this.#here && !this.#room.canPlaybackAudio;
  }

  async join() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#attempts = 0;
    this.#met.clear();
    this.#goneTold = false;
    await this.#connect("joining");
  }

  async leave() {
    await this.#stop("idle", "You left the call.");
  }

  async setMuted(muted) {
    this.#visitor.muted = muted;
    if (this.#here) await this.#setMicrophone(this.#room);
  }

  /** Needs a user's gesture in browsers that hold sound back. */
  async startSound() {
    await this.#room?.startAudio().catch(() => {});
    this.#listener.changed();
  }

  /** Send a message to the agent, at once or as soon as there is one that listens. */
  send(text) {
    const line = { id: `typed-${crypto.randomUUID()}`, text };
    this.#outbox.add(line);
    this.#listener.typed(line, "waiting");
    this.#sendWaiting();
  }

  /** Show what a refresh left unsent. What may have been sent is not sent again: it is for the caller to say. */
  recall() {
    for (const line of this.#outbox.sent) this.#listener.typed(line, "final");
    for (const line of this.#outbox.lines) {
      if (line.begun) this.#outbox.remove(line);
      this.#listener.typed(line, line.begun ? "unsure" : "waiting");
    }
  }

  /** The page goes away, perhaps for good. */
  sleep() {
    this.#asleep = true;
    clearTimeout(this.#retry);
    this.#room?.disconnect();
  }

  /** The page, or the network, is back: do not wait for the next attempt. */
  wake() {
    this.#asleep = false;
    if (this.#wanted && this.#room === null) this.#connect("retrying");
  }

  async #connect(phase) {
    clearTimeout(this.#retry);
    const room = new this.#livekit.Room({ disconnectOnPageLeave: false });
    this.#room = room;
    this.#listen(room);
    this.#enter(phase);
    try {
      const { url, token } = await this.#visitor.requestTicket();
      if (room !== this.#room) return;
      await room.connect(url, token);
    } catch (error) {
      if (room === this.#room) this.#failed(error);
      return;
    }
    if (room !== this.#room) {
      room.disconnect();
      return;
    }
    if (room.state === "disconnected") {
      this.#retryLater();
      return;
    }
    this.#stable = setTimeout(() => (this.#attempts = 0), STABLE);
    this.#enter("connected");
    this.#listener.missed();
    this.#lookForAgents(true);
    await Promise.all([this.startSound(), this.#setMicrophone(room)]);
  }

  #listen(room) {
    const { RoomEvent } = this.#livekit;
    const on = (event, react) => room.on(event, (...args) => room === this.#room && react(...args));
    const look = () => this.#lookForAgents();
    const changed = () => this.#listener.changed();
    on(RoomEvent.SignalReconnecting, () => this.#enter("reconnecting"));
    on(RoomEvent.Reconnecting, () => this.#enter("reconnecting"));
    on(RoomEvent.Reconnected, () => {
      this.#enter("connected");
      this.#listener.missed();
      this.#agents.forEach((_, identity) => this.#settle(identity, true));
      this.#lookForAgents(true);
    });
    // while joining, `connect` fails as well, and says more
    on(RoomEvent.Disconnected, (reason) => this.#here && this.#lost(reason));
    for (const event of ["ParticipantConnected", "ParticipantDisconnected", "ParticipantAttributesChanged"]) {
      on(RoomEvent[event], look);
    }
    for (const event of ["ActiveSpeakersChanged", "ParticipantNameChanged", "AudioPlaybackStatusChanged"]) {
      on(RoomEvent[event], changed);
    }
    on(RoomEvent.TrackSubscribed, (track) => track.kind === "audio" && this.#listener.heard(track.attach()));
    on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((element) => element.remove()));
    room.registerTextStreamHandler("lk.transcription", (reader, { identity }) => {
      if (room !== this.#room) return;
      const [role, who] = this.#speaker(identity);
      if (role === "agent") this.#outbox.arrivedAt(identity);
      this.#listener.said(reader, role, who);
    });
    room.registerTextStreamHandler("lk.chat", (reader, { identity }) => this.#readChat(reader, identity));
  }

  async #readChat(reader, identity) {
    try {
      const text = await reader.readAll();
      this.#listener.wrote(reader.info.id, text, ...this.#speaker(identity));
    } catch {
      // its sender went away in the middle of a message
    }
  }

  #speaker(identity) {
    const person = this.#room?.getParticipantByIdentity(identity);
    const role = person ? this.#roleOf(person) : "other";
    return [role, role === "you" ? "You" : nameOf(person) || UNNAMED[role]];
  }

  #failed(error) {
    if (error instanceof RefusedError) {
      this.#stop("ended", error.message);
      return;
    }
    const { ConnectionError, ConnectionErrorReason } = this.#livekit;
    if (error instanceof ConnectionError && error.reason === ConnectionErrorReason.NotAllowed) {
      this.#stop("ended", "The voice server refused this page's token: their API key or secret differ.");
      return;
    }
    const left = error instanceof ConnectionError && error.reason === ConnectionErrorReason.LeaveRequest;
    this.#lost(left ? error.context : undefined);
  }

  #lost(reason) {
    const { DisconnectReason } = this.#livekit;
    const final = {
      [DisconnectReason.DUPLICATE_IDENTITY]: "You joined from another window, so this one left.",
      [DisconnectReason.ROOM_DELETED]: "The call was ended.",
      [DisconnectReason.PARTICIPANT_REMOVED]: "You were removed from the call.",
    };
    if (reason in final) this.#stop("ended", final[reason]);
    else this.#retryLater();
  }

  #retryLater() {
    this.#drop();
    const delay = Math.min(FIRST_DELAY * 2 ** this.#attempts, LONGEST_DELAY);
    this.#attempts += 1;
    this.#enter("retrying");
    if (this.#asleep) return;
    // between half and all of it, so that callers who lost one server do not all come back in one moment
    this.#retry = setTimeout(() => this.#connect("retrying"), delay * (0.5 + Math.random() / 2));
  }

  async #stop(phase, reason) {
    this.#wanted = false;
    const room = this.#drop();
    for (const line of this.#outbox.lines) {
      this.#outbox.remove(line);
      this.#listener.typed(line, "unsent");
    }
    this.#outbox.settle(this.#outbox.sent, []);
    this.reason = reason;
    this.#enter(phase);
    await room?.disconnect();
  }

  // From here on nothing that the old room still says is listened to.
  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#stable);
    this.#agentIsThere();
    const room = this.#room;
    this.#room = null;
    this.#agents.clear();
    this.microphone = "off";
    this.#listener.silenced();
    return room;
  }

  #enter(phase) {
    this.phase = phase;
    if (phase === "idle" || phase === "ended") this.#visitor.joined = false;
    if (phase === "joining" || phase === "connected") this.#visitor.joined = true;
    this.#listener.changed();
  }

  get #here() {
    return this.#room !== null && (this.phase === "connected" || this.phase === "reconnecting");
  }

  #roleOf(person) {
    if (person === this.#room?.localParticipant) return "you";
    return person.isAgent || "lk.agent.state" in person.attributes ? "agent" : "other";
  }

  get #agent() {
    if (!this.#here) return null;
    let newest = null;
    for (const identity of this.#agents.keys()) newest = this.#room.remoteParticipants.get(identity) ?? newest;
    return newest;
  }

  #lookForAgents(hasJustCome = false) {
    // while the client starts over, it reports everybody as gone
    if (this.phase !== "connected") return;
    const everybody = [...this.#room.remoteParticipants.values()];
    const present = everybody.filter((person) => this.#roleOf(person) === "agent");
    present.sort((one, other) => (one.joinedAt ?? 0) - (other.joinedAt ?? 0));
    const identities = new Set(present.map((person) => person.identity));
    const gone = [...this.#agents.keys()].filter((identity) => !identities.has(identity));
    gone.forEach((identity) => this.#agents.delete(identity));
    const arrived = [...identities].filter((identity) => !this.#agents.has(identity));
    arrived.forEach((identity) => this.#welcome(identity, hasJustCome));
    if (gone.length > 0 && this.#agents.size === 0) {
      this.#goneTold = true;
      this.#listener.agentGone();
    }
    this.#noticeMissedLine(hasJustCome);
    if (this.#agent === null) this.#missAgent();
    else this.#agentIsThere();
    this.#sendWaiting();
    this.#listener.changed();
  }

  // Who comes in the middle of what an agent says hears none of it as text: it is stored when it was said.
  #noticeMissedLine(hasJustCome) {
    const isSpeaking = this.agent?.state === "speaking";
    if (hasJustCome) this.#missesLine = isSpeaking;
    else if (this.#missesLine && !isSpeaking) {
      this.#missesLine = false;
      setTimeout(() => this.#listener.missed(), STORING);
    }
  }

  // Nobody may have been there to hear that an agent is wanted: it is asked for again until there is one.
  #missAgent() {
    if (this.#asking !== 0) return;
    const ask = async () => {
      const asking = this.#asking;
      const waiting = this.phase === "connected" ? await this.#visitor.askForAgent() : this.waiting;
      if (asking !== this.#asking) return; // one came meanwhile, or the call is over
      this.waiting = waiting;
      this.#asking = setTimeout(ask, ASKING);
      this.#listener.changed();
    };
    this.#asking = setTimeout(ask, this.agentLost ? FOLLOWING : ASKING);
  }

  #agentIsThere() {
    clearTimeout(this.#asking);
    this.#asking = 0;
    this.waiting = "";
  }

  #welcome(identity, wasThere) {
    const first = this.#met.size === 0;
    const known = this.#met.has(identity);
    this.#settle(identity, wasThere);
    this.#met.add(identity);
    if (!known) this.#listener.agentCame(first ? (wasThere ? "there" : "first") : "other");
    else if (this.#goneTold) this.#listener.agentCame("same");
    this.#goneTold = false;
  }

  #settle(identity, wasThere) {
    this.#agents.set(identity, { seen: Date.now(), wasThere });
    setTimeout(() => this.#sendWaiting(), SETTLING);
  }

  // An agent that has just come does not listen for text yet: what is sent to it then is lost. One that was there before
  // us listens, and may have to find its way to us first: both may have lost the same server.
  get #agentListens() {
    const agent = this.#agent;
    if (agent === null || this.phase !== "connected") return false;
    const state = agent.attributes["lk.agent.state"];
    const { seen, wasThere } = this.#agents.get(agent.identity);
    const isSettled = Date.now() - seen >= SETTLING;
    return state ? !UNREADY.has(state) && (isSettled || !wasThere) : isSettled;
  }

  async #sendWaiting() {
    if (this.#sending) return;
    this.#sending = true;
    try {
      if (this.#agentListens) await this.#takeBackLost();
      while (this.#agentListens && this.#outbox.lines.length > 0) await this.#sendFirst();
    } catch {
      // the connection broke, or was not ready to send: while it stays, nothing else gives a reason to try again
      clearTimeout(this.#resending);
      this.#resending = setTimeout(() => this.#sendWaiting(), RESENDING);
    } finally {
      this.#sending = false;
    }
  }

  // What was sent to an agent that was not heard again may have died with it: the conversation knows.
  async #takeBackLost() {
    const present = this.agent.identity;
    const doubtful = this.#outbox.sent.filter((line) => line.to !== present);
    if (doubtful.length === 0 || this.#looking !== 0) return;
    const lost = await this.#listener.lost(doubtful);
    if (lost === null) {
      this.#looking = setTimeout(() => {
        this.#looking = 0;
        this.#sendWaiting();
      }, LOOKING);
      return;
    }
    for (const line of this.#outbox.settle(doubtful, lost)) this.#listener.typed(line, "waiting");
  }

  async #sendFirst() {
    const line = this.#outbox.lines[0];
    const to = this.agent.identity;
    this.#outbox.begin(line, true);
    try {
      await this.#room.localParticipant.sendText(line.text, { topic: "lk.chat" });
    } catch (error) {
      this.#outbox.begin(line, false);
      throw error;
    }
    this.#outbox.handOver(line, to);
    this.#listener.typed(line, "final");
  }

  async #setMicrophone(room) {
    const muted = this.#visitor.muted;
    try {
      await room.localParticipant.setMicrophoneEnabled(!muted);
      if (room === this.#room) this.microphone = muted ? "muted" : "on";
    } catch (error) {
      if (room !== this.#room) return;
      this.microphone = "blocked";
      this.#listener.microphoneFailed(error);
    }
    this.#listener.changed();
  }
}
