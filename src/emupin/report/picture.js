// A host's CPUs as SVG: nodes, cores, and siblings below each other.

const WIDE = 36, HIGH = 28, GAP = 6, ACROSS = 16, TITLE = 22, LETTER = 8;

function blocks(one) {
  const host = topologies[one.topology] || { online: one.online || "", nodes: {}, cores: [], isolated: "" };
  const online = cpus(host.online), cores = host.cores.map((text) => [...cpus(text)].sort((a, b) => a - b));
  const known = new Set(cores.flat());
  cores.push(...[...without(online, known)].map((cpu) => [cpu]));
  cores.sort((a, b) => a[0] - b[0]);
  const made = Object.entries(host.nodes).map(([node, list]) => {
    const members = cpus(list);
    return { title: `node ${node}`, cores: cores.filter((core) => members.has(core[0])) };
  });
  const placed = new Set(made.flatMap((block) => block.cores.flat()));
  const rest = cores.filter((core) => !placed.has(core[0]));
  if (rest.length) made.push({ title: "CPUs of no known node", cores: rest });
  return { made, isolated: cpus(host.isolated) };
}

function owners(uses) {
  const byCpu = new Map();
  for (const [owner, list] of Object.entries(uses || {})) for (const cpu of cpus(list)) byCpu.set(cpu, [...(byCpu.get(cpu) || []), owner]);
  return byCpu;
}

function looks(one, before, after) {
  const policy = policies[one.policy] || { reserved: "", pool: "" };
  const reserved = cpus(policy.reserved), pool = cpus(policy.pool), old = cpus(before), now = cpus(after);
  const vcpus = new Map();
  for (const [vcpu, list] of one.vcpus) for (const cpu of cpus(list)) vcpus.set(cpu, [...(vcpus.get(cpu) || []), vcpu]);
  const foreign = owners(one.others.vcpus), dedicated = owners(one.others.dedicated), shared = owners(one.others.shared);
  const floating = owners(one.others.floating), iothreads = owners(one.others.iothreads);
  const interrupts = cpus((topologies[one.topology] || {}).interrupts || "");
  const guests = (uuids) => `guest${uuids.length > 1 ? "s" : ""} ${uuids.join(", ")}`;
  return (cpu, isolated) => {
    const own = vcpus.get(cpu) || [];
    const words = [reserved.has(cpu) ? "reserved" : pool.has(cpu) ? "pool" : "unassigned"];
    if (isolated) words.push("isolated");
    if (own.length) words.push(`vCPU ${own.join(", ")} of this guest`);
    if (foreign.has(cpu)) words.push(`a vCPU of ${guests(foreign.get(cpu))}`);
    if (floating.has(cpu)) words.push(`vCPUs that float, of ${guests(floating.get(cpu))}`);
    if (iothreads.has(cpu)) words.push(`iothreads of ${guests(iothreads.get(cpu))}`);
    if (dedicated.has(cpu)) words.push(`dedicated to ${guests(dedicated.get(cpu))}`);
    if (shared.has(cpu)) words.push(`emulator threads of ${guests(shared.get(cpu))}`);
    if (interrupts.has(cpu)) words.push("handles network interrupts");
    const sign = old.has(cpu) ? (now.has(cpu) ? "=" : "−") : now.has(cpu) ? "+" : "";
    if (sign) words.push(`the emulator threads ${{ "=": "stay", "−": "leave", "+": "come" }[sign]}`);
    const zone = reserved.has(cpu) ? "reserved" : pool.has(cpu) ? "pool" : "plain";
    const symbol = (own.length > 1 ? "v*" : own.length ? `v${own[0]}` : "") + (foreign.has(cpu) ? "o" : "") +
      (floating.has(cpu) ? "f" : "") + (iothreads.has(cpu) ? "t" : "") + (interrupts.has(cpu) ? "!" : "") +
      (dedicated.has(cpu) ? "#" : "") + (shared.has(cpu) ? "~" : "");
    return { zone, symbol, sign, isolated, own: own.length > 0, words: `CPU ${cpu}: ${words.join("; ")}` };
  };
}

function box(cpu, look, x, y) {
  const children = [shape("title", {}, look.words), shape("rect", { class: `zone ${look.zone}`, x, y, width: WIDE, height: HIGH })];
  if (look.zone === "reserved") children.push(shape("rect", { fill: "url(#hatch)", x, y, width: WIDE, height: HIGH }));
  if (look.isolated) children.push(shape("rect", { class: "isolated", x, y: y + HIGH - 3, width: WIDE, height: 3 }));
  children.push(shape("text", { class: "cpu", x: x + 3, y: y + 10 }, `${cpu}`));
  if (look.symbol) children.push(shape("text", { class: look.own ? "symbol own" : "symbol", x: x + WIDE / 2, y: y + 22, "text-anchor": "middle" }, look.symbol));
  if (look.sign) {
    const kind = { "=": "stay", "−": "leave", "+": "come" }[look.sign];
    children.push(shape("rect", { class: `emulator ${kind}`, x: x + 1.5, y: y + 1.5, width: WIDE - 3, height: HIGH - 3 }));
    children.push(shape("text", { class: `sign ${kind}`, x: x + WIDE - 4, y: y + 11, "text-anchor": "end" }, look.sign));
  }
  return shape("g", { "data-cpu": cpu }, ...children);
}

function picture(one, before, after) {
  const { made, isolated } = blocks(one);
  if (!made.length) return [];
  const lookOf = looks(one, before, after), shapes = [], seen = new Map();
  let top = 0, width = 0;
  for (const block of made) {
    const deep = Math.max(1, ...block.cores.map((core) => core.length)), tall = deep * HIGH + GAP;
    const count = block.cores.flat().length;
    const title = `${block.title}: ${block.cores.length} cores, ${count} CPUs`;
    shapes.push(shape("text", { class: "node", x: 0, y: top + 15 }, title));
    width = Math.max(width, title.length * LETTER);
    top += TITLE;
    block.cores.forEach((core, at) => {
      const x = (at % ACROSS) * (WIDE + GAP) + 1, y = top + Math.floor(at / ACROSS) * tall + 1;
      core.forEach((cpu, sibling) => {
        const look = lookOf(cpu, isolated.has(cpu));
        remind(seen, look);
        shapes.push(box(cpu, look, x, y + sibling * HIGH));
      });
      width = Math.max(width, x + WIDE + 2);
    });
    top += Math.ceil(block.cores.length / ACROSS) * tall + 6;
  }
  const hatch = shape("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    shape("rect", { class: "hatch", width: 1.5, height: 6 }));
  const label = `CPUs of the host; emulator threads before: ${before || "none"}, after: ${after || "none"}`;
  const drawn = shape("svg", { id: "picture", role: "img", "aria-label": label, viewBox: `0 0 ${width} ${top}` }, shape("defs", {}, hatch), ...shapes);
  drawn.style.maxWidth = `${width * 1.25}px`;
  drawn.style.minWidth = `${Math.min(width, 560)}px`;
  const legend = [...seen].map(([symbol, meaning]) => element("li", {}, element("b", { class: `key k-${meaning.split(/\W/)[0]}` }, symbol), ` ${meaning}`));
  const note = topologies[one.topology] ? "" : element("p", { class: "doubt" }, "The host's topology is not kept: nodes and cores are not known.");
  return [element("h3", {}, "CPUs"), note, element("div", { class: "wide", tabindex: "0" }, drawn), element("ul", { class: "legend" }, ...legend)].filter(Boolean);
}

function remind(seen, look) {
  const add = (symbol, meaning) => seen.set(symbol, meaning);
  if (look.zone === "reserved") add("╱╱", "reserved");
  if (look.zone === "pool") add("■", "pool");
  if (look.isolated) add("▁", "isolated");
  if (/v\d/.test(look.symbol)) add("v0…", "vCPUs of this guest, a core's siblings stand below each other");
  if (look.symbol.includes("v*")) add("v*", "several vCPUs of this guest");
  if (look.symbol.includes("o")) add("o", "vCPUs of other guests");
  if (look.symbol.includes("f")) add("f", "vCPUs that float, of other guests");
  if (look.symbol.includes("t")) add("t", "iothreads of other guests");
  if (look.symbol.includes("!")) add("!", "network interrupts are handled here");
  if (look.symbol.includes("#")) add("#", "dedicated to another guest's emulator threads");
  if (look.symbol.includes("~")) add("~", "emulator threads of other guests");
  if (look.sign) add(look.sign, { "=": "stay: the emulator threads were and are here", "−": "leave: the emulator threads were here", "+": "its emulator threads go here" }[look.sign]);
}
