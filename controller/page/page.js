"use strict";
// Asks the API, listens to its events, and keeps what is shown true.

const EVENTS_SHOWN = 60;
const SAID_AT_ONCE = 5;
const TASKS_SHOWN = 12;
const STREAM_SILENCE = 60000;  // ms without a word from the controller, which says every 15 s that it is there
const instances = new Map();
const tasks = new Map();
let events = [];
let lagInterval = 5;
let lagSamples = 180;
const $ = (id) => document.getElementById(id);
const graph = new Graph($("graphs"), $("spares"), (name, instance) => (name === "replicate" ? askReplicate : askDetach)(instance));

// ---- requests

function headers(more) {
  const token = sessionStorage.getItem("token");
  return token ? {...more, Authorization: "Bearer " + token} : {...more};
}

class Refused extends Error {}

let askingToken = null;
function askToken() {
  if (!askingToken) {
    askingToken = new Promise((done) => {
      open($("token"), async (form) => {
        sessionStorage.setItem("token", form.token.value);
        const answer = await fetch("/tasks", {headers: headers()});
        if (answer.status === 401) throw new Refused("That is not this controller's token.");
        askingToken = null;
        done();
      });
    });
  }
  return askingToken;
}

async function api(method, path, body) {
  for (;;) {
    const answer = await fetch(path, {method, headers: headers({Accept: "application/json", "Content-Type": "application/json"}),
      body: body === undefined ? undefined : JSON.stringify(body)});
    if (answer.status === 401) { await askToken(); continue; }
    const text = await answer.text();
    const json = text ? JSON.parse(text) : null;
    if (!answer.ok) {
      const fault = json && Object.values(json)[0];
      throw new Refused(fault ? fault.message + (fault.hint ? ". " + fault.hint : "") : "HTTP " + answer.status);
    }
    return json;
  }
}

// ---- dialogs

// Runs `act` when the form is sent; what it throws is said in the dialog, which stays.
function open(dialog, act) {
  const form = dialog.querySelector("form");
  const wrong = dialog.querySelector(".wrong");
  const submit = dialog.querySelector("button.main");
  wrong.textContent = "";
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (submit.disabled) return;
    submit.disabled = true;
    wrong.textContent = "";
    try {
      await act(form.elements);
      dialog.close();
    } catch (error) {
      wrong.textContent = error instanceof Refused ? error.message : "No answer from the controller: " + error.message;
    } finally {
      submit.disabled = false;
    }
  };
  dialog.oncancel = (event) => { if (dialog.id === "token") event.preventDefault(); };
  const close = dialog.querySelector("[data-close]");
  if (close) close.onclick = () => dialog.close();
  dialog.showModal();
}

function askReplicate(instance) {
  const dialog = $("replicate");
  $("replicate-title").textContent = "Replicate " + instance.name;
  dialog.querySelector("form").reset();
  open(dialog, async (form) => {
    const template = {};
    if (form.flavor.value) template.flavorRef = form.flavor.value;
    if (form.zone.value) template.availability_zone = form.zone.value;
    if (form.size.value) template.volume = {size: Number(form.size.value)};
    await api("POST", `/instances/${encodeURIComponent(instance.id)}/action`, {replicate: {count: Number(form.count.value), instance: template,
      topology: {slave_of: [{id: instance.id}], read_only: form.read_only.checked}}});
    say(`Making replicas of ${instance.name}: ${form.count.value}`);
  });
}

function askDetach(instance) {
  const source = instances.get(sourceOf(instance));
  $("detach-title").textContent = `Detach ${instance.name}` + (source ? ` from ${source.name}` : "");
  open($("detach"), async () => {
    await api("POST", `/instances/${encodeURIComponent(instance.id)}/topology/action`, {detach: {}});
    say(`Detaching ${instance.name}`);
  });
}

function askHost() {
  $("host").querySelector("form").reset();
  open($("host"), async (form) => {
    const instance = {address: form.address.value.trim()};
    if (form.namedItem("name").value) instance.name = form.namedItem("name").value;
    if (form.flavor.value) instance.flavorRef = form.flavor.value;
    if (form.zone.value) instance.availability_zone = form.zone.value;
    if (form.size.value) instance.volume = {size: Number(form.size.value)};
    await api("POST", "/instances", {instance});
  });
}

// ---- what is shown beside the graph

let saying = [];

// What comes at once is said as one: a screen reader reads out only what stays.
function say(text) {
  saying.push(text);
  if (saying.length > 1) return;
  setTimeout(() => {
    const more = saying.length - SAID_AT_ONCE;
    $("said").textContent = saying.slice(0, SAID_AT_ONCE).join(". ") + (more > 0 ? `. And ${more} more` : "");
    saying = [];
  }, 100);
}

// Events that go wrong are said, once, whether the stream brings them or they were asked for before it did.
function sayWrong(fresh) {
  for (const event of fresh) if (event.level !== "info") say(event.message);
}

function showSummary() {
  const counts = new Map();
  for (const instance of instances.values()) {
    const word = instance.state === "spare" && instance.status.verdict !== "unreachable" ? "free" : wordOf(instance);
    counts.set(word, (counts.get(word) || 0) + 1);
  }
  const order = ["broken", "diverged", "unreachable", "lost", "failed", "lagging", "building", "source", "healthy"];
  const words = [...counts.keys()].sort((a, b) => (order.indexOf(a) + 1 || 99) - (order.indexOf(b) + 1 || 99));
  $("summary").replaceChildren(...words.map((word) => {
    const part = element("span", colourOf(word));
    const dot = element("span", "dot");
    dot.setAttribute("aria-hidden", "true");
    part.append(dot, `${counts.get(word)} ${word}`);
    return part;
  }));
  const bad = words.filter((w) => PROBLEMS.includes(w)).reduce((sum, w) => sum + counts.get(w), 0);
  document.title = (bad ? `(${bad}) ` : "") + "Replication topology";
}

const ENDED = ["succeeded", "failed", "cancelled"];

function jobWords(job) {
  const parts = [job.phase];
  if (job.progress.done_bytes) {
    parts.push(job.progress.total_bytes ? `${bytes(job.progress.done_bytes)} of ${bytes(job.progress.total_bytes)}` : bytes(job.progress.done_bytes));
  }
  if (job.progress.rate >= 1) parts.push(bytes(job.progress.rate) + "/s");
  if (job.progress.eta_s) parts.push(seconds(job.progress.eta_s) + " left");
  return parts.filter(Boolean).join(", ");
}

function progressBar(done, total, label) {
  const bar = element("progress");
  bar.max = total || 1;
  if (total) bar.value = done;
  bar.setAttribute("aria-label", label);
  return bar;
}

function line(name, words, job, label) {
  const item = element("li");
  const row = element("div", "row");
  row.append(element("span", "", name), element("span", "", words));
  item.append(row);
  if (job) {
    item.append(progressBar(job.progress.done_bytes, job.progress.total_bytes, label));
    if (job.note) item.append(element("div", "note", job.note));
  }
  return item;
}

function titleOf(task) {
  const source = instances.get(task.source_id);
  const name = source ? source.name : task.source_id;
  if (task.kind === "promote") return `${task.replicas[0].name} in place of ${name}`;
  if (task.kind === "rebuild") return `Make ${task.replicas[0].name} anew`;
  if (task.kind === "eject") return `Give up ${name} as source`;
  if (task.kind === "detach") return `Detach ${task.replicas[0].name}`;
  return `${task.progress.replicas} ${task.progress.replicas === 1 ? "replica" : "replicas"} of ${name}`;
}

function taskCard(task) {
  const over = ENDED.includes(task.state);
  const card = element("article", "card task " + (over ? "over " : "") +
    {running: "building", succeeded: "healthy", failed: "failed", cancelled: "plain"}[task.state]);
  card.dataset.task = task.id;
  const head = element("header");
  head.append(element("h3", "", titleOf(task)));
  head.append(element("span", "state", over ? task.state : task.cancel_requested ? "cancelling" : task.step.replace("_", " ")));
  card.append(head);
  const acts = element("div", "acts");
  const act = (label, name, body) => {
    const button = element("button", "", label);
    button.type = "button";
    button.setAttribute("aria-label", `${label}: ${titleOf(task)}`);
    button.dataset.focus = name + " " + task.id;
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await api("POST", `/tasks/${task.id}/action`, body);
      } catch (error) {
        say(error.message);
        card.append(element("p", "error", error.message));
        button.disabled = false;
      }
    });
    acts.append(button);
  };
  if (!over) {
    card.append(progressBar(task.progress.percent, 100, `${titleOf(task)}, ${task.progress.percent} percent`));
    const list = element("ul");
    if (task.snapshot_job) list.append(line("Snapshot", jobWords(task.snapshot_job), task.snapshot_job, "Snapshot"));
    for (const replica of task.replicas) {
      list.append(line(replica.name, replica.error ? "failed" : replica.job ? jobWords(replica.job) : replica.state, replica.job, replica.name));
      if (replica.error) list.lastChild.append(element("p", "error", replica.error.message));
      if (replica.error && replica.error.hint) list.lastChild.append(element("p", "note", replica.error.hint));
    }
    card.append(list);
    if (!task.cancel_requested) act("Cancel", "cancel", {cancel: {}});
  } else {
    if (task.error) card.append(element("p", "error", task.error.message));
    if (task.error && task.error.hint) card.append(element("p", "note", task.error.hint));
    // The task's own error tells of the first; each has its own.
    const wrong = task.replicas.filter((replica) => replica.state === "failed" && replica.error);
    if (wrong.length > 1) {
      const list = element("ul");
      for (const replica of wrong) {
        const item = line(replica.name, "failed");
        item.append(element("p", "error", replica.error.message));
        if (replica.error.hint) item.append(element("p", "note", replica.error.hint));
        list.append(item);
      }
      card.append(list);
    }
    if (task.warning) card.append(element("p", "note", task.warning));
    if (task.state !== "succeeded") act("Try again", "retry", {retry: {}});
  }
  if (acts.children.length) card.append(acts);
  return card;
}

function showTasks() {
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.focus : null;
  const all = [...tasks.values()].sort((a, b) => (a.state === "running") === (b.state === "running")
    ? b.created_at.localeCompare(a.created_at) : a.state === "running" ? -1 : 1);
  $("tasks").replaceChildren(...all.slice(0, Math.max(TASKS_SHOWN, all.filter((t) => t.state === "running").length)).map(taskCard));
  if (!all.length) $("tasks").append(element("p", "empty", "Nothing was asked for yet."));
  const again = focused && $("tasks").querySelector(`[data-focus="${CSS.escape(focused)}"]`);
  if (again) again.focus();
}

function showEvents() {
  $("events").replaceChildren(...events.slice(0, EVENTS_SHOWN).map((event) => {
    const item = element("li", event.level);
    const at = new Date(event.at);
    const time = element("time", "", at.toLocaleTimeString([], {hour12: false}));
    time.dateTime = event.at;
    time.title = at.toLocaleString();
    const word = event.level === "info" ? "" : event.level + ": ";
    item.append(time, element("span", "text", word + event.message));
    return item;
  }));
}

// ---- live

// Which source a host that is being made will follow.
function findMaking() {
  const making = new Map();
  for (const task of tasks.values()) {
    if (task.kind !== "replicate" || task.state !== "running") continue;
    for (const replica of task.replicas) {
      if (!ENDED.includes(replica.state)) making.set(replica.id, task.source_id);
    }
  }
  const differs = making.size !== graph.making.size || [...making].some(([id, source]) => graph.making.get(id) !== source);
  graph.making = making;
  return differs;
}

let drawing = false;
function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    graph.show(instances);
    showSummary();
  });
}

function tellEnd(known, task) {
  if (ENDED.includes(task.state) && !(known && ENDED.includes(known.state))) say(`${titleOf(task)}: ${task.state}`);
}

let loaded = false;
async function loadAll() {
  const [hosts, work, told] = await Promise.all([api("GET", "/instances?lag_history=true"), api("GET", "/tasks"), api("GET", "/events")]);
  lagInterval = hosts.lag_interval_s;
  lagSamples = hosts.lag_samples;
  instances.clear();
  for (const instance of hosts.instances) instances.set(instance.id, instance);
  const known = new Map(tasks);
  tasks.clear();
  for (const task of work.tasks) {
    tasks.set(task.id, task);
    if (loaded) tellEnd(known.get(task.id), task);
  }
  const last = events.length ? events[0].seq : 0;
  if (loaded) sayWrong(told.events.filter((event) => event.seq > last).reverse());
  loaded = true;
  events = told.events;
  findMaking();
  redraw();
  showTasks();
  showEvents();
}

let reloading = null;
function reloadSoon() {
  if (reloading) return;
  reloading = setTimeout(() => {
    reloading = null;
    loadAll().catch(() => {});  // the stream's end tells that the controller is away
  }, 150);
}

let summing = null;
const on = {
  instance(fresh) {
    const known = instances.get(fresh.id);
    if (!known) return reloadSoon();
    fresh.lag_history = known.lag_history;
    instances.set(fresh.id, fresh);
    const moved = known.state !== fresh.state || sourceOf(known) !== sourceOf(fresh);
    if (moved || (!graph.update(fresh) && fresh.state !== "spare")) redraw();
    if (!summing) summing = setTimeout(() => { summing = null; showSummary(); }, 200);
  },
  task(fresh) {
    const known = tasks.get(fresh.id);
    tasks.set(fresh.id, fresh);
    if (findMaking()) redraw();
    showTasks();
    tellEnd(known, fresh);
  },
  topology() { reloadSoon(); },
  event(fresh) {
    // All of them may have been asked for since it was sent.
    if (events.some((known) => known.seq === fresh.seq)) return;
    events.unshift(fresh);
    events.length = Math.min(events.length, EVENTS_SHOWN);
    showEvents();
    sayWrong([fresh]);
  },
};

let heard = null;  // when the controller last said anything

function link(up) {
  document.body.classList.toggle("stale", !up);
  $("link").dataset.up = up ? "yes" : "no";
  $("link-word").textContent = up ? "live" : "no connection, trying again" +
    (heard ? "; what is shown is of " + heard.toLocaleTimeString([], {hour12: false}) : "");
}

async function listen() {
  for (let pause = 500; ; pause = Math.min(pause * 2, 10000)) {
    const silence = new AbortController();
    let watch = null;
    const hear = () => {
      heard = new Date();
      clearTimeout(watch);
      watch = setTimeout(() => silence.abort(new Error("the controller has fallen silent")), STREAM_SILENCE);
    };
    try {
      // By fetch and not by EventSource, which could not send a token.
      const answer = await fetch("/events", {headers: headers({Accept: "text/event-stream"}), signal: silence.signal});
      if (answer.status === 401) { await askToken(); continue; }
      if (!answer.ok) throw new Error("HTTP " + answer.status);
      hear();
      await loadAll();
      link(true);
      pause = 500;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "";;) {
        const {value, done} = await reader.read();
        if (done) break;
        hear();
        rest += value;
        const frames = rest.split("\n\n");
        rest = frames.pop();
        for (const frame of frames) {
          const fields = Object.fromEntries(frame.split("\n").map((l) => [l.slice(0, l.indexOf(":")), l.slice(l.indexOf(":") + 2)]));
          if (fields.event && on[fields.event]) on[fields.event](JSON.parse(fields.data));
        }
      }
    } catch (error) {
      console.info("the event stream ended: " + error.message);
    }
    clearTimeout(watch);
    link(false);
    await new Promise((done) => setTimeout(done, pause));
  }
}

function sample() {
  for (const instance of instances.values()) {
    graph.grow(instance);
    if (!sourceOf(instance)) continue;
    instance.lag_history = instance.lag_history || [];
    const lag = instance.status.lag_seconds;
    instance.lag_history.push(lag === undefined ? -1 : lag);
    while (instance.lag_history.length > lagSamples) instance.lag_history.shift();
    graph.tick(instance);
  }
  setTimeout(sample, lagInterval * 1000);
}

$("find").addEventListener("input", () => graph.setFilter($("find").value, $("only").checked));
$("only").addEventListener("change", () => graph.setFilter($("find").value, $("only").checked));
$("register").addEventListener("click", askHost);
listen();
setTimeout(sample, lagInterval * 1000);
