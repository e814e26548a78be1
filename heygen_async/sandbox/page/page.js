// Shows what happens in the sandbox, once a second. All texts are set as text, never as HTML.

const BASE = "/_sandbox"
const LATEST = 200
const COLORS = { completed: "good", failed: "bad", running: "busy" }
const find = (id) => document.getElementById(id)

async function call(method, path, body) {
  const options = { method, headers: { "Content-Type": "application/json" } }
  if (body !== undefined) options.body = JSON.stringify(body)
  const answer = await fetch(BASE + path, options)
  const content = await answer.json()
  if (!answer.ok) throw new Error(content.error.message)
  return content.data
}

function cell(text, name = "", title = "") {
  const made = document.createElement("td")
  made.textContent = text ?? ""
  made.className = name
  if (title) made.title = title
  return made
}

function button(text, act) {
  const made = document.createElement("button")
  made.textContent = text
  made.addEventListener("click", () => attempt(act))
  return made
}

function row(...cells) {
  const made = document.createElement("tr")
  made.append(...cells)
  return made
}

function jobRow(job) {
  const actions = cell("", "actions")
  if (job.status === "pending" || job.status === "running") {
    actions.append(
      button("Finish", () => call("POST", "/finish", { lipsync_id: job.id })),
      button("Fail", () => call("POST", "/finish", { lipsync_id: job.id, failure_message: "Failed by hand" })),
    )
  }
  const status = job.deleted ? `${job.status}, deleted` : job.status
  return row(
    cell(job.id, "code whole"),
    cell(status, `whole ${COLORS[job.status] ?? ""}`),
    cell(job.title),
    cell(job.charged.toFixed(4), "number"),
    cell(new Date(job.created_at * 1000).toLocaleTimeString(), "number"),
    cell(job.failure_message),
    actions,
  )
}

function faultRow(fault) {
  return row(
    cell(fault.route, "code whole"),
    cell(fault.effect, "code"),
    cell(fault.times ?? "no limit", "number"),
    cell(fault.probability, "number"),
  )
}

function requestRow(request) {
  const query = new URLSearchParams(request.query).toString()
  const color = request.status === null || request.status >= 500 ? "bad" : request.status >= 400 ? "busy" : "good"
  return row(
    cell(`${request.at.toFixed(1)} s`, "number"),
    cell(`${request.method} ${request.path}${query && "?" + query}`, "code"),
    cell(request.status ?? "none", `number ${color}`),
    cell(request.fault ? request.fault.effect : "", "code"),
    cell(request.body, "code body", request.body),
  )
}

function show(name, things, make) {
  find(`${name}-count`).textContent = things.length < LATEST ? things.length : `the latest ${LATEST}`
  find(`${name}-empty`).hidden = things.length > 0
  find(name).replaceChildren(...things.map(make))
}

let shown = ""

async function refresh() {
  const [state, jobs, faults, requests] = await Promise.all(
    ["/clock", `/jobs?limit=${LATEST}`, "/faults", `/requests?limit=${LATEST}`].map((path) => call("GET", path)),
  )
  const clock = state.is_manual ? "manual clock" : `clock at ${state.speed} times real time`
  find("state").textContent = `${state.now.toFixed(1)} s since the start, ${clock}`
  find("state").className = ""
  find("advance").hidden = !state.is_manual
  const news = JSON.stringify([jobs, faults, requests])
  if (news === shown) return // what a reader has selected stays selected
  shown = news
  show("jobs", jobs.toReversed(), jobRow)
  show("faults", faults, faultRow)
  show("requests", requests.toReversed(), requestRow)
}

async function attempt(act) {
  try {
    await act()
    await refresh()
  } catch (error) {
    find("state").textContent = error.message
    find("state").className = "broken"
  }
}

find("release").addEventListener("click", () => attempt(() => call("POST", "/release")))
find("clear-faults").addEventListener("click", () => attempt(() => call("DELETE", "/faults")))
find("reset").addEventListener("click", () => attempt(() => call("POST", "/reset")))
find("advance").addEventListener("submit", (event) => {
  event.preventDefault()
  attempt(() => call("POST", "/advance", { seconds: Number(new FormData(event.target).get("seconds")) }))
})

async function follow() {
  await attempt(async () => {})
  setTimeout(follow, 1000)
}

follow()
