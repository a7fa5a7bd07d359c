/** Who used what: by day, stacked by model or by key; as a file, too. */

import { all, get } from "/console/console/api.js";
import { go, remember } from "/console/console/app.js";
import { csv, download, number, units } from "/console/console/format.js";
import { button, card, empty, field, h, head, link, notice, table } from "/console/console/html.js";
import { chart, largest, lastDays } from "/console/parts/chart.js";
import { filters } from "/console/parts/pager.js";

const KEYS = 60;
const TEAMS = 100;
const AT_ONCE = 6;

/** `work` for each of `items`, a few at a time, in their order. */
async function eachOf(items, work) {
  const results = new Array(items.length);
  let next = 0;
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, async () => {
    while (next < items.length) {
      const at = next++;
      results[at] = await work(items[at]);
    }
  }));
  return results;
}

/** {series, note}: each of `series` is {name, days: {day: {images, quota_units}}}. */
async function read({ team, key, by }, days) {
  if (key || (team && by === "day")) {
    const usage = await get(key ? `keys/${key}/usage` : `teams/${team}/usage`);
    return { series: [{ name: key || team, days: usage.by_day }], models: usage.by_model };
  }
  if (team) {
    const { items, more } = await all("keys", { team }, KEYS);
    const usages = await eachOf(items, (each) => get(`keys/${each.id}/usage`));
    const series = items.map((each, at) => ({ name: each.name ? `${each.id} (${each.name})` : each.id, days: usages[at].by_day }));
    return { series, note: more ? `The first ${KEYS} keys of ${team} are shown.` : "", whole: await get(`teams/${team}/usage`) };
  }
  if (by === "team") {
    const { items, more } = await all("teams", {}, TEAMS);
    const usages = await eachOf(items, (each) => get(`teams/${each.id}/usage`));
    return { series: items.map((each, at) => ({ name: each.id, days: usages[at].by_day })), note: more ? `The first ${TEAMS} teams are shown; name one for its own usage.` : "" };
  }
  const { days: figures } = await get("overview");
  const models = [...new Set(figures.flatMap((row) => Object.keys(row.by_model)))];
  return {
    series: models.map((name) => ({ name, days: Object.fromEntries(figures.map((row) => [row.day, row.by_model[name]])) })),
    note: days.length > 30 ? "Figures of all teams together go back 30 days." : "",
  };
}

export async function show({ who, query }) {
  const one = who.role === "team_admin" && who.teams.length === 1 ? who.teams[0] : "";
  const asked = { team: query.team ?? one, key: query.key ?? "", by: query.by ?? (query.team || one ? "key" : "model"), what: query.what ?? "quota_units", days: query.days ?? "30" };
  const ways = asked.key ? [["day", "day"]] : asked.team ? [["key", "key"], ["day", "day"]] : who.role === "team_admin" ? [["team", "team"]] : [["model", "model"], ["team", "team"]];
  if (!ways.some(([name]) => name === asked.by)) asked.by = ways[0][0];
  const choice = (name, options) => h("select", { name }, options.map(([value, text]) => h("option", { value, selected: asked[name] === value }, text)));
  const form = filters([
    field("Team", h("input", { name: "team", value: asked.team, autocomplete: "off", spellcheck: "false", placeholder: "all" })),
    field("Key", h("input", { name: "key", value: asked.key, autocomplete: "off", spellcheck: "false", placeholder: "all of the team" })),
    field("Stacked by", choice("by", ways)),
    field("What", choice("what", [["quota_units", "units"], ["images", "images"]])),
    field("Days", choice("days", [["7", "7"], ["30", "30"], ["90", "90"], ["365", "365"]])),
  ], (values) => {
    remember(values);
    go(`usage${location.search}`, { replace: true });
  });
  const days = lastDays(Number(asked.days));
  const { series, note, models } = await read(asked, days);
  const value = (each, day) => each.days[day]?.[asked.what] ?? 0;
  const lines = series.map((each) => ({ name: each.name, values: days.map((day) => value(each, day)) }));
  const used = lines.filter((each) => each.values.some((one_value) => one_value > 0));
  const total = (each) => each.values.reduce((sum, amount) => sum + amount, 0);
  const format = asked.what === "images" ? number : units;
  const words = asked.what === "images" ? "Images" : "Units";
  const title = `${words} by day and ${asked.by === "day" ? (asked.key ? "key" : "team") : asked.by}`;
  const save = () => download(`lightmeter-usage-${days[0]}-to-${days.at(-1)}.csv`,
    csv(["day", asked.by === "day" ? "account" : asked.by, "images", "quota_units"],
      series.flatMap((each) => days.filter((day) => each.days[day]).map((day) => [day, each.name, each.days[day].images, each.days[day].quota_units]))));
  const byModel = models ? card("By model, since the beginning", table("By model", [
    { name: "Model", of: ([name]) => name, kind: "w" },
    { name: "Images", of: ([, each]) => number(each.images), kind: "n" },
    { name: "Units", of: ([, each]) => units(each.quota_units), kind: "n" },
  ], Object.entries(models))) : null;
  const content = used.length ? [
    card(title, chart({ title, labels: days.map((day) => day.slice(5)), series: largest(used), format })),
    card(`In all, of ${days.length} days`, table("In all", [
      { name: asked.by === "day" ? "Account" : asked.by[0].toUpperCase() + asked.by.slice(1), of: (row) => (asked.by === "team" ? link(`usage?team=${row.name}`, row.name) : row.name), kind: "w" },
      { name: words, of: (row) => format(total(row)), kind: "n" },
    ], [...used].sort((first, other) => total(other) - total(first)))),
    byModel,
  ].filter(Boolean) : [empty("Nothing was used in these days", "Choose more days, or another team.")];
  return { content: [head("Usage", null, button("Save as CSV", save, { disabled: !used.length })), form, note ? notice(note) : null, ...content].filter(Boolean) };
}
