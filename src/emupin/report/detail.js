// One decision in full.

const pieces = new Map();

function detail(row) {
  const at = Math.floor(row / index.piece);
  if (!pieces.has(at)) {
    if (pieces.size >= MOST_PIECES) pieces.delete(pieces.keys().next().value);
    pieces.set(at, JSON.parse(islands[at].textContent));
  }
  const { values, rows } = pieces.get(at), numbers = rows[row % index.piece];
  return Object.fromEntries(details.map((name, place) => [name, values[numbers[place]]]));
}

function show(row) {
  const one = detail(row), before = value("before", row), after = value("after", row);
  const outcome = value("outcome", row), op = value("op", row);
  byId("detail").replaceChildren(
    element("h2", {}, value("name", row) || value("uuid", row) || op || "?"),
    element("p", {}, element("strong", { class: bad[outcome] }, outcome || "?"), ` · ${op || "?"} · ${value("host", row)}`,
      value("time", row) ? ` · ${value("time", row)}` : ""),
    element("p", { class: "reason" }, value("reason", row) || "no reason is given"),
    facts([["UUID", value("uuid", row)], ["rule", value("rule", row)], ["placement", value("placement", row)],
      ["replay", replayed(row, one)], ["entry", isAudit ? one.where : ""]]),
    ...differences(one),
    ...change(before, after),
    ...diff(one.diff),
    ...warnings(one.warnings),
    ...placements(one.placements),
    ...picture(one, before, after),
    ...origin(one),
  );
}

function facts(pairs) {
  return element("dl", { class: "facts" }, ...pairs.filter(([, text]) => text).map(([label, text]) =>
    element("div", {}, element("dt", {}, label), element("dd", {}, text))));
}

function replayed(row, one) {
  if (!isAudit) return "";
  const status = value("replay", row);
  const means = {
    same: "the same decision again", different: "decided differently now",
    "not replayable": "cannot be decided again", "no decision": "nothing was decided here",
  };
  return element("span", { class: good[status] || "" }, `${means[status] || status}${one.why ? `: ${one.why}` : ""}`);
}

function differences(one) {
  if (!one.differences.length) return [];
  const rows = one.differences.map(([field, then, now]) =>
    element("tr", {}, element("th", { scope: "row" }, field), element("td", {}, element("del", {}, then)), element("td", {}, element("ins", {}, now))));
  const head = element("tr", {}, ...["", `on record, by emupin ${one.version || "?"}`, "decided again"].map((text) => element("th", { scope: "col" }, text)));
  return [element("h3", {}, "Decided differently now"), element("div", { class: "wide" }, element("table", { id: "differences" }, element("thead", {}, head), element("tbody", {}, ...rows)))];
}

function change(before, after) {
  const old = cpus(before), now = cpus(after);
  const sets = [["leave", "del", without(old, now)], ["stay on", "span", without(old, without(old, now))], ["come to", "ins", without(now, old)]];
  const shown = sets.filter(([, , set]) => set.size).map(([label, tag, set]) =>
    element("li", {}, `${label} `, element(tag, { class: "set" }, listed(set))));
  if (!shown.length) return [];
  return [element("h3", {}, "Emulator threads"), element("ul", { class: "sets" }, ...shown)];
}

function diff(lines) {
  if (!lines.length) return [];
  const shown = lines.map((text) => {
    const tag = text.startsWith("-") ? "del" : text.startsWith("+") ? "ins" : "span";
    const match = /^(.*cpuset=['"])([^'"]*)(['"].*)$/.exec(text);
    const content = match ? [match[1], element("mark", {}, match[2]), match[3]] : [text];
    return element(tag, {}, ...content, "\n");
  });
  return [element("h3", {}, "Change"), element("pre", { id: "diff", tabindex: "0" }, ...shown)];
}

function warnings(lines) {
  if (!lines.length) return [];
  return [element("h3", {}, "Warnings"), element("ul", { class: "doubt" }, ...lines.map((text) => element("li", {}, text)))];
}

function placements(tried) {
  if (!tried.length) return [];
  const rows = tried.map((one) => {
    const said = one.complaints.map(([check, level, complaint]) =>
      element("li", { class: level === "error" ? "bad" : "doubt" }, `${check} (${level}): ${complaint}`));
    if (one.passed.length) said.push(element("li", {}, `passed: ${one.passed.join(", ")}`));
    if (one.silent.length) said.push(element("li", { class: "quiet" }, `not asked: ${one.silent.join(", ")}`));
    const problem = one.problem && !one.complaints.some(([, , complaint]) => complaint === one.problem) ? element("p", {}, one.problem) : "";
    return element("tr", {}, element("th", { scope: "row" }, one.text), element("td", {}, one.cpus || "–"),
      element("td", { class: one.outcome === "taken" ? "good" : "quiet" }, one.outcome), element("td", {}, problem, element("ul", {}, ...said)));
  });
  const head = element("tr", {}, ...["placement", "CPUs", "outcome", "checks"].map((text) => element("th", { scope: "col" }, text)));
  return [element("h3", {}, "Placements and checks"), element("div", { class: "wide" }, element("table", { id: "placements" }, element("thead", {}, head), element("tbody", {}, ...rows)))];
}

function origin(one) {
  const policy = policies[one.policy], made = [];
  if (policy) made.push(element("details", {}, element("summary", {}, "Policy in force"), element("pre", { tabindex: "0" }, policy.text)));
  const pairs = [["policy", one.policy], ["topology", one.topology], ["XML before", one.sha_before], ["XML after", one.sha_after],
    ["entry before", one.previous], ["written by emupin", one.version]];
  if (pairs.some(([, text]) => text)) made.push(element("details", {}, element("summary", {}, "Digests"), facts(pairs)));
  return made;
}
