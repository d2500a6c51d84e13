"use strict";
// Draws who follows whom. Knows nothing of requests: page.js gives it instances and hears of clicks.

const MANY = 12;          // replicas of one topology from which nodes are drawn small
const SVG = "http://www.w3.org/2000/svg";
const PROBLEMS = ["lagging", "broken", "diverged", "unreachable", "lost", "failed"];

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function seconds(n) {
  if (n < 10) return n.toFixed(1) + " s";
  if (n < 120) return Math.round(n) + " s";
  if (n < 7200) return Math.round(n / 60) + " min";
  return (n / 3600).toFixed(1) + " h";
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < 4) { n /= 1024; unit += 1; }
  return (n < 10 && unit > 0 ? n.toFixed(1) : Math.round(n)) + " " + units[unit];
}

// How long ago, in words, or since when where there is no clock to trust.
function ago(text) {
  const past = (Date.now() - new Date(text).getTime()) / 1000;
  return past < 1 ? "just now" : Math.round(past) < 120 ? Math.round(past) + " s ago" : seconds(past) + " ago";
}

// What an instance that does not answer was last known to be is old; this says how old.
function lastSeen(instance) {
  if (instance.status.verdict !== "unreachable") return "";
  return instance.status.seen_at ? "last answer " + ago(instance.status.seen_at) : "has never answered";
}

// The word for an instance, which is also its colour.
function wordOf(instance) {
  if (instance.state === "active") return instance.status.verdict;
  if (instance.state === "spare" && instance.status.verdict === "unreachable") return "unreachable";
  return instance.state;
}

function colourOf(word) {
  const known = ["healthy", "source", "lagging", "broken", "diverged", "unreachable", "building", "restoring", "lost", "failed"];
  return known.includes(word) ? word : "plain";
}

// What an instance says of its replication, whatever its datastore is called.
function replicationOf(instance) {
  return Object.values(instance).find((value) => value && Array.isArray(value.slave_of));
}

function sourceOf(instance) {
  const replication = replicationOf(instance);
  return replication && replication.slave_of.length ? replication.slave_of[0].id : null;
}

// Lag over the last minutes. A gap is where there was no answer.
function lagLine(history) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "line");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  fillLagLine(svg, history);
  return svg;
}

function fillLagLine(svg, history) {
  svg.replaceChildren();
  const floor = document.createElementNS(SVG, "line");
  floor.setAttribute("class", "floor");
  for (const [key, value] of [["x1", 0], ["x2", 100], ["y1", 19], ["y2", 19]]) floor.setAttribute(key, value);
  svg.append(floor);
  const top = Math.max(5, ...history);
  const step = 100 / Math.max(history.length - 1, 1);
  let points = [];
  const draw = () => {
    if (points.length > 1) {
      const line = document.createElementNS(SVG, "polyline");
      line.setAttribute("points", points.join(" "));
      svg.append(line);
    }
    points = [];
  };
  history.forEach((lag, n) => {
    if (lag < 0) return draw();
    points.push((n * step).toFixed(1) + "," + (19 - 17 * lag / top).toFixed(1));
  });
  draw();
}

class Graph {
  // `act(name, instance)`: "replicate" or "detach" was clicked.
  constructor(place, sparesPlace, act) {
    this.place = place;
    this.sparesPlace = sparesPlace;
    this.act = act;
    this.nodes = new Map();
    this.filter = {text: "", only: false};
    this.known = new Set();
    this.watcher = new ResizeObserver(() => this.wire());
    this.watcher.observe(place);
  }

  // Everything anew: the structure has changed.
  show(instances) {
    const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.focus : null;
    this.instances = instances;
    this.nodes.clear();
    const below = new Map();
    for (const instance of instances.values()) {
      const source = this.parentOf(instance);
      if (source) below.set(source, [...(below.get(source) || []), instance]);
    }
    this.below = below;
    const roots = [...instances.values()].filter((i) => !this.parentOf(i) && (i.state !== "spare" || below.has(i.id)));
    this.place.replaceChildren(...roots.map((root) => this.topology(root)));
    if (!roots.length) {
      this.place.append(element("p", "card empty", instances.size ? "No host has data yet."
        : "No hosts are known. Register one, here or with: guestagent register ADDRESS"));
    }
    const spares = [...instances.values()].filter((i) => i.state === "spare" && !below.has(i.id) && !this.parentOf(i));
    this.sparesPlace.replaceChildren(...(spares.length ? [this.spares(spares)] : []));
    this.known = new Set(instances.keys());
    this.applyFilter();
    this.wire();
    const again = focused && document.querySelector(`[data-focus="${CSS.escape(focused)}"]`);
    if (again) again.focus();
  }

  // A replica that is being made hangs below its source already.
  parentOf(instance) {
    const source = sourceOf(instance) || this.making.get(instance.id) || null;
    return source && this.instances.has(source) ? source : null;
  }

  making = new Map();  // instance id -> source id, of running tasks

  sizeOf(instance) {
    return 1 + (this.below.get(instance.id) || []).reduce((sum, child) => sum + this.sizeOf(child), 0);
  }

  topology(root) {
    const size = this.sizeOf(root);
    const card = element("section", "card graph" + (size > MANY ? " many" : ""));
    const title = element("h3", "", size === 1 ? "Standing alone" : `${root.name} and ${size - 1} ${size === 2 ? "replica" : "replicas"}`);
    card.setAttribute("aria-label", title.textContent + (size === 1 ? ": " + root.name : ""));
    const wires = document.createElementNS(SVG, "svg");
    wires.setAttribute("class", "wires");
    wires.setAttribute("aria-hidden", "true");
    const list = element("ul");
    list.append(this.branch(root, size > MANY));
    card.append(title, wires, list);
    return card;
  }

  branch(instance, many) {
    const item = element("li", "branch");
    item.append(this.node(instance));
    const children = this.below.get(instance.id) || [];
    if (!children.length) return item;
    const place = element("ul", "below");
    const leaves = children.filter((c) => !this.below.has(c.id));
    const grouped = many && leaves.length > 4;
    for (const child of children) {
      if (!grouped || this.below.has(child.id)) place.append(this.branch(child, many));
    }
    if (grouped) {
      const holder = element("li");
      const group = element("ul", "group");
      for (const leaf of leaves) {
        const slot = element("li");
        slot.append(this.node(leaf));
        group.append(slot);
      }
      holder.append(group);
      place.append(holder);
    }
    item.append(place);
    return item;
  }

  node(instance) {
    const node = element("article", "node");
    node.dataset.id = instance.id;
    if (this.known.size && !this.known.has(instance.id)) node.classList.add("new");
    this.nodes.set(instance.id, node);
    this.fill(node, instance);
    return node;
  }

  fill(node, instance) {
    const word = wordOf(instance);
    const isReplica = Boolean(sourceOf(instance));
    node.className = "node " + colourOf(word) + (node.classList.contains("new") ? " new" : "");
    const title = element("div", "name", instance.name);
    title.title = instance.name + (instance.address ? "\n" + instance.address : "");
    const facts = element("div", "facts");
    facts.append(element("span", "word", word));
    if (isReplica && instance.status.lag_seconds !== undefined) {
      facts.append(element("span", "lag", "lag " + seconds(instance.status.lag_seconds)));
    }
    if (isReplica && replicationOf(instance) && !replicationOf(instance).read_only) facts.append(element("span", "writable", "writable"));
    const parts = [title, facts];
    if (isReplica) parts.push(lagLine(instance.lag_history || []));
    const why = instance.state === "lost" || instance.state === "failed" ? instance.last_error
      : PROBLEMS.includes(word) ? instance.status.reasons.join("; ") : "";
    if (lastSeen(instance)) parts.push(element("div", "seen", lastSeen(instance)));
    if (why) {
      parts.push(element("div", "why", why));
      parts[parts.length - 1].title = why;
    }
    const busy = instance.task && instance.task.state !== "succeeded";
    if (busy && instance.job) parts.push(element("div", "why", instance.job.phase || instance.task.state));
    const acts = element("div", "acts");
    const add = (name, label, said) => {
      const button = element("button", "", label);
      button.type = "button";
      button.setAttribute("aria-label", said + " " + instance.name);
      button.dataset.focus = name + " " + instance.id;
      button.addEventListener("click", () => this.act(name, this.instances.get(instance.id)));
      acts.append(button);
    };
    if (instance.state === "active") add("replicate", "Replicate", "Replicate");
    if (isReplica && !(instance.task && instance.task.kind === "detach")) add("detach", "Detach", "Detach");
    if (acts.children.length) parts.push(acts);
    const focused = node.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    node.replaceChildren(...parts);
    if (focused) {
      const again = node.querySelector(`[data-focus="${CSS.escape(focused)}"]`);
      if (again) again.focus();
    }
  }

  // One instance looks different now; true when it still hangs where it was.
  update(instance) {
    const node = this.nodes.get(instance.id);
    if (!node) return false;
    this.fill(node, instance);
    this.applyFilter(node);
    return true;
  }

  tick(instance) {
    const line = this.nodes.has(instance.id) && this.nodes.get(instance.id).querySelector("svg.line");
    if (line) fillLagLine(line, instance.lag_history);
  }

  // The age of what is known of those that do not answer.
  grow(instance) {
    const seen = this.nodes.has(instance.id) && this.nodes.get(instance.id).querySelector(".seen");
    if (seen) seen.textContent = lastSeen(instance);
  }

  spares(list) {
    const card = element("section", "card spares");
    card.setAttribute("aria-label", "Free hosts");
    card.append(element("h3", "", `${list.length} free ${list.length === 1 ? "host" : "hosts"}`));
    const all = element("ul");
    for (const instance of list) {
      const item = element("li");
      item.dataset.id = instance.id;
      const dot = element("span", "dot");
      dot.setAttribute("aria-hidden", "true");
      item.className = instance.status.verdict === "unreachable" ? "unreachable" : instance.last_error ? "lagging" : "plain";
      item.append(dot, instance.name);
      const facts = [];
      if (instance.flavorRef) facts.push("flavor " + instance.flavorRef);
      if (instance.availability_zone) facts.push(instance.availability_zone);
      if (instance.volume) facts.push(instance.volume.size + " GiB");
      if (instance.status.verdict === "unreachable") facts.push("unreachable, " + lastSeen(instance));
      if (instance.last_error) facts.push("failed last time: " + instance.last_error);
      item.append(element("span", "of", facts.length ? "  " + facts.join(", ") : ""));
      all.append(item);
    }
    card.append(all);
    return card;
  }

  setFilter(text, only) {
    this.filter = {text: text.trim().toLowerCase(), only};
    this.applyFilter();
    this.wire();
  }

  applyFilter(one) {
    for (const [id, node] of this.nodes) {
      if (one && one !== node) continue;
      const instance = this.instances.get(id);
      const word = wordOf(instance);
      const text = `${instance.name} ${word} ${instance.availability_zone || ""} ${id}`.toLowerCase();
      const shown = text.includes(this.filter.text) && (!this.filter.only || PROBLEMS.includes(word) || instance.state === "building");
      // A source stays as long as something below it is to be seen.
      node.dataset.match = shown ? "yes" : "no";
    }
    const spares = [...this.sparesPlace.querySelectorAll("li")];
    for (const item of spares) {
      const instance = this.instances.get(item.dataset.id);
      const text = `${instance.name} free ${instance.availability_zone || ""} ${instance.id}`.toLowerCase();
      const wanted = !this.filter.only || instance.last_error || instance.status.verdict === "unreachable";
      item.classList.toggle("hidden", !text.includes(this.filter.text) || !wanted);
    }
    this.sparesPlace.classList.toggle("hidden", spares.length > 0 && spares.every((item) => item.classList.contains("hidden")));
    for (const item of this.place.querySelectorAll("li, section.graph")) {
      item.classList.toggle("hidden", item.querySelector('.node[data-match="yes"]') === null);
    }
  }

  // Curves from each source to what follows it. Drawn from where the nodes are.
  wire() {
    for (const card of this.place.querySelectorAll("section.graph")) {
      const svg = card.querySelector("svg.wires");
      const origin = card.getBoundingClientRect();
      svg.setAttribute("width", card.scrollWidth);
      svg.setAttribute("height", card.scrollHeight);
      const paths = [];
      for (const branch of card.querySelectorAll(".branch")) {
        const place = branch.querySelector(":scope > .below");
        if (!place || !branch.offsetParent) continue;
        const from = branch.querySelector(":scope > .node").getBoundingClientRect();
        for (const child of place.children) {
          const target = child.querySelector(":scope > .node, :scope > .group");
          const to = target.getBoundingClientRect();
          if (!to.width) continue;
          const x1 = from.right - origin.left + card.scrollLeft, x2 = to.left - origin.left + card.scrollLeft;
          const y1 = from.top + from.height / 2 - origin.top;
          // A tall group is met at the height of its source.
          const inside = from.top + from.height / 2 > to.top && from.top + from.height / 2 < to.bottom;
          const y2 = (target.classList.contains("group") && inside ? from.top + from.height / 2 : to.top + Math.min(to.height / 2, 40)) - origin.top;
          const bend = Math.max((x2 - x1) / 2, 8);
          const path = document.createElementNS(SVG, "path");
          path.setAttribute("d", `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`);
          paths.push(path);
        }
      }
      svg.replaceChildren(...paths);
    }
  }
}
