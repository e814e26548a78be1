// A list of any length: only the rows in sight are in the document, and only what changed of them is written.

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
    // Known without asking the document, which would lay it out first.
    this.top = 0;
    this.height = list.clientHeight;
    list.addEventListener("scroll", () => this.scrolled(), { passive: true });
    new ResizeObserver(() => this.resized()).observe(list);
    body.addEventListener("click", (event) => {
      const line = event.target.closest(".row");
      if (line) onSelect(this.rows[Number(line.dataset.index)].key);
    });
  }

  show(rows, selected) {
    if (rows.length !== this.rows.length) this.body.style.height = `${rows.length * HEIGHT}px`;
    this.rows = rows;
    this.top = Math.min(this.top, Math.max(0, rows.length * HEIGHT - this.height));
    this.select(selected, false);
  }

  select(key, isNew = true) {
    this.selected = key;
    const index = this.indexOf(key);
    if (isNew && index >= 0) this.reveal(index);
    set(this.list, "aria-activedescendant", index >= 0 ? `row-${index}` : "");
    this.draw();
  }

  indexOf(key) {
    return this.rows.findIndex((row) => row.key === key);
  }

  // Keep the row in sight, with a neighbour if there is one.
  reveal(index) {
    const top = index * HEIGHT;
    if (top - HEIGHT < this.top) this.scroll(top - HEIGHT);
    else if (top + 2 * HEIGHT > this.top + this.height) this.scroll(top + 2 * HEIGHT - this.height);
  }

  scroll(top) {
    this.top = Math.max(0, Math.min(top, this.rows.length * HEIGHT - this.height));
    this.list.scrollTop = this.top;
  }

  scrolled() {
    this.top = this.list.scrollTop;
    this.draw();
  }

  resized() {
    this.height = this.list.clientHeight;
    this.scrolled();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.top / HEIGHT) - SPARE);
    const wanted = Math.min(this.rows.length - first, Math.ceil(this.height / HEIGHT) + 2 * SPARE);
    while (this.lines.length < wanted) this.lines.push(new Line(this.body));
    this.lines.forEach((line, number) => {
      if (number >= wanted) line.hide();
      else this.fill(line, first + number);
    });
  }

  fill(line, index) {
    const row = this.rows[index];
    line.place(index, this.rows.length);
    line.mark(row.key === this.selected);
    line.show(row);
  }
}

// One line in the document, which shows one row after another.
class Line {
  constructor(body) {
    this.element = newElement();
    const [, name, more, length, cost, steps, ...seconds] = this.element.children;
    this.texts = [name, more, length, cost, steps.lastChild, ...seconds].map((cell) => cell.appendChild(new Text()));
    this.steps = steps;
    this.bars = [...steps.children].slice(0, STEPS.length);
    this.row = null;
    this.index = -1;
    body.append(this.element);
  }

  hide() {
    this.element.hidden = true;
  }

  place(index, count) {
    const { element } = this;
    if (element.hidden) element.hidden = false;
    set(element, "aria-setsize", count);
    if (index === this.index) return;
    this.index = index;
    element.id = `row-${index}`;
    element.dataset.index = index;
    element.style.transform = `translateY(${index * HEIGHT}px)`;
    set(element, "aria-posinset", index + 1);
  }

  mark(isSelected) {
    set(this.element, "aria-selected", isSelected);
  }

  // A row that changes is another object.
  show(row) {
    if (row === this.row) return;
    this.row = row;
    set(this.element, "data-category", row.category);
    const total = row.steps.reduce((sum, one) => sum + (one ?? 0), 0);
    const shown = [nameOf(row), subtitle(row), row.seconds === null ? "" : clock(row.seconds), row.cost ? dollars(row.cost) : "", total ? duration(total) : "", ...row.steps.map(duration)];
    shown.forEach((value, number) => {
      if (this.texts[number].data !== value) this.texts[number].data = value;
    });
    this.showSteps(row.steps, total);
  }

  showSteps(steps, total) {
    this.bars.forEach((bar, number) => {
      bar.style.flexGrow = steps[number] ?? 0;
    });
    this.steps.classList.toggle("none", total === 0);
    const named = STEPS.map((name, number) => (steps[number] === null ? "" : `${name} ${duration(steps[number])}`));
    this.steps.title = total ? named.filter(Boolean).join(", ") : "";
  }
}

function subtitle(row) {
  const state = row.category === "review" && row.file === "ready" ? "" : stateOf(row); // most rows are in it
  const key = row.title === null && !row.draft ? "" : row.draft ?? row.key;
  return [row.draft ? "final" : "", state, key, row.place].filter(Boolean).join(" · ");
}

function newElement() {
  const line = document.createElement("div");
  line.className = "row";
  line.setAttribute("role", "option");
  line.innerHTML =
    '<span class="mark"></span><b></b><small></small><span class="number"></span><span class="number"></span>' +
    '<span class="steps"><i></i><i></i><i></i><i></i><small></small></span>' +
    '<span class="number wide"></span>'.repeat(4);
  return line;
}

function set(element, name, value) {
  const text = String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}
