// Decisions: stored one after the other, each known to the page before the next one, and undone in the opposite order.

import { remember, remembered } from "./memory.js";
import { postDecision } from "./server.js";

const MOST = 200; // decisions that can be undone
const STORED = `heygen-async-undo ${location.pathname}`;

export class Decisions {
  constructor(rows) {
    this.rows = rows;
    this.made = remembered("sessionStorage", STORED) ?? [];
    this.last = Promise.resolve();
  }

  // Store a decision on a row. What was before is read late: another decision on the row may be on its way.
  make(row, decision, note) {
    const { key, job } = row;
    return this.queue(async () => {
      const before = this.rows.byKey.get(key) ?? row;
      await this.post({ key, job, decision, note });
      this.keep([...this.made, { key, job, decision: before.decision, note: before.note }].slice(-MOST));
    });
  }

  // Restore what was before the last decision; returns the row, or null if there is none.
  undo() {
    return this.queue(async () => {
      const before = this.made.at(-1);
      if (before === undefined) return null;
      this.keep(this.made.slice(0, -1)); // one that cannot be undone must not block those before it
      return this.post(before);
    });
  }

  async post(decision) {
    const row = await postDecision(decision);
    this.rows.apply({ rows: [row] });
    return row;
  }

  queue(work) {
    const result = this.last.then(work);
    this.last = result.catch(() => {});
    return result;
  }

  keep(made) {
    this.made = made;
    remember("sessionStorage", STORED, made);
  }
}
