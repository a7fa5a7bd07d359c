/** Who used what: by day or by month, stacked by model, team, key, end user or tag; as a file, too. */

import { all, get } from "/console/console/api.js";
import { go, remember } from "/console/console/app.js";
import { csv, download, hasMoney, number, plainUsd, unitColumns, units } from "/console/console/format.js";
import { button, card, empty, field, h, head, link, table } from "/console/console/html.js";
import { chart, largest, lastDays } from "/console/parts/chart.js";
import { filters } from "/console/parts/pager.js";
import { onlyTeam, teamField } from "/console/parts/teams.js";

const KEYS = 60;
const TEAMS = 100;
const HEADINGS = 100;
const AT_ONCE = 6;
const STATED = { model: "by_model", user: "by_user", tag: "by_tag" };
const NAMES = { day: "nothing", user: "end user" };
const OTHERS = "(others)";

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

/** What a team used by month: its statements have models, end users and tags. */
async function byMonth(team, by, months) {
  const { data } = await get(`teams/${team}/statements`, { top: HEADINGS });
  const kept = data.slice(-months);
  const found = kept.map((each) => each[STATED[by]]);
  const names = [...new Set(found.flatMap((each) => Object.keys(each)))];
  const omitted = Math.max(0, ...kept.map((each) => each.headings_omitted[STATED[by]]));
  return {
    labels: kept.map((each) => each.month),
    series: names.map((name) => ({ name, rest: name === OTHERS, at: Object.fromEntries(kept.map((each, at) => [each.month, found[at][name]])) })),
    note: `By UTC month, as the statements have it.${omitted ? ` The ${HEADINGS} largest of each month are told apart; the CSV of a statement has all.` : ""}`,
  };
}

/** {series, note}: each of `series` is {name, at: {day: {images, quota_units}}}. */
async function byDay({ team, key, by }, days) {
  if (key || (team && by === "day")) {
    const usage = await get(key ? `keys/${key}/usage` : `teams/${team}/usage`);
    return { labels: days, series: [{ name: key || team, at: usage.by_day }], models: usage.by_model };
  }
  if (team) {
    const { items, more } = await all("keys", { team }, KEYS);
    const usages = await eachOf(items, (each) => get(`keys/${each.id}/usage`));
    const series = items.map((each, at) => ({ name: each.id, about: each.name, at: usages[at].by_day }));
    return { labels: days, series, note: more ? `The first ${KEYS} keys of ${team} are shown; its statements have all of them.` : "" };
  }
  if (by === "team") {
    const { items, more } = await all("teams", {}, TEAMS);
    const usages = await eachOf(items, (each) => get(`teams/${each.id}/usage`));
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

function waysOf(asked, who) {
  if (asked.key) return ["day"];
  if (asked.team) return ["key", "model", "user", "tag", "day"];
  return who.role === "team_admin" ? ["team"] : ["model", "team"];
}

function formOf(asked, who, ways) {
  const choice = (name, options) => h("select", { name }, options.map(([value, text]) => h("option", { value, selected: asked[name] === value }, text)));
  const monthly = asked.team && asked.by in STATED;
  return filters([
    teamField(who, asked.team),
    field("Key", h("input", { name: "key", value: asked.key, autocomplete: "off", spellcheck: "false", placeholder: "all of the team" })),
    field("Stacked by", choice("by", ways.map((name) => [name, NAMES[name] ?? name]))),
    field("What", choice("what", [["quota_units", "units"], ["images", "images"]])),
    monthly ? field("Months", choice("months", ["3", "12", "36"].map((each) => [each, each]))) : field("Days", choice("days", ["7", "30", "90", "365"].map((each) => [each, each]))),
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
  if (asked.by === "key" || asked.key) return link(`keys/${name}`, name, { className: "mono" });
  return asked.by === "user" || asked.by === "tag" ? link(ledger({ [asked.by]: name }), name) : name;
}

function save(asked, labels, series, unit) {
  const row = (label, each) => [label, each.name, each.at[label].images, each.at[label].quota_units];
  const usd = (label, each) => (hasMoney() ? [each.at[label].quota_units_usd ?? plainUsd(each.at[label].quota_units)] : []);
  download(`lightmeter-usage-${labels[0]}-to-${labels.at(-1)}.csv`,
    csv([unit, asked.by === "day" ? "account" : asked.by, "images", "quota_units", ...(hasMoney() ? ["quota_units_usd"] : [])],
      series.flatMap((each) => labels.filter((label) => each.at[label]).map((label) => [...row(label, each), ...usd(label, each)]))));
}

function tables(asked, used, title, models) {
  const total = (each, what) => Object.values(each.shown).reduce((sum, one) => sum + one[what], 0);
  const account = asked.key ? "Key" : "Team";
  const name = asked.by === "day" ? account : (NAMES[asked.by] ?? asked.by).replace(/^./, (first) => first.toUpperCase());
  const sorted = [...used].sort((one, other) => Number(one.rest ?? false) - Number(other.rest ?? false) || total(other, asked.what) - total(one, asked.what));
  const whole = card(title, table(title, [
    { name, of: (row) => place(asked, row.name), kind: "w" },
    ...(used.some((each) => each.about) ? [{ name: "Name", of: (row) => row.about ?? "", kind: "w" }] : []),
    { name: "Images", of: (row) => number(total(row, "images")), kind: "n" },
    ...unitColumns((row) => total(row, "quota_units")),
  ], sorted));
  const byModel = models ? card("By model, since the beginning", table("By model", [
    { name: "Model", of: ([model]) => model, kind: "w" },
    { name: "Images", of: ([, each]) => number(each.images), kind: "n" },
    ...unitColumns(([, each]) => each.quota_units),
  ], Object.entries(models))) : null;
  return [whole, byModel].filter(Boolean);
}

export async function show({ who, query }) {
  const team = query.team ?? onlyTeam(who);
  const asked = { team, key: query.key ?? "", by: query.by ?? (team ? "key" : "model"), what: query.what ?? "quota_units", days: query.days ?? "30", months: query.months ?? "12" };
  const ways = waysOf(asked, who);
  if (!ways.includes(asked.by)) asked.by = ways[0];
  const form = formOf(asked, who, ways);
  const unit = team && asked.by in STATED ? "month" : "day";
  const { labels, series, note, models } = unit === "month" ? await byMonth(team, asked.by, Number(asked.months)) : await byDay(asked, lastDays(Number(asked.days)));
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
    ...tables(asked, used, `In all, of ${labels.length} ${unit}${labels.length === 1 ? "" : "s"}`, models),
  ] : [nothing];
  const csvButton = button("Save as CSV", () => save(asked, labels, used, unit), { disabled: !used.length });
  return { content: [head("Usage", null, csvButton), form, note ? h("p", { className: "soft" }, note) : null, ...content].filter(Boolean) };
}
