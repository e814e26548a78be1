// A list of any length: only the rows in sight are in the document.

import { clock, dollars, duration } from "./format.js";
import { nameOf, stateOf } from "./rows.js";

const HEIGHT = 54; // of a row, in CSS pixels; page.css has the same
const SPARE = 6; // rows above and below those in sight
const STEPS = ["upload", "submit", "wait", "download"];

export class RowList {
  constructor(list, body, onSelect) {
    this.list = list;
    this.body = body;
    this.rows = [];
    this.selected = null;
    this.lines = [];
    this.first = -1;
    list.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(list);
    body.addEventListener("click", (event) => {
      const line = event.target.closest(".row");
      if (line) onSelect(this.rows[Number(line.dataset.index)].key);
    });
  }

  show(rows, selected) {
    this.rows = rows;
    this.body.style.height = `${rows.length * HEIGHT}px`;
    this.select(selected, false);
  }

  select(key, isNew = true) {
    this.selected = key;
    const index = this.indexOf(key);
    if (isNew && index >= 0) this.reveal(index);
    this.list.setAttribute("aria-activedescendant", index >= 0 ? `row-${index}` : "");
    this.draw();
  }

  indexOf(key) {
    return this.rows.findIndex((row) => row.key === key);
  }

  // Keep the row in sight, with a neighbour if there is one.
  reveal(index) {
    const top = index * HEIGHT;
    const height = this.list.clientHeight;
    if (top - HEIGHT < this.list.scrollTop) this.list.scrollTop = Math.max(0, top - HEIGHT);
    else if (top + 2 * HEIGHT > this.list.scrollTop + height) this.list.scrollTop = top + 2 * HEIGHT - height;
  }

  draw() {
    const first = Math.max(0, Math.floor(this.list.scrollTop / HEIGHT) - SPARE);
    const wanted = Math.min(this.rows.length - first, Math.ceil(this.list.clientHeight / HEIGHT) + 2 * SPARE);
    while (this.lines.length < wanted) this.lines.push(this.body.appendChild(newLine()));
    this.lines.forEach((line, number) => {
      line.hidden = number >= wanted;
      if (!line.hidden) this.fill(line, first + number);
    });
  }

  fill(line, index) {
    const row = this.rows[index];
    line.id = `row-${index}`;
    line.dataset.index = index;
    line.dataset.category = row.category;
    line.style.transform = `translateY(${index * HEIGHT}px)`;
    line.setAttribute("aria-selected", row.key === this.selected);
    line.setAttribute("aria-posinset", index + 1);
    line.setAttribute("aria-setsize", this.rows.length);
    const [, name, more, length, cost, steps, ...seconds] = line.children;
    text(name, nameOf(row));
    text(more, subtitle(row));
    text(length, row.seconds === null ? "" : clock(row.seconds));
    text(cost, row.cost ? dollars(row.cost) : "");
    fillSteps(steps, row.steps);
    seconds.forEach((cell, number) => text(cell, duration(row.steps[number])));
  }
}

function subtitle(row) {
  const state = row.category === "review" && row.file === "ready" ? "" : stateOf(row); // most rows are in it
  const key = row.title === null && !row.draft ? "" : row.draft ?? row.key;
  return [row.draft ? "final" : "", state, key, row.place].filter(Boolean).join(" · ");
}

function newLine() {
  const line = document.createElement("div");
  line.className = "row";
  line.setAttribute("role", "option");
  line.innerHTML =
    '<span class="mark"></span><b></b><small></small><span class="number"></span><span class="number"></span>' +
    '<span class="steps"><i></i><i></i><i></i><i></i><small></small></span>' +
    '<span class="number wide"></span>'.repeat(4);
  return line;
}

function fillSteps(cell, steps) {
  const total = steps.reduce((sum, one) => sum + (one ?? 0), 0);
  steps.forEach((one, number) => {
    cell.children[number].style.flexGrow = one ?? 0;
  });
  cell.classList.toggle("none", total === 0);
  text(cell.children[4], total ? duration(total) : "");
  cell.title = total ? STEPS.map((name, number) => (steps[number] === null ? "" : `${name} ${duration(steps[number])}`)).filter(Boolean).join(", ") : "";
}

function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}
