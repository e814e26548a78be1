// The rows, and which of them are listed.

export const CATEGORIES = [
  ["all", "All"],
  ["review", "To review"],
  ["approved", "Approved"],
  ["rejected", "Rejected"],
  ["failed", "Failed"],
  ["running", "Running"],
];

export class Rows {
  constructor() {
    this.byKey = new Map();
    this.ordered = [];
  }

  replaceAll(rows) {
    this.byKey = new Map(rows.map((row) => [row.key, withText(row)]));
    this.sort();
  }

  // Returns whether a row was new, so that the order changed.
  update(rows) {
    let isNew = false;
    for (const row of rows) {
      isNew ||= !this.byKey.has(row.key);
      this.byKey.set(row.key, withText(row));
    }
    if (isNew) this.sort();
    else this.ordered = this.ordered.map((row) => this.byKey.get(row.key));
  }

  // Final versions come after their drafts.
  sort() {
    this.ordered = [...this.byKey.values()].sort(
      (one, other) => one.number - other.number || (one.draft ? 1 : 0) - (other.draft ? 1 : 0) || (one.key < other.key ? -1 : 1),
    );
  }

  counts() {
    const counts = Object.fromEntries(CATEGORIES.map(([name]) => [name, 0]));
    for (const row of this.ordered) counts[row.category] += 1;
    counts.all = this.ordered.length;
    return counts;
  }

  listed(category, search) {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    return this.ordered.filter(
      (row) => (category === "all" || row.category === category) && words.every((word) => row.text.includes(word)),
    );
  }
}

function withText(row) {
  row.text = [row.title, row.key, row.note, row.job, row.place, row.state, row.draft ? "final" : ""].join("\n").toLowerCase();
  return row;
}

export function nameOf(row) {
  return row.title ?? row.draft ?? row.key;
}

// What a row's state is called.
export function stateOf(row) {
  if (row.category === "approved") return "approved";
  if (row.category === "rejected") return "rejected";
  if (row.category === "failed") return row.state === "planned" ? "refused" : "failed";
  if (row.category === "review") return row.file === "ready" ? "to review" : { missing: "file missing", changed: "file changed", unknown: "file unknown", none: "no file" }[row.file];
  return { planned: "not started", submitting: "unanswered", submitted: "running", completed: "to download" }[row.state] ?? row.state;
}
