// The keyboard: every action has a key.

export const HELP = [
  ["space", "Play or pause"],
  ["← →", "Back or forward 5 s, with Shift 1 s"],
  ["j ↓", "Next row"],
  ["k ↑", "Previous row"],
  ["a", "Approve, and go to the next row"],
  ["r", "Reject with a note, and go to the next row"],
  ["u", "Undo the last decision"],
  ["1 2", "Sound of the source, of the result"],
  ["< >", "Slower, faster"],
  ["c", "Captions on or off"],
  ["f", "Next filter, with Shift the one before"],
  ["/", "Search"],
  ["?", "This help"],
];

// A key that is held down moves on, but does not decide on rows that nobody has watched.
const REPEATED = new Set(["j", "k", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]);

export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target } = event;
    const isTyping = target instanceof HTMLInputElement && target.type !== "range";
    if (isTyping) return;
    if (event.key === " " && target instanceof HTMLButtonElement) return; // it presses the button
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = actions[key];
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || REPEATED.has(key)) action(event);
  });
  // A button that was clicked would take the next space for itself.
  document.addEventListener("click", (event) => {
    if (event.detail > 0) event.target.closest("button")?.blur();
  });
}

export function fillHelp(list) {
  for (const [keys, meaning] of HELP) {
    const term = document.createElement("dt");
    for (const key of keys.split(" ")) {
      const shown = document.createElement("kbd");
      shown.textContent = key;
      term.append(shown, " ");
    }
    const text = document.createElement("dd");
    text.textContent = meaning;
    list.append(term, text);
  }
}
