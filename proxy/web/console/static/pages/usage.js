/** Who used what: by day or by month, stacked by model, team, key, end user or tag; as a file, too. */

import { all, get } from "/console/console/api.js";
import { go, remember } from "/console/console/app.js";
import { count, csv, download, hasMoney, number, plainUsd, unitColumns, units } from "/console/console/format.js";
import { button, card, empty, field, h, head, link, table } from "/console/console/html.js";
import { chart, largest, lastDays, lastMonths } from "/console/parts/chart.js";
import { filters } from "/console/parts/pager.js";
import { onlyTeam, teamField } from "/console/parts/teams.js";

const KEYS = 60;
const TEAMS = 100;
const HEADINGS = 100;
const AT_ONCE = 6;
const PEOPLE_AT_ONCE = 2;
const STATED = { user: "by_user", tag: "by_tag" };
const TIMES = [["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"], ["365d", "365 days"]];
const TIMES_OF_PEOPLE = [["3m", "3 months"], ["12m", "12 months"], ["36m", "36 months"], ["7d", "7 days"]];
const TIMES_OF_A_KEYS_PEOPLE = [["3m", "3 months"], ["7d", "7 days"]];
const NAMES = { day: "nothing", user: "end user" };
const OTHERS = "(others)";

/** `work` for each of `items`, a few at a time, in their order. */
async function eachOf(items, work, atOnce = AT_ONCE) {
  const results = new Array(items.length);
  let next = 0;
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, async () => {
    while (next < items.length) {
      const at = next++;
      results[at] = await work(items[at]);
    }
  }));
  return results;
}

/** What end users or tags used in each of these UTC days or months. */
async function ofPeople({ team, key, by }, windows) {
  const found = await eachOf(windows, (window) => get(`teams/${team}/usage/people`, { window, by, key, limit: HEADINGS }), PEOPLE_AT_ONCE);
  const rest = found.map((each) => each.others).filter(Boolean);
  const names = [...new Set(found.flatMap((each) => each.data.map((row) => row.name)))].filter(Boolean);
  const at = (name) => Object.fromEntries(found.map((each) => [each.window, each.data.find((row) => row.name === name)]));
  const others = { name: OTHERS, rest: true, at: Object.fromEntries(found.map((each) => [each.window, each.others ?? undefined])) };
  return {
    labels: windows,
    series: [...names.map((name) => ({ name, rest: name === OTHERS, at: at(name) })), ...(rest.length ? [others] : [])],
    note: `Added up from the ledger, by the UTC ${windows[0].length === 7 ? "month" : "day"} in which its entries were written.${found.every((each) => each.complete) ? "" : " The ledger does not go back so far."}`,
  };
}

/** What a team used by month, as its statements have it. */
async function byMonth(team, by, months) {
  const { data } = await get(`teams/${team}/statements`, { top: HEADINGS });
  const kept = data.slice(-months);
  const found = kept.map((each) => each[STATED[by]]);
  const names = [...new Set(found.flatMap((each) => Object.keys(each)))];
  const omitted = Math.max(0, ...kept.map((each) => each.headings_omitted[STATED[by]]));
  return {
    labels: kept.map((each) => each.month),
    series: names.map((name) => ({ name, rest: name === OTHERS, at: Object.fromEntries(kept.map((each, at) => [each.month, Object.hasOwn(found[at], name) ? found[at][name] : undefined])) })),
    note: `By UTC month, as the statements have it.${omitted ? ` The ${HEADINGS} largest of each month are told apart; the CSV of a statement has all.` : ""}`,
  };
}

/** {series, note}: each of `series` is {name, at: {day: {images, quota_units}}}. */
async function byDay({ team, key, by }, days) {
  const usageOf = (path) => get(`${path}/usage`, { days: days.length });
  if (key || (team && by !== "key")) {
    const usage = await usageOf(key ? `keys/${key}` : `teams/${team}`);
    if (by === "day") return { labels: days, series: [{ name: key || team, at: usage.by_day }] };
    const models = [...new Set(Object.values(usage.by_day).flatMap((day) => Object.keys(day.by_model)))];
    return { labels: days, series: models.map((name) => ({ name, at: Object.fromEntries(Object.entries(usage.by_day).map(([day, each]) => [day, each.by_model[name]])) })) };
  }
  if (team) {
    const { items, more } = await all("keys", { team }, KEYS);
    const usages = await eachOf(items, (each) => usageOf(`keys/${each.id}`));
    const series = items.map((each, at) => ({ name: each.id, about: each.name, at: usages[at].by_day }));
    return { labels: days, series, note: more ? `The first ${KEYS} keys of ${team} are shown; its statements have all of them.` : "" };
  }
  if (by === "team") {
    const { items, more } = await all("teams", {}, TEAMS);
    const usages = await eachOf(items, (each) => usageOf(`teams/${each.id}`));
    return { labels: days, series: items.map((each, at) => ({ name: each.id, about: each.name, at: usages[at].by_day })), note: more ? `The first ${TEAMS} teams are shown; name one for its own usage.` : "" };
  }
  const { days: figures } = await get("overview");
  const models = [...new Set(figures.flatMap((row) => Object.keys(row.by_model)))];
  return {
    labels: days,
    series: models.map((name) => ({ name, at: Object.fromEntries(figures.map((row) => [row.day, row.by_model[name]])) })),
    note: `Name a team to see its keys, end users and tags.${days.length > 30 ? " Figures of all teams together go back 30 days." : ""}`,
  };
}

function read(asked, unit, long) {
  if (!(asked.by in STATED)) return byDay(asked, lastDays(long));
  if (unit === "day") return ofPeople(asked, lastDays(long));
  return asked.key ? ofPeople(asked, lastMonths(long)) : byMonth(asked.team, asked.by, long);
}

function waysOf(asked, who) {
  if (asked.key) return ["model", "user", "tag", "day"];
  if (asked.team) return ["key", "model", "user", "tag", "day"];
  return who.role === "team_admin" ? ["team"] : ["model", "team"];
}

function timesOf(asked) {
  if (!(asked.by in STATED)) return TIMES;
  return asked.key ? TIMES_OF_A_KEYS_PEOPLE : TIMES_OF_PEOPLE;
}

function formOf(asked, who, ways) {
  const choice = (name, options) => h("select", { name }, options.map(([value, text]) => h("option", { value, selected: asked[name] === value }, text)));
  return filters([
    teamField(who, asked.team),
    field("Key", h("input", { name: "key", value: asked.key, autocomplete: "off", spellcheck: "false", placeholder: "all of the team" })),
    field("Stacked by", choice("by", ways.map((name) => [name, NAMES[name] ?? name]))),
    field("What", choice("what", [["quota_units", "units"], ["images", "images"]])),
    field("Time", choice("time", timesOf(asked))),
  ], (values) => {
    remember({ ...values, team: values.team.trim(), key: values.key.trim() });
    go(`usage${location.search}`, { replace: true });
  });
}

/** Where a name leads. */
function place(asked, name) {
  if (name === OTHERS || name === "") return name || h("em", {}, "not itemised");
  const ledger = (more) => `ledger?${new URLSearchParams({ team: asked.team, ...more })}`;
  if (asked.by === "team") return link(`usage?team=${name}`, name);
  if (asked.by === "key" || (asked.key && asked.by === "day")) return link(`keys/${name}`, name, { className: "mono" });
  return asked.by === "user" || asked.by === "tag" ? link(ledger({ key: asked.key, [asked.by]: name }), name) : name;
}

function save(asked, labels, series, unit) {
  const row = (label, each) => [label, each.name, each.at[label].images, each.at[label].quota_units];
  const usd = (label, each) => (hasMoney() ? [each.at[label].quota_units_usd ?? plainUsd(each.at[label].quota_units)] : []);
  download(`lightmeter-usage-${labels[0]}-to-${labels.at(-1)}.csv`,
    csv([unit, asked.by === "day" ? "account" : asked.by, "images", "quota_units", ...(hasMoney() ? ["quota_units_usd"] : [])],
      series.flatMap((each) => labels.filter((label) => each.at[label]).map((label) => [...row(label, each), ...usd(label, each)]))));
}

function totals(asked, used, title) {
  const total = (each, what) => Object.values(each.shown).reduce((sum, one) => sum + one[what], 0);
  const account = asked.key ? "Key" : "Team";
  const name = asked.by === "day" ? account : (NAMES[asked.by] ?? asked.by).replace(/^./, (first) => first.toUpperCase());
  const sorted = [...used].sort((one, other) => Number(one.rest ?? false) - Number(other.rest ?? false) || total(other, asked.what) - total(one, asked.what));
  return card(title, table(title, [
    { name, of: (row) => place(asked, row.name), kind: "w" },
    ...(used.some((each) => each.about) ? [{ name: "Name", of: (row) => row.about ?? "", kind: "w" }] : []),
    { name: "Images", of: (row) => number(total(row, "images")), kind: "n" },
    ...unitColumns((row) => total(row, "quota_units")),
  ], sorted));
}

export async function show({ who, query }) {
  const key = query.key ?? "";
  const team = key ? key.slice(0, key.lastIndexOf("_")) : (query.team ?? onlyTeam(who));
  const asked = { team, key, by: query.by ?? "", what: query.what ?? "quota_units", time: query.time ?? "" };
  const ways = waysOf(asked, who);
  if (!ways.includes(asked.by)) asked.by = ways[0];
  const times = timesOf(asked).map(([name]) => name);
  if (!times.includes(asked.time)) asked.time = asked.by in STATED ? times[0] : "30d";
  const form = formOf(asked, who, ways);
  const unit = asked.time.endsWith("m") ? "month" : "day";
  const long = Number.parseInt(asked.time, 10);
  const { labels, series, note } = await read(asked, unit, long);
  const used = series.map((each) => ({ ...each, shown: Object.fromEntries(labels.filter((label) => each.at[label]).map((label) => [label, each.at[label]])) }))
    .filter((each) => Object.values(each.shown).some((one) => one.images || one.quota_units));
  const format = asked.what === "images" ? number : units;
  const words = asked.what === "images" ? "Images" : "Units";
  const title = `${words} by ${unit}${asked.by === "day" ? "" : ` and ${NAMES[asked.by] ?? asked.by}`}`;
  const told = (each) => (each.about ? `${each.name} (${each.about})` : each.name || "not itemised");
  const lines = used.map((each) => ({ name: told(each), rest: each.rest, values: labels.map((label) => each.shown[label]?.[asked.what] ?? 0) }));
  const nothing = asked.by === "user" || asked.by === "tag"
    ? empty(`No ${NAMES[asked.by] ?? asked.by} yet`, asked.by === "user" ? "A request names its end user as 'user', or in the header of server.user_header." : "A request has tags in the header x-lightmeter-tags: project=apollo, env=prod.")
    : empty("Nothing was used in these days", "Choose more days, or another team.");
  const content = used.length ? [
    card(title, chart({ title, labels: labels.map((label) => (unit === "day" ? label.slice(5) : label)), series: largest(lines), format })),
    totals(asked, used, `In all, of ${count(labels.length, unit)}`),
  ] : [nothing];
  const csvButton = button("Save as CSV", () => save(asked, labels, used, unit), { disabled: !used.length });
  return { content: [head("Usage", null, csvButton), form, note ? h("p", { className: "soft" }, note) : null, ...content].filter(Boolean) };
}
