// The address holds what is shown, so that a link leads there again; then the start.

function remember() {
  const words = Object.entries(state).filter(([key, text]) => text && !(key === "sort" && text === FIRST_SORT));
  if (selected >= 0) words.push(["entry", selected]);
  const hash = words.map(([key, text]) => `${key}=${encodeURIComponent(text)}`).join("&");
  history.replaceState(null, "", `#${hash}`);
}

function recall() {
  for (const key of Object.keys(state)) state[key] = key === "sort" ? FIRST_SORT : "";
  let entry = -1;
  for (const word of location.hash.slice(1).split("&")) {
    const at = word.indexOf("="), key = word.slice(0, at);
    let text = "";
    try { text = decodeURIComponent(word.slice(at + 1)); } catch (error) { continue; } // Cut off or mistyped.
    if (key === "entry" && /^\d+$/.test(text)) entry = Number(text);
    else if (Object.hasOwn(state, key) && (key !== "sort" || Object.hasOwn(columns, text.replace("-", "")))) state[key] = text;
  }
  if (entry >= 0 && entry < total) selected = entry;
  for (const name of [...INPUTS, ...SELECTS]) byId(name).value = state[name];
  update(true);
}

function update(keep) {
  filter();
  heads();
  const height = `${Math.max(3, found.length) * ROW}px`;
  space.style.height = height;
  scroll.style.maxHeight = height;
  grid.setAttribute("aria-rowcount", found.length + 1);
  byId("count").value = found.length === total ? `${total.toLocaleString("en")} decisions` : `${found.length.toLocaleString("en")} of ${total.toLocaleString("en")}`;
  if (!keep) scroll.scrollTop = 0;
  choose(Math.max(0, found.indexOf(selected)));
}

function selects() {
  const offered = isAudit ? SELECTS : SELECTS.filter((name) => name !== "host"); // A file is one of thousands.
  for (const name of SELECTS) byId(name).parentElement.hidden = !offered.includes(name);
  for (const name of offered) {
    const counts = new Map();
    for (const number of columns[name]) counts.set(number, (counts.get(number) || 0) + 1);
    const used = [...counts.keys()].filter((number) => texts[number] !== null).sort((a, b) => rank(name).get(a) - rank(name).get(b));
    byId(name).append(element("option", { value: "" }, "all"), ...used.map((number) =>
      element("option", { value: texts[number] }, `${texts[number]} (${counts.get(number).toLocaleString("en")})`)));
    if (used.length < 2) byId(name).parentElement.hidden = true;
  }
  if (!isAudit) for (const label of document.querySelectorAll(".audit")) label.hidden = true;
}

let waiting = 0;
for (const name of [...INPUTS, ...SELECTS]) {
  byId(name).addEventListener("input", () => {
    state[name] = byId(name).value;
    clearTimeout(waiting);
    waiting = setTimeout(() => update(false), INPUTS.includes(name) ? 120 : 0);
  });
}
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("reset", () => {
  for (const key of Object.keys(state)) if (key !== "sort") state[key] = "";
  update(false);
});
window.addEventListener("hashchange", recall);

// -- on paper ------------------------------------------------------------------------------------------------------

window.addEventListener("beforeprint", () => {
  const rows = found.slice(0, MOST_PRINTED).map((row) =>
    element("tr", {}, ...HEADS.map(([key]) => element("td", {}, cell(key, row))), element("td", {}, value("reason", row) || "")));
  const head = element("tr", {}, ...[...HEADS.map(([, label]) => label), "reason"].map((text) => element("th", { scope: "col" }, text)));
  const cut = found.length > rows.length ? element("p", {}, `The first ${rows.length.toLocaleString("en")} of ${found.length.toLocaleString("en")} decisions: filter before printing.`) : "";
  byId("printed").replaceChildren(...[element("h2", {}, "Decisions"), cut, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))].filter(Boolean));
  byId("printed").hidden = false;
  for (const fold of byId("detail").querySelectorAll("details")) fold.open = true;
});
window.addEventListener("afterprint", () => {
  byId("printed").replaceChildren();
  byId("printed").hidden = true;
});

if (!isAudit) document.body.classList.add("preview");
selects();
recall();
document.documentElement.dataset.ready = "yes";
