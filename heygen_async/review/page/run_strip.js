// How far the run is: its rows by stage, its pace and its money.

import { clock, count, dollars } from "./format.js";

export const STAGES = ["completed", "unchanged", "failed", "skipped", "downloading", "running", "submitting", "uploading", "waiting"];

export class RunStrip {
  constructor(find) {
    this.parts = Object.fromEntries(["run", "run-title", "run-facts", "run-bar", "run-legend", "run-trouble"].map((id) => [id, find(id)]));
  }

  show(run) {
    const { parts } = this;
    parts.run.hidden = run === null;
    if (run === null) return;
    parts["run-title"].textContent = title(run);
    fill(parts["run-facts"], facts(run));
    const shares = [...STAGES.map((stage) => [stage, run.stages[stage] ?? 0]), ["not started", run.not_started ?? 0]].filter(([, rows]) => rows);
    parts["run-bar"].replaceChildren(...shares.map(([stage, rows]) => segment(stage, rows)));
    parts["run-bar"].setAttribute("aria-label", shares.map(([stage, rows]) => `${count(rows)} ${stage}`).join(", "));
    parts["run-legend"].replaceChildren(...shares.map(([stage, rows]) => entry(stage, rows)));
    const trouble = run.halted ? `No more rows are submitted: ${run.halted}` : run.trouble ? `Retrying: ${run.trouble}` : "";
    parts["run-trouble"].hidden = !trouble;
    parts["run-trouble"].textContent = trouble;
  }
}

function title(run) {
  const rows = run.total === null ? `${count(run.ended)} rows` : `${count(run.ended)} of ${count(run.total)} rows`;
  return run.has_ended ? `Run ended: ${rows}` : `Run in progress: ${rows}`;
}

function facts(run) {
  const found = [["time", clock(run.elapsed)]];
  if (!run.has_ended) found.push(["jobs at once", `${run.in_flight} of ${run.limit}`]);
  if (!run.has_ended && run.rate !== null) found.push(["rate", `${(60 * run.rate).toFixed(1)} rows/min`]);
  if (!run.has_ended && run.seconds_left !== null) found.push(["left", `about ${clock(run.seconds_left)}`]);
  found.push(["spent", dollars(run.spent)], ["reserved", dollars(run.reserved)]);
  found.push(["budget", run.budget === null ? "none" : dollars(run.budget)]);
  return found;
}

function fill(list, found) {
  list.replaceChildren(
    ...found.map(([name, value]) => {
      const item = document.createElement("li");
      const label = document.createElement("span");
      label.textContent = name;
      item.append(label, ` ${value}`);
      return item;
    }),
  );
}

function segment(stage, rows) {
  const part = document.createElement("i");
  part.dataset.stage = stage;
  part.style.flexGrow = rows;
  part.title = `${count(rows)} ${stage}`;
  return part;
}

function entry(stage, rows) {
  const item = document.createElement("li");
  item.dataset.stage = stage;
  item.textContent = `${count(rows)} ${stage}`;
  return item;
}
