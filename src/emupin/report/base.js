// What all parts of the page use: its data, elements, and CPU lists. Every text from elsewhere becomes a text node, never
// markup; nothing is fetched.

const byId = (id) => document.getElementById(id);
const index = JSON.parse(byId("index").textContent);
const { columns, texts, details, policies, topologies, hostLabel } = index;
const total = columns.time.length;
const islands = document.querySelectorAll("script.piece");
const ROW = 30, AROUND = 12, MOST_PRINTED = 1000, MOST_PIECES = 30;
const SELECTS = ["outcome", "op", "rule", "replay", "host"];
const INPUTS = ["q", "since", "until"];
const SEARCHED = ["host", "name", "uuid", "op", "outcome", "rule", "placement", "before", "after", "reason"];
const isAudit = hostLabel === "host";
const FIRST_SORT = isAudit ? "-time" : "host";
const HEADS = [
  ["time", "time"], ["host", hostLabel], ["name", "guest"], ["op", "op"], ["rule", "rule"],
  ["after", "emulator CPUs"], ["outcome", "outcome"], ["replay", "replay"],
].filter(([key]) => isAudit || !["time", "op", "replay"].includes(key));

const lower = texts.map((text) => (text === null ? "" : text.toLowerCase()));
const state = { q: "", since: "", until: "", outcome: "", op: "", rule: "", replay: "", host: "", sort: FIRST_SORT };
let found = [];       // rows that pass the filters, in order
let selected = -1;    // a row

const value = (name, row) => texts[columns[name][row]];

// -- elements ------------------------------------------------------------------------------------------------------

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  return fill(made, attributes, children);
}

function shape(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  return fill(made, attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, text] of Object.entries(attributes || {})) {
    if (text !== null && text !== undefined) made.setAttribute(key, text);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

// -- CPU lists -----------------------------------------------------------------------------------------------------

function cpus(list) {
  const set = new Set();
  for (const part of (list || "").split(",")) {
    const ends = part.split("-").map(Number);
    const last = Math.min(ends[ends.length - 1], 16383);
    if (part !== "") for (let cpu = ends[0]; cpu <= last; cpu++) set.add(cpu);
  }
  return set;
}

function listed(set) {
  const sorted = [...set].sort((a, b) => a - b), parts = [];
  for (let at = 0; at < sorted.length; at++) {
    const first = sorted[at];
    while (sorted[at + 1] === sorted[at] + 1) at++;
    parts.push(first === sorted[at] ? `${first}` : `${first}-${sorted[at]}`);
  }
  return parts.join(",");
}

const without = (set, other) => new Set([...set].filter((cpu) => !other.has(cpu)));
