// Numbers as people read them.

const WHOLE = new Intl.NumberFormat("en");
const MONEY = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export function clock(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const left = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${left}` : `${minutes}:${left}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.095) return "0.0 s"; // no step takes exactly nothing
  if (seconds < 99.95) return `${seconds.toFixed(1)} s`;
  return clock(seconds);
}

export function dollars(amount) {
  return `$${MONEY.format(amount)}`;
}

export function count(number) {
  return WHOLE.format(number);
}
