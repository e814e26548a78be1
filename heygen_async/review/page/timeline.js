// A line for each row of the run: when it came to which stage.

import { STAGES } from "./run_strip.js";

const MOST = 120; // height in CSS pixels
const THICK = 7; // of a line, at most

export class Timeline {
  constructor(canvas, onSelect) {
    this.canvas = canvas;
    this.rows = [];
    this.elapsed = 0;
    this.isWaiting = false;
    new ResizeObserver(() => this.soon()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.soon());
    canvas.addEventListener("click", (event) => {
      const row = this.rows[Math.floor((event.offsetY / canvas.clientHeight) * this.rows.length)];
      if (row) onSelect(row.key);
    });
  }

  show(rows, elapsed) {
    this.rows = rows.filter((row) => row.history.length > 1 || (row.history.length && !isEnd(row.history[0][1])));
    this.rows.sort((one, other) => one.history[0][0] - other.history[0][0]);
    this.elapsed = elapsed;
    this.soon();
  }

  soon() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      this.draw();
    });
  }

  draw() {
    const { canvas, rows } = this;
    canvas.hidden = rows.length === 0;
    if (canvas.hidden) return;
    const height = Math.min(MOST, rows.length * THICK);
    canvas.style.height = `${height}px`;
    const scale = devicePixelRatio;
    const width = canvas.clientWidth;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const colours = coloursOf(canvas);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const thick = height / rows.length;
    const across = width / Math.max(this.elapsed, 1e-3);
    rows.forEach((row, number) => {
      row.history.forEach(([start, stage], index) => {
        if (isEnd(stage)) return;
        const end = row.history[index + 1]?.[0] ?? this.elapsed;
        pen.fillStyle = colours[stage];
        pen.fillRect(start * across, number * thick, Math.max((end - start) * across, 0.5), Math.max(thick - (thick > 2 ? 1 : 0), 0.5));
      });
    });
  }
}

function isEnd(stage) {
  return ["completed", "unchanged", "failed", "skipped"].includes(stage);
}

function coloursOf(element) {
  const style = getComputedStyle(element);
  return Object.fromEntries(STAGES.map((stage) => [stage, style.getPropertyValue(`--${stage}`).trim()]));
}
