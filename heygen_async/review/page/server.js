// What the page asks of its server. Every address is relative: the token is in the path.

export async function fetchRows() {
  return answer(await fetch("rows"));
}

// Store a decision, or withdraw one with null, though the page is closed meanwhile; returns the row as it is then.
export async function postDecision({ key, job, decision, note }) {
  const response = await fetch("decision", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ key, job, decision, note }),
    keepalive: true,
  });
  return (await answer(response)).row;
}

async function answer(response) {
  if (response.ok) return response.json(); // an answer that breaks off is an error
  const body = await response.json().catch(() => ({}));
  throw new Error(body.error ?? `the server answered ${response.status}`);
}

// What changed: rows that were read again, rows that are at another stage, and the run.
export function follow({ onOpen, onChange, onLost }) {
  const events = new EventSource("events");
  events.addEventListener("open", onOpen);
  events.addEventListener("message", (event) => onChange(JSON.parse(event.data)));
  events.addEventListener("error", onLost);
}

export function resultAddress(row) {
  return `result?${new URLSearchParams({ key: row.key, job: row.job })}`;
}

export function captionsAddress(row) {
  return `captions?${new URLSearchParams({ key: row.key, job: row.job })}`;
}

export function sourceAddress(row) {
  if (row.source.kind === "url") return row.source.url;
  return row.source.kind === "file" ? `source?${new URLSearchParams({ key: row.key })}` : null;
}
