// The page as a whole: what is listed, what is chosen, and what the keys and buttons do.

import { Decisions } from "./decisions.js";
import { Detail } from "./detail.js";
import { count } from "./format.js";
import { fillHelp, listen } from "./keys.js";
import { RowList } from "./list.js";
import { Player } from "./player.js";
import { CATEGORIES, Rows, nameOf } from "./rows.js";
import { RunStrip } from "./run_strip.js";
import { fetchRows, follow } from "./server.js";
import { Timeline } from "./timeline.js";

const find = (id) => document.getElementById(id);
const TOAST = 4000; // milliseconds
const EMPTY = {
  all: "There is no row.",
  review: "Nothing is left to review.",
  approved: "Nothing is approved yet.",
  rejected: "Nothing is rejected.",
  failed: "Nothing failed.",
  running: "Nothing is running.",
};

const rows = new Rows();
const player = new Player(find);
const detail = new Detail(find, player);
const decisions = new Decisions(rows);
const list = new RowList(find("list"), find("list-body"), (key) => choose(key));
const strip = new RunStrip(find);
const timeline = new Timeline(find("timeline"), (key) => choose(key, true));
const filters = new Map();
let category = null;
let chosen = null;
let noted = null; // the row that a note is written for
let run = null; // as the server last said
let runSince = 0;
let isLive = false;
let toastTimer = 0;
let isSearchDue = false;

// What is listed

function draw(isAsked = true) {
  drawCounts();
  drawList(isAsked);
}

// Unless somebody asked for other rows, the chosen one stays, listed or not: they may be about to decide on it.
function drawList(isAsked = true) {
  const listed = rows.listed(category ?? "all", find("search").value);
  const stays = isAsked ? listed.some((row) => row.key === chosen) : rows.byKey.has(chosen);
  if (!stays) chosen = listed[0]?.key ?? null;
  if (noted !== null && noted !== chosen) endNote();
  list.show(listed, chosen);
  const nothing = find("search").value ? "No row matches the search." : EMPTY[category ?? "all"];
  find("list-empty").hidden = listed.length > 0;
  find("list-empty").textContent = nothing;
  detail.show(rows.byKey.get(chosen) ?? null, nothing);
}

// All keys that come before a frame are drawn together in it.
function searched() {
  if (isSearchDue) return;
  isSearchDue = true;
  requestAnimationFrame(() => {
    isSearchDue = false;
    drawList();
  });
}

function drawCounts() {
  const { counts } = rows;
  for (const [name, button] of filters) {
    button.lastChild.textContent = count(counts[name]);
    button.setAttribute("aria-pressed", name === category);
  }
}

function show(name) {
  category = name;
  list.scroll(0);
  draw();
}

function choose(key, isListed = false) {
  if (isListed && !list.rows.some((row) => row.key === key)) category = "all";
  chosen = key;
  draw();
  list.select(key);
}

function move(step) {
  const index = list.indexOf(chosen);
  const row = list.rows[Math.min(Math.max(0, index + step), list.rows.length - 1)];
  if (row) choose(row.key);
}

// Decisions

async function decide(decision, note) {
  const row = rows.byKey.get(chosen);
  if (!row || row.file === null) return;
  const index = list.indexOf(row.key);
  const following = (list.rows[index + 1] ?? list.rows[index - 1])?.key ?? null;
  try {
    await decisions.make(row, decision, note);
    if (noted === null && chosen === row.key && following !== null) chosen = following; // a note keeps its row
    draw(noted === null);
    if (chosen !== null) list.select(chosen);
    toast(`${nameOf(row)}: ${decision}`, "u undoes it");
  } catch (error) {
    toast(`Not stored: ${error.message}`, "", true);
  }
}

async function undo() {
  try {
    const row = await decisions.undo();
    if (row === null) return toast("There is nothing to undo.");
    if (noted === null) reveal(row);
    else draw(false); // a note keeps its row
    toast(`${nameOf(row)}: ${row.decision ?? "to review again"}`);
  } catch (error) {
    toast(`Not undone: ${error.message}`, "", true);
  }
}

// Choose a row under the filter where it is listed.
function reveal(row) {
  if (category !== "all" && category !== row.category) category = row.category;
  find("search").value = "";
  choose(row.key, true);
}

function askForNote() {
  const row = rows.byKey.get(chosen);
  if (!row || row.file === null) return;
  player.pause();
  noted = row.key;
  find("decide").hidden = true;
  find("note-form").hidden = false;
  find("note").value = row.decision === "rejected" ? row.note : "";
  find("note").focus();
}

function endNote() {
  noted = null;
  const form = find("note-form");
  const wasTyping = form.contains(document.activeElement); // and not in the search
  form.hidden = true;
  find("decide").hidden = false;
  if (wasTyping) find("list").focus({ preventScroll: true });
}

function toast(text, hint = "", isError = false) {
  clearTimeout(toastTimer);
  const element = find("toast");
  element.replaceChildren(text);
  if (hint) {
    const small = document.createElement("small");
    small.textContent = hint;
    element.append(small);
  }
  element.classList.toggle("is-error", isError);
  element.classList.add("is-shown");
  toastTimer = setTimeout(() => element.classList.remove("is-shown"), TOAST);
}

// Keys and buttons

function build() {
  for (const [name, label] of CATEGORIES) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.category = name;
    button.append(label, " ", document.createElement("b"));
    button.addEventListener("click", () => show(name));
    find("filters").append(button);
    filters.set(name, button);
  }
  fillHelp(find("keys"));
  find("approve").addEventListener("click", () => decide("approved", ""));
  find("reject").addEventListener("click", askForNote);
  find("undo").addEventListener("click", undo);
  find("previous").addEventListener("click", () => move(-1));
  find("next").addEventListener("click", () => move(1));
  find("note-form").addEventListener("submit", (event) => {
    event.preventDefault();
    endNote();
    decide("rejected", find("note").value);
  });
  find("note-cancel").addEventListener("click", endNote);
  find("note").addEventListener("keydown", (event) => {
    if (event.key === "Escape") endNote();
  });
  find("search").addEventListener("input", searched);
  find("search").addEventListener("keydown", (event) => {
    if (event.key === "Escape") find("search").value = "";
    if (event.key !== "Escape" && event.key !== "Enter") return;
    draw();
    find("list").focus();
  });
  find("help-button").addEventListener("click", () => find("help").showModal());
  listen({
    " ": () => player.toggle(),
    ArrowLeft: (event) => player.move(event.shiftKey ? -1 : -5),
    ArrowRight: (event) => player.move(event.shiftKey ? 1 : 5),
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    j: () => move(1),
    k: () => move(-1),
    a: () => decide("approved", ""),
    r: askForNote,
    u: undo,
    1: () => player.set({ sound: "source" }),
    2: () => player.set({ sound: "result" }),
    "<": () => player.faster(-1),
    ">": () => player.faster(1),
    c: () => player.set({ captions: !player.settings.captions }),
    f: (event) => turn(event.shiftKey ? -1 : 1),
    "/": () => find("search").select(),
    "?": () => find("help").showModal(),
  });
}

function turn(step) {
  const names = CATEGORIES.map(([name]) => name);
  show(names[(names.indexOf(category) + step + names.length) % names.length]);
}

// What the server says

async function load() {
  const info = await rows.readAll(fetchRows);
  isLive = info.is_live;
  find("journal").textContent = info.journal;
  document.title = `${info.journal} – review`;
  filters.get("running").firstChild.textContent = info.is_live ? "Running" : "Unfinished";
  category ??= rows.counts.review > 0 || !info.is_live ? "review" : "all";
  if (category === "review" && rows.counts.review === 0) category = "all";
  find("offline").hidden = true;
  draw(false);
  drawRun();
}

// The server says something only when something happens; meanwhile the time goes on.
function drawRun() {
  if (run === null) return strip.show(null);
  const more = run.has_ended ? 0 : (performance.now() - runSince) / 1000;
  const left = run.seconds_left === null ? null : Math.max(0, run.seconds_left - more);
  strip.show({ ...run, elapsed: run.elapsed + more, seconds_left: left });
  timeline.show(rows.ordered, run.elapsed + more);
}

build();
find("list").focus();
setInterval(() => {
  if (run !== null && !run.has_ended) drawRun();
}, 1000);
const reload = () => load().catch((error) => toast(`The rows cannot be read: ${error.message}`, "", true));
let loading = reload();
let isFirst = true;
follow({
  // What changed before the events were open is in none of them.
  onOpen: () => {
    loading = loading.then(() => (isFirst && !isLive ? null : reload())).finally(() => {
      isFirst = false;
    });
  },
  onChange: (change) => {
    run = change.run;
    runSince = performance.now();
    rows.apply(change);
    if (change.rows?.length || change.moved?.length) draw(false);
    drawRun();
  },
  onLost: () => {
    find("offline").hidden = false;
  },
});
