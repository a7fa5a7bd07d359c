/** The page of a key's owner. The key is kept in this page's memory, and goes to this gateway only. */

import { moment, number, setMoney, unitColumns, units } from "/console/console/format.js";
import { button, card, empty, facts, field, h, notice, table } from "/console/console/html.js";
import { chart, lastDays } from "/console/parts/chart.js";
import { usageBars } from "/console/parts/limits.js";
import { priceTable } from "/console/parts/prices.js";

const DAYS = 30;
const main = document.getElementById("main");

async function get(path, key) {
  let answer;
  try {
    answer = await fetch(`/v1/${path}`, { headers: { Authorization: `Bearer ${key}` }, credentials: "omit", cache: "no-store" });
  } catch {
    throw new Error("The gateway does not answer.");
  }
  const content = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(content?.error?.message ?? `The gateway answers ${answer.status}.`);
  return content;
}

const brand = () => h("p", { className: "brand" }, h("img", { src: "/console/console/icon.svg", alt: "" }), "Lightmeter");

/** What a dollar is in units, as the prices tell it; null where they tell none. */
function moneyOf(models) {
  const priced = models.flatMap((model) => model.prices).find((row) => row.quota_units > 0 && Number(row.quota_units_usd) > 0);
  return priced ? String(priced.quota_units / Number(priced.quota_units_usd)) : null;
}

function asking(message = "") {
  const input = h("input", { type: "password", name: "key", required: true, autocomplete: "off", spellcheck: "false" });
  const told = h("div", { "aria-live": "polite" }, message ? notice(message, "bad") : null);
  const form = h("form", { className: "stack", onsubmit: async (event) => {
    event.preventDefault();
    try {
      await show(input.value.trim());
    } catch (error) {
      told.replaceChildren(notice(error.message, "bad"));
      input.select();
    }
  } }, field("Your key", input, "It begins with lm_"), h("button", { type: "submit", className: "main" }, "Show"));
  main.className = "alone";
  main.replaceChildren(h("div", { className: "sign-in card" }, brand(), h("h1", {}, "What is left of your key?"), told, form,
    h("p", { className: "soft" }, "The key stays in this page, and is forgotten when you close it.")));
  input.focus();
}

async function show(key) {
  const [own, usage, { data: models }] = await Promise.all([get("key", key), get("key/usage", key), get("models", key)]);
  setMoney(moneyOf(models));
  const days = lastDays(DAYS);
  const labels = days.map((day) => day.slice(5));
  const byDay = (title, name, format) => card(title, chart({ title, labels, format, series: [{ name: title.split(" ")[0].toLowerCase(), values: days.map((day) => usage.by_day[day]?.[name] ?? 0) }] }));
  const charged = Object.entries(usage.by_model);
  const line = [
    `curl ${location.origin}/v1/images/generations \\`,
    '  -H "Authorization: Bearer $LIGHTMETER_KEY" -H "Content-Type: application/json" \\',
    `  -d '{"model": "${models[0]?.id ?? "MODEL"}", "prompt": "A lighthouse at dusk"}'`,
  ].join("\n");
  main.className = "owner";
  main.replaceChildren(
    h("div", { className: "head" }, h("div", {}, brand(), h("h1", {}, own.name || own.id)),
      h("div", { className: "row" }, button("Again", () => show(key).catch((error) => asking(error.message))), button("Forget the key", () => asking()))),
    h("div", { className: "wide" },
      card("What is left", usageBars(own.limits, own.limits)),
      card(`What is left to all of ${own.team}`, usageBars(own.team_limits, own.team_limits)),
      card("Your key", facts([["Id", own.id], ["Team", own.team], ["Images", number(own.images)], ["Expires", own.expires_at ? moment(own.expires_at) : "never"]]))),
    h("div", { className: "wide" }, byDay("Units by day", "quota_units", units), byDay("Images by day", "images", number),
      card("By model", charged.length ? table("By model", [
        { name: "Model", of: ([name]) => name, kind: "w" },
        { name: "Images", of: ([, each]) => number(each.images), kind: "n" },
        ...unitColumns(([, each]) => each.quota_units),
      ], charged) : empty("Nothing yet", "What you make is here as soon as it is charged."))),
    card("Try it", h("pre", { className: "secret", tabindex: "0" }, line)),
    h("div", { className: "wide" }, models.map((model) => card("", h("h2", { className: "mono" }, model.id), priceTable(model)))));
}

asking();
