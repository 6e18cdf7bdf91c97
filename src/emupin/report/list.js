// The list of decisions: filtered, sorted, and drawn only where it is looked at.

const ranks = {};

function rank(name) {
  if (!ranks[name]) {
    const used = [...new Set(columns[name])];
    const collator = name === "time" ? null : new Intl.Collator("en", { numeric: true });
    const compare = collator ? collator.compare : (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    used.sort((a, b) => compare(texts[a] || "", texts[b] || ""));
    ranks[name] = new Map(used.map((number, place) => [number, place]));
  }
  return ranks[name];
}

function wantedTexts(test) {
  const wanted = new Uint8Array(texts.length);
  for (let number = 0; number < texts.length; number++) wanted[number] = test(lower[number], texts[number]) ? 1 : 0;
  return wanted;
}

function filter() {
  const tests = [];
  for (const name of SELECTS) {
    if (state[name]) {
      const column = columns[name], number = texts.indexOf(state[name]);
      tests.push((row) => column[row] === number);
    }
  }
  for (const term of state.q.toLowerCase().split(/\s+/).filter(Boolean)) {
    const wanted = wantedTexts((text) => text.includes(term));
    const searched = SEARCHED.map((name) => columns[name]);
    tests.push((row) => searched.some((column) => wanted[column[row]]));
  }
  if (state.since || state.until) {
    const since = state.since, until = state.until;
    const wanted = wantedTexts((_, text) => text !== null && text >= since && (!until || text <= until));
    tests.push((row) => wanted[columns.time[row]]);
  }
  found = [];
  for (let row = 0; row < total; row++) if (tests.every((test) => test(row))) found.push(row);
  sort();
}

function sort() {
  const falling = state.sort.startsWith("-");
  const name = falling ? state.sort.slice(1) : state.sort;
  const places = rank(name), column = columns[name];
  const keys = new Int32Array(total);
  for (const row of found) keys[row] = places.get(column[row]);
  const sign = falling ? -1 : 1;
  found.sort((a, b) => sign * (keys[a] - keys[b] || a - b));
}

// -- the list ------------------------------------------------------------------------------------------------------

const scroll = byId("scroll"), space = byId("space"), grid = byId("grid");

function heads() {
  byId("head").replaceChildren(...HEADS.map(([key, label]) => {
    const current = state.sort.replace("-", "") === key;
    const direction = current ? (state.sort.startsWith("-") ? "descending" : "ascending") : "none";
    const button = element("button", { type: "button", tabindex: "-1" }, label, current ? (direction === "ascending" ? " ▲" : " ▼") : "");
    button.addEventListener("click", () => {
      state.sort = state.sort === key ? `-${key}` : key;
      update(false);
    });
    return element("div", { role: "columnheader", class: `c-${key}`, "aria-sort": direction }, button);
  }));
}

function cell(key, row) {
  const text = value(key, row);
  if (key === "time") return (text || "").slice(0, 19).replace("T", " ");
  if (key !== "after") return text || "–";
  const before = value("before", row);
  return before === text ? text || "–" : `${before || "none"} → ${text || "none"}`;
}

const good = { same: "good", different: "bad", "not replayable": "doubt" };
const bad = { failed: "bad", refused: "bad", unchanged: "quiet", "no decision": "quiet" };

function line(place) {
  const row = found[place];
  const cells = HEADS.map(([key]) => {
    const text = cell(key, row);
    const look = key === "outcome" ? bad[text] : key === "replay" ? good[text] || bad[text] : "";
    return element("div", { role: "gridcell", class: `c-${key} ${look || ""}`, title: text }, text);
  });
  const made = element("div", { role: "row", class: "row", id: `row-${row}`, "aria-rowindex": place + 2, "aria-selected": row === selected }, ...cells);
  made.style.transform = `translateY(${place * ROW}px)`;
  made.addEventListener("click", () => choose(place));
  return made;
}

function draw() {
  const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - AROUND);
  const last = Math.min(found.length, Math.ceil((scroll.scrollTop + scroll.clientHeight) / ROW) + AROUND);
  const lines = [];
  for (let place = first; place < last; place++) lines.push(line(place));
  space.replaceChildren(...lines);
}

function choose(place) {
  if (!found.length) {
    selected = -1;
    grid.removeAttribute("aria-activedescendant");
    byId("detail").replaceChildren(element("p", { class: "quiet" }, "Nothing passes these filters."));
    draw();
    return;
  }
  place = Math.max(0, Math.min(place, found.length - 1));
  selected = found[place];
  const top = place * ROW;
  if (top < scroll.scrollTop) scroll.scrollTop = top;
  else if (top + ROW > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + ROW - scroll.clientHeight;
  draw();
  grid.setAttribute("aria-activedescendant", `row-${selected}`);
  show(selected);
  remember();
}

grid.addEventListener("keydown", (event) => {
  const place = found.indexOf(selected), page = Math.max(1, Math.floor(scroll.clientHeight / ROW) - 1);
  const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -total, End: total };
  if (event.key in moves && !event.ctrlKey && !event.altKey && !event.metaKey) {
    choose(place + moves[event.key]);
    event.preventDefault();
  } else if (event.key === "Enter") {
    byId("detail").focus();
    event.preventDefault();
  }
});

document.addEventListener("keydown", (event) => {
  const inField = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !inField) {
    byId("q").focus();
    event.preventDefault();
  } else if (event.key === "Escape" && (inField || byId("detail").contains(event.target))) {
    grid.focus();
  }
});

let drawing = false;
scroll.addEventListener("scroll", () => {
  if (!drawing) requestAnimationFrame(() => { drawing = false; draw(); });
  drawing = true;
});
window.addEventListener("resize", draw);
