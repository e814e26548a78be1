// Decisions: stored one after the other, each before the page goes on, and undone in the opposite order.

import { remember, remembered } from "./memory.js";
import { postDecision } from "./server.js";

const MOST = 200; // decisions that can be undone
const STORED = `heygen-async-undo ${location.pathname}`;

export class Decisions {
  constructor() {
    this.made = remembered("sessionStorage", STORED) ?? [];
    this.last = Promise.resolve();
  }

  // Store a decision on a row; returns the row as it is then.
  make(row, decision, note) {
    return this.queue(async () => {
      const before = { key: row.key, job: row.job, decision: row.decision, note: row.note };
      const now = await postDecision({ key: row.key, job: row.job, decision, note });
      this.keep([...this.made, before].slice(-MOST));
      return now;
    });
  }

  // Restore what was before the last decision; returns the row, or null if there is none.
  undo() {
    return this.queue(async () => {
      const before = this.made.at(-1);
      if (before === undefined) return null;
      this.keep(this.made.slice(0, -1)); // one that cannot be undone must not block those before it
      return postDecision(before);
    });
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
