// The chosen row: its two videos, or why there are none and what to do, and everything that is known of it.

import { dollars, duration, clock } from "./format.js";
import { nameOf, stateOf } from "./rows.js";
import { captionsAddress, resultAddress, sourceAddress } from "./server.js";

const FAST = 400; // milliseconds between two rows
const PAUSE = 150; // milliseconds until the videos are loaded then
const PARTS = [
  "detail", "nothing", "nothing-text", "title", "subtitle", "badge", "videos", "controls", "problem", "problem-title",
  "problem-reason", "problem-advice", "decide", "approve", "reject", "note-shown", "facts",
];
const NO_SOURCE = {
  unknown: "The source is not known: start the page with --manifest.",
  asset: "The source is an asset at HeyGen, which cannot be played here.",
};
const NO_RESULT = {
  missing: "The file is gone.",
  changed: "This is not the file that the run wrote.",
  unknown: "The journal does not say which file the run wrote.",
  none: "The run wrote no file.",
};

export class Detail {
  constructor(find, player) {
    this.parts = Object.fromEntries(PARTS.map((id) => [id, find(id)]));
    this.player = player;
    this.row = undefined;
    this.shown = "";
    this.changed = -FAST;
    this.timer = 0;
  }

  // A row that changes is another object.
  show(row, nothing) {
    const { parts } = this;
    if (row === this.row && row !== null) return;
    this.row = row;
    parts.detail.hidden = row === null;
    parts.nothing.hidden = row !== null;
    parts["nothing-text"].textContent = nothing;
    if (row === null) {
      this.clear();
      return;
    }
    parts.title.textContent = nameOf(row);
    parts.subtitle.textContent = [row.draft ? `final version of ${row.draft}` : row.title === null ? "" : row.key, row.place].filter(Boolean).join(" · ");
    parts.badge.textContent = stateOf(row);
    parts.badge.dataset.category = row.category;
    this.showVideos(row);
    this.showProblem(row);
    this.showDecision(row);
    this.showFacts(row);
  }

  clear() {
    clearTimeout(this.timer);
    if (this.shown === "") return;
    this.shown = "";
    this.player.load({ source: null, result: null, captions: null, offset: 0, sourceText: "", resultText: "" });
  }

  // The videos are loaded again only if they are others.
  showVideos(row) {
    const hasVideo = row.file !== null;
    this.parts.videos.hidden = !hasVideo;
    this.parts.controls.hidden = !hasVideo;
    const shown = hasVideo ? JSON.stringify([row.key, row.job, row.file, row.source, row.has_captions]) : "";
    if (shown === this.shown) return;
    if (!hasVideo) {
      this.clear();
      return;
    }
    this.shown = shown;
    this.soon(() => this.load(row));
  }

  // Rows that are passed quickly, or while a search is typed, load no videos.
  soon(load) {
    clearTimeout(this.timer);
    const isFast = performance.now() - this.changed < FAST;
    this.changed = performance.now();
    this.parts.videos.classList.toggle("is-waiting", isFast);
    if (isFast) this.timer = setTimeout(load, PAUSE);
    else load();
  }

  load(row) {
    this.parts.videos.classList.remove("is-waiting");
    this.player.load({
      source: sourceAddress(row),
      sourceText: NO_SOURCE[row.source.kind] ?? "",
      result: row.file === "ready" ? resultAddress(row) : null,
      resultText: NO_RESULT[row.file] ?? "",
      captions: row.file === "ready" && row.has_captions ? captionsAddress(row) : null,
      offset: row.offset,
    });
  }

  showProblem(row) {
    const { parts } = this;
    const isShown = row.advice !== null || (row.category === "failed" && row.error !== null) || row.file === null;
    parts.problem.hidden = !isShown;
    parts.problem.dataset.category = row.category;
    parts["problem-title"].textContent = problemTitle(row);
    parts["problem-reason"].textContent = row.error ?? "";
    parts["problem-reason"].hidden = row.error === null;
    parts["problem-advice"].textContent = row.advice ?? "";
    parts["problem-advice"].hidden = row.advice === null;
  }

  showDecision(row) {
    const { parts } = this;
    const isPossible = row.file !== null;
    parts.approve.disabled = parts.reject.disabled = !isPossible;
    parts.approve.setAttribute("aria-pressed", row.decision === "approved");
    parts.reject.setAttribute("aria-pressed", row.decision === "rejected");
    parts["note-shown"].hidden = row.note === "";
    parts["note-shown"].textContent = row.note;
  }

  showFacts(row) {
    const [upload, submit, wait, download] = row.steps;
    const facts = [
      ["Length", row.seconds === null ? "" : clock(row.seconds)],
      ["Estimated cost", row.cost ? dollars(row.cost) : ""],
      ["Jobs", row.attempts ? String(row.attempts) : ""],
      ["Mode", row.draft ? "final" : row.mode ?? ""],
      ["Upload", duration(upload)],
      ["Submit", duration(submit)],
      ["Wait", duration(wait)],
      ["Download", duration(download)],
      ["Job", row.job ?? ""],
      ["File", row.path ?? ""],
    ];
    this.parts.facts.replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) => fact(name, value)));
  }
}

function problemTitle(row) {
  if (row.file !== null) return NO_RESULT[row.file] ?? "";
  if (row.category === "failed") return row.state === "completed" || row.state === "download" ? "The download failed" : "The job failed";
  return `This row is ${stateOf(row)}`;
}

function fact(name, value) {
  const pair = document.createElement("div");
  const term = document.createElement("dt");
  const text = document.createElement("dd");
  term.textContent = name;
  text.textContent = value;
  text.title = value;
  pair.append(term, text);
  return pair;
}
