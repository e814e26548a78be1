// What the browser keeps of the page; nothing if its settings forbid that, and the page works without it.

export function remembered(storage, name) {
  try {
    return JSON.parse(window[storage].getItem(name));
  } catch {
    return null;
  }
}

export function remember(storage, name, value) {
  try {
    window[storage].setItem(name, JSON.stringify(value));
  } catch {
    // it is forgotten with the page
  }
}
