// The rows, how many there are of each kind, and which of them are listed.

export const CATEGORIES = [
  ["all", "All"],
  ["review", "To review"],
  ["approved", "Approved"],
  ["rejected", "Rejected"],
  ["failed", "Failed"],
  ["running", "Running"],
];

// What the server leaves out of a row.
const EMPTY = {
  number: 0, place: "", title: null, mode: null, draft: null, seconds: null, cost: 0, attempts: 0, steps: [null, null, null, null], job: null,
  decision: null, note: "", file: null, has_captions: false, path: null, source: { kind: "unknown" }, offset: 0,
  error: null, advice: null, history: [],
};

export class Rows {
  constructor() {
    this.byKey = new Map();
    this.late = null; // changes that came while all rows are read
    this.changed([]);
  }

  changed(ordered) {
    this.ordered = ordered;
    this.counted = null;
    this.found = null;
  }

  // Read all rows. A change that comes meanwhile is newer than a row that was read before it, so it is applied again.
  async readAll(read) {
    const late = (this.late = []);
    try {
      const { info, rows } = await read();
      this.replaceAll(rows);
      for (const change of late.splice(0)) this.apply(change);
      return info;
    } finally {
      this.late = null;
    }
  }

  replaceAll(rows) {
    this.byKey = new Map(rows.map((row) => [row.key, complete(row)]));
    this.sort();
  }

  // What changed: rows that were read again, and rows that are at another stage.
  apply({ rows = [], moved = [] }) {
    this.late?.push({ rows, moved });
    this.update(rows);
    this.move(moved);
  }

  update(rows) {
    let isNew = false;
    for (const row of rows) {
      isNew ||= !this.byKey.has(row.key);
      this.byKey.set(row.key, complete(row));
    }
    if (isNew) this.sort();
    else this.changed(this.ordered.map((row) => this.byKey.get(row.key)));
  }

  // Some fields of rows that are known; others are read later.
  move(changes) {
    this.update(changes.filter(({ key }) => this.byKey.has(key)).map((change) => ({ ...this.byKey.get(change.key), ...change })));
  }

  // Final versions come after their drafts.
  sort() {
    this.changed(
      [...this.byKey.values()].sort(
        (one, other) => one.number - other.number || (one.draft ? 1 : 0) - (other.draft ? 1 : 0) || (one.key < other.key ? -1 : 1),
      ),
    );
  }

  get counts() {
    if (this.counted === null) {
      this.counted = Object.fromEntries(CATEGORIES.map(([name]) => [name, 0]));
      for (const row of this.ordered) this.counted[row.category] += 1;
      this.counted.all = this.ordered.length;
    }
    return this.counted;
  }

  // A search that became longer looks only at what it found before.
  listed(category, search) {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const { found } = this;
    const isNarrower = found?.category === category && found.words.every((old) => words.some((word) => word.includes(old)));
    const among = isNarrower ? found.rows : this.ordered.filter((row) => category === "all" || row.category === category);
    const rows = words.length ? among.filter((row) => words.every((word) => row.text.includes(word))) : among;
    this.found = { category, words, rows };
    return rows;
  }
}

function complete(row) {
  const text = [row.title, row.key, row.note, row.job, row.place, row.state, row.draft ? "final" : ""].join("\n").toLowerCase();
  return { ...EMPTY, ...row, text };
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
