// The page of `gcdis name --serve`. The server has the state: after every act the page is read
// anew. Text of users is only ever set as text.
"use strict";

const $ = (id) => document.getElementById(id);
const query = { which: "discovered", order: "largest", find: "", page: 0 };
const marks = new Map(); // crop -> name of its cluster
const picks = new Map(); // crop of a cluster -> crops of it that are picked
const opened = new Map(); // crop of a cluster -> crops that were asked for beyond the first
let state = { seen: 0, clusters: [] };
let busy = false;

const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many || one + "s"}`;

function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// ---------------------------------------------------------------- the server

async function ask(path, body) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options || {});
  } catch {
    throw new Error("The server does not answer: gcdis name has ended, or the machine sleeps.");
  }
  const told = await answer.json();
  if (told.error) {
    const { what, where, fix } = told.error;
    throw new Error([where && where !== "act" ? `${where}: ${what}` : what, fix ? `Next: ${fix}` : ""].filter(Boolean).join("\n"));
  }
  return told;
}

async function read(focus) {
  const asked = new URLSearchParams(query);
  const told = await ask(`clusters?${asked}`);
  if (asked.toString() !== new URLSearchParams(query).toString()) return; // another was asked for
  state = told;
  query.page = told.page;
  remember();
  show();
  if (focus !== undefined) focusCard(focus);
}

function problem(error) {
  $("problem").textContent = error ? error.message : "";
  $("problem").hidden = !error;
  if (error) $("said").textContent = "";
}

async function attempt(doing) {
  try {
    await doing();
    problem(null);
  } catch (error) {
    problem(error);
  }
}

/** Say something to the server, then show what has become of it. */
async function act(body, focus) {
  if (busy) return;
  busy = true;
  try {
    const told = await ask("acts", { seen: state.seen, ...body });
    problem(null);
    say(told.said);
    await read(told.crop === null ? focus : told.crop);
  } catch (error) {
    await read(focus).catch(() => {});
    problem(error);
  } finally {
    busy = false;
  }
}

function say(text) {
  $("said").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => ($("said").textContent = ""), 8000);
}

// ---------------------------------------------------------------- what is shown

function show() {
  const left = state.discovered - state.named;
  $("run").textContent = state.run;
  document.title = `Naming ${state.run}`;
  $("headline").textContent = left
    ? `${count(left, "cluster")} without a name`
    : "Every cluster has a name";
  $("lead").textContent =
    `${count(state.discovered, "discovered cluster")}, ${state.named.toLocaleString("en")} named; ` +
    `${count(state.known, "known class", "known classes")}` +
    (state.rejected ? `; ${count(state.rejected, "crop")} of rejected clusters` : "") +
    `. Crops are in order of ${state.ranked_by}.`;
  $("undo").disabled = !state.undo;
  $("undo").replaceChildren(make("kbd", {}, "U"), state.undo ? ` Undo ${state.undo}` : " Undo");
  $("which").value = query.which;
  $("order").value = query.order;
  if (document.activeElement !== $("find")) $("find").value = query.find;
  $("pages").textContent = state.found
    ? `${state.first + 1} to ${state.first + state.clusters.length} of ${count(state.found, "cluster")}`
    : "";
  $("previous").disabled = state.page === 0;
  $("next").disabled = state.page + 1 >= state.pages;
  $("acts").start = Math.max(1, state.seen - state.acts.length + 1);
  $("acts").replaceChildren(...state.acts.map((text) => make("li", {}, text)));
  $("cards").setAttribute("aria-busy", "false");
  const cards = state.clusters.map(card);
  if (!cards.length) cards.push(make("p", { className: "empty" }, "No cluster is like that."));
  $("cards").replaceChildren(...cards);
  showMarks();
}

function card(cluster) {
  const who = cluster.crop;
  const title = `title-${who}`;
  const element = make("article", { className: "card", tabIndex: 0, "data-crop": who, "aria-labelledby": title });
  element.style.setProperty("--k", cluster.color);
  element.classList.toggle("is-marked", marks.has(who));
  element.append(
    make("header", {},
      make("h3", { id: title, className: cluster.named || cluster.known ? "" : "nameless" }, cluster.name),
      make("span", { className: "number", title: "number of the class, for the command line" }, `#${cluster.number}`)),
    facts(cluster));
  if (!cluster.known) element.append(naming(cluster));
  if (state.suggests_names && !cluster.known) element.append(suggestions(cluster));
  element.append(crops(cluster));
  if (cluster.split) element.append(halves(cluster));
  if (cluster.near.length) element.append(near(cluster));
  element.append(doing(cluster));
  return element;
}

function facts(cluster) {
  const pair = (name, ...value) => make("div", {}, make("dt", {}, name), make("dd", {}, ...value));
  const list = make("dl", { className: "facts" }, pair("crops", cluster.size.toLocaleString("en")));
  if (cluster.labeled) list.append(pair("labeled", cluster.labeled.toLocaleString("en")));
  if (cluster.probability !== null) {
    const bar = make("i");
    bar.style.width = `${Math.round(100 * cluster.probability)}%`;
    const meter = make("div", { className: "meter", "aria-hidden": "true" }, bar);
    list.append(make("div", {}, make("dt", {}, "probability"), make("dd", {}, cluster.probability.toFixed(2)), meter));
  }
  return list;
}

function naming(cluster) {
  const input = make("input", {
    type: "text", maxLength: 100, autocomplete: "off", placeholder: "What is it?",
    value: cluster.named ? cluster.name : "", "aria-label": `Name of ${cluster.name}`,
  });
  const form = make("form", { className: "naming" }, input,
    make("button", { type: "submit" }, make("kbd", {}, "N"), cluster.named ? " Rename" : " Name"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    name(cluster, input.value);
  });
  return form;
}

function suggestions(cluster) {
  const line = make("div", { className: "suggested" });
  ask(`names?of=${cluster.crop}`).then(({ names }) => {
    if (names.length) line.append("perhaps");
    for (const text of names) {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => name(cluster, text));
      line.append(button);
    }
  }, problem);
  return line;
}

function picture(crop, text) {
  return make("img", { src: `crop/${crop}.jpg`, alt: text, loading: "lazy", decoding: "async" });
}

function pickable(cluster, ids, className) {
  const grid = make("div", { className: `crops ${className}` });
  const chosen = picks.get(cluster.crop) || new Set();
  for (const crop of ids) {
    const button = make("button", { type: "button", "data-pick": crop, "aria-pressed": String(chosen.has(crop)), title: `crop ${crop}` },
      picture(crop, `crop ${crop} of ${cluster.name}`));
    if (cluster.known) button.disabled = true;
    button.addEventListener("click", () => pick(cluster, crop));
    grid.append(button);
  }
  return grid;
}

function crops(cluster) {
  const whole = make("div");
  const more = opened.get(cluster.crop);
  if (more) {
    whole.append(make("p", { className: "label" },
      `${count(more.length, "crop")} of ${cluster.size.toLocaleString("en")}, most trusted first`));
    whole.append(pickable(cluster, more, "small"));
    return whole;
  }
  whole.append(pickable(cluster, cluster.best, ""));
  if (cluster.doubtful.length) {
    whole.append(make("p", { className: "label doubt" }, "least trusted"), pickable(cluster, cluster.doubtful, "small"));
  }
  return whole;
}

function halves(cluster) {
  const { sizes, crops: shown, silhouette, apart, chance } = cluster.split;
  const button = make("button", { type: "button" }, make("kbd", {}, "S"), " Split");
  button.addEventListener("click", () => split(cluster));
  const half = (ids, size) => make("div", {},
    make("p", { className: "label" }, count(size, "crop")),
    make("div", { className: "crops" }, ...ids.map((crop) => picture(crop, `crop ${crop}`))));
  return make("div", { className: "halves" },
    make("div", { className: "top" },
      make("p", { title: "halves of two-means: simplified silhouette; distance in standard deviations, and that of one cloud's halves" },
        make("b", {}, "Looks like two"), `: ${apart.toFixed(1)} deviations apart, one cloud's halves ${chance.toFixed(1)} (silhouette ${silhouette.toFixed(2)})`), button),
    make("div", { className: "two" }, half(shown[0], sizes[0]), half(shown[1], sizes[1])));
}

function near(cluster) {
  const list = make("ul", { className: "near" });
  for (const other of cluster.near) {
    if (cluster.known && other.known) continue;
    const button = make("button", { type: "button", "data-near": other.crop, "aria-pressed": "false",
      title: `Mark ${cluster.name} and ${other.name}, to be merged` },
      picture(other.crop, ""), make("b", {}, other.name), make("small", {}, other.cosine.toFixed(2).replace("-0.00", "0.00")));
    button.addEventListener("click", () => markBoth(cluster, other));
    list.append(make("li", {}, button));
  }
  return make("div", {}, make("p", { className: "label" }, "nearest, with the cosine: mark to merge"), list);
}

function doing(cluster) {
  const row = make("div", { className: "doing" });
  const button = (key, text, does, className) => {
    const made = make("button", { type: "button", className: className || "" }, make("kbd", {}, key), ` ${text}`);
    made.addEventListener("click", does);
    row.append(made);
    return made;
  };
  button("M", marks.has(cluster.crop) ? "Marked" : "Mark", () => mark(cluster)).setAttribute("aria-pressed", String(marks.has(cluster.crop)));
  if (!cluster.known) {
    const chosen = picks.get(cluster.crop);
    if (chosen && chosen.size) button("P", `Split out ${chosen.size} picked`, () => splitPicked(cluster), "strong");
    button("X", "Reject", () => reject(cluster));
  }
  const had = opened.get(cluster.crop);
  if (cluster.size > (had ? had.length : cluster.best.length + cluster.doubtful.length)) {
    button("A", "More crops", () => attempt(() => more(cluster)), "plain");
  }
  return row;
}

function redraw(cluster) {
  const there = document.querySelector(`.card[data-crop="${cluster.crop}"]`);
  if (!there) return;
  const inside = document.activeElement;
  const focused = there.contains(inside) ? inside.dataset.pick : undefined;
  const fresh = card(cluster);
  const had = there.contains(inside);
  there.replaceWith(fresh);
  if (had) (fresh.querySelector(`[data-pick="${focused}"]`) || fresh).focus({ preventScroll: true });
  showMarks();
}

function showMarks() {
  $("marked").hidden = marks.size === 0;
  $("marks").replaceChildren(...[...marks.values()].map((text) => make("li", {}, text)));
  $("merge").disabled = marks.size < 2;
  for (const button of document.querySelectorAll("[data-near]")) {
    const owner = Number(button.closest(".card").dataset.crop);
    const both = marks.has(Number(button.dataset.near)) && marks.has(owner);
    button.setAttribute("aria-pressed", String(both));
  }
}

// ---------------------------------------------------------------- what can be done

function name(cluster, text) {
  return act({ act: { act: "name", crop: cluster.crop, name: text } }, cluster.crop);
}

function reject(cluster) {
  marks.delete(cluster.crop);
  return act({ act: { act: "reject", crop: cluster.crop } }, after(cluster));
}

function split(cluster) {
  if (!cluster.split) return say(`${cluster.name} does not clearly look like two: pick crops to split out.`);
  return act({ split: cluster.crop }, cluster.crop);
}

async function splitPicked(cluster) {
  const chosen = picks.get(cluster.crop);
  if (!chosen || !chosen.size) return say("No crop is picked: Tab to a crop, Space picks it.");
  picks.delete(cluster.crop);
  opened.delete(cluster.crop);
  await act({ act: { act: "split", crops: [...chosen] } }, cluster.crop);
}

async function merge() {
  if (marks.size < 2) return say("Mark two clusters or more, then merge them.");
  const crops = [...marks.keys()];
  marks.clear();
  await act({ act: { act: "merge", crops } }, crops[0]);
}

function undo() {
  if (!state.undo) return say("Nothing is left to undo.");
  return act({ act: { act: "undo" } }, focusedCrop());
}

function mark(cluster) {
  if (!marks.delete(cluster.crop)) marks.set(cluster.crop, cluster.name);
  redraw(cluster);
}

function markBoth(cluster, other) {
  const both = marks.has(cluster.crop) && marks.has(other.crop);
  for (const one of [cluster, other]) {
    if (both && one === other) marks.delete(one.crop);
    else marks.set(one.crop, one.name);
  }
  state.clusters.filter((c) => c.crop === cluster.crop || c.crop === other.crop).forEach(redraw);
  showMarks();
}

function pick(cluster, crop) {
  const chosen = picks.get(cluster.crop) || new Set();
  if (!chosen.delete(crop)) chosen.add(crop);
  picks.set(cluster.crop, chosen);
  redraw(cluster);
}

async function more(cluster) {
  const had = opened.get(cluster.crop) || [];
  const told = await ask(`crops?of=${cluster.crop}&start=${had.length}`);
  opened.set(cluster.crop, [...had, ...told.crops]);
  redraw(cluster);
}

// ---------------------------------------------------------------- moving about

const cards = () => [...document.querySelectorAll(".card")];
const focusedCard = () => document.activeElement && document.activeElement.closest(".card");
const focusedCrop = () => (focusedCard() ? Number(focusedCard().dataset.crop) : undefined);
const focusedCluster = () => state.clusters.find((cluster) => cluster.crop === focusedCrop());

function focusCard(crop) {
  const there = cards().find((element) => Number(element.dataset.crop) === crop) || cards()[0];
  if (there) there.focus();
}

function after(cluster) {
  const place = state.clusters.indexOf(cluster);
  const next = state.clusters[place + 1] || state.clusters[place - 1];
  return next && next.crop;
}

function step(by) {
  const all = cards();
  const there = all.indexOf(focusedCard());
  const next = all[there < 0 ? 0 : Math.min(all.length - 1, Math.max(0, there + by))];
  if (next) next.focus();
}

function turn(by) {
  const page = state.page + by;
  if (page < 0 || page >= state.pages) return;
  query.page = page;
  attempt(async () => {
    await read();
    window.scrollTo(0, 0);
    if (cards()[0]) cards()[0].focus({ preventScroll: true });
  });
}

function choose(changes) {
  Object.assign(query, { page: 0 }, changes);
  attempt(() => read());
}

/** The choice is in the address, so that a reload shows the same. */
function remember() {
  history.replaceState(null, "", `#${new URLSearchParams(query)}`);
}

function recall() {
  const told = new URLSearchParams(location.hash.slice(1));
  for (const field of ["which", "order", "find"]) if (told.has(field)) query[field] = told.get(field);
  query.page = Number.parseInt(told.get("page"), 10) || 0;
}

const keys = {
  j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
  u: undo, M: merge, "[": () => turn(-1), "]": () => turn(1),
  "/": () => $("find").focus(), "?": () => $("keys").showModal(),
};
const cardKeys = {
  n: (cluster) => {
    const input = focusedCard().querySelector(".naming input");
    if (input) input.focus(), input.select();
    else say("A known class keeps its name.");
  },
  m: mark, s: split, p: splitPicked, x: (cluster) => cluster.known ? say("A known class stays one.") : reject(cluster),
  a: (cluster) => attempt(() => more(cluster)),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || $("keys").open) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape") problem(null);
  if (event.key === "Escape" && typing) {
    const owner = event.target.closest(".card");
    if (owner) owner.focus();
    else event.target.blur();
    return;
  }
  if (typing) return;
  const does = keys[event.key];
  const cluster = focusedCluster();
  const does_there = cluster && cardKeys[event.key];
  if (!does && !does_there) return;
  event.preventDefault();
  if (does) does();
  else does_there(cluster);
});

$("which").addEventListener("change", (event) => choose({ which: event.target.value }));
$("order").addEventListener("change", (event) => choose({ order: event.target.value }));
$("find").addEventListener("input", (event) => choose({ find: event.target.value }));
$("undo").addEventListener("click", undo);
$("merge").addEventListener("click", merge);
$("unmark").addEventListener("click", () => (marks.clear(), show()));
$("help").addEventListener("click", () => $("keys").showModal());
$("previous").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
// Other pages and commands may have acted meanwhile.
document.addEventListener("visibilitychange", () => {
  const typing = document.activeElement.matches(".card input");
  if (document.visibilityState === "visible" && !busy && !typing) attempt(() => read(focusedCrop()));
});

recall();
attempt(() => read());
