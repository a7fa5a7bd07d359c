/** Figures and times as people read them. */

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const cents = new Intl.NumberFormat("en", { style: "currency", currency: "USD" });
const fractions = new Intl.NumberFormat("en", { style: "currency", currency: "USD", maximumFractionDigits: 6 });
let unitsPerUsd = null;
let clientsCall = "";

/** What a dollar is in units, or null; known once somebody is signed in. */
export function setMoney(text) {
  unitsPerUsd = text === null ? null : Number(text);
}

/** Where clients call the gateway; one that listens everywhere is called by the name that this page was. */
export function setPublicUrl(text) {
  clientsCall = text.replace(/\/\/(0\.0\.0\.0|\[::\])(?=:)/, `//${location.hostname}`);
}

export const publicUrl = () => clientsCall;
export const hasMoney = () => unitsPerUsd !== null;
export const number = (value) => (value === null || value === undefined ? "–" : whole.format(value));
export const compact = (value) => (value < 10_000 ? whole.format(value) : short.format(value));
export const usd = (units) => dollars(units / unitsPerUsd);

/** The same for a spreadsheet. */
export const plainUsd = (units) => (units / unitsPerUsd).toFixed(6).replace(/(\.\d\d\d*?)0+$/, "$1");

/** Dollars, to the cent where there is a cent of them; what the API writes as a text is taken as well. */
export function dollars(value) {
  if (value === null || value === undefined) return "–";
  const amount = Number(value);
  return (Math.abs(amount) < 0.01 && amount !== 0 ? fractions : cents).format(amount);
}

/** Columns of units, and of dollars where those are known; `of(row)` gives the units. */
export function unitColumns(of, name = "Units") {
  const money = { name: "USD", of: (row) => usd(of(row)), kind: "n" };
  return [{ name, of: (row) => number(of(row)), kind: "n" }, ...(hasMoney() ? [money] : [])];
}

/** Units, and dollars beside them where those are known. */
export function units(value) {
  if (value === null || value === undefined) return "–";
  return hasMoney() ? `${whole.format(value)} (${usd(value)})` : whole.format(value);
}

/** A moment in UTC, to the second. */
export function moment(text) {
  return text ? `${text.slice(0, 10)} ${text.slice(11, 19)}` : "–";
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return value < 1 ? `${value.toFixed(2)} ms` : value < 100 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
}

/** One of something or several. */
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

/** A text for a spreadsheet. What a spreadsheet would take for a formula becomes text. */
export function csv(headings, rows) {
  const cell = (value) => {
    const text = String(value ?? "");
    const safe = typeof value !== "number" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [headings, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** Offer a text as a file. */
export function download(name, text, type = "text/csv") {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
