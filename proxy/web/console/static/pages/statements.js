/** Statements: what a team's ledger adds up to by month, to read, to print and to take away. */

import { get } from "/console/console/api.js";
import { go, remember } from "/console/console/app.js";
import { count, dollars, number, units } from "/console/console/format.js";
import { card, empty, facts, field, h, head, link, notice, table } from "/console/console/html.js";
import { chart } from "/console/parts/chart.js";
import { filters, pagedTable } from "/console/parts/pager.js";
import { onlyTeam, teamField, whichTeam } from "/console/parts/teams.js";

const LISTED = 10;
const LATE_SHOWN = 20;
const TEAMS = 50;
const OTHERS = "(others)";

const monthName = (month) => new Date(`${month}-01T00:00:00Z`).toLocaleDateString("en", { month: "long", year: "numeric", timeZone: "UTC" });
const address = (team, month = "") => `statements?${new URLSearchParams({ team, ...(month ? { month } : {}) })}`;
const state = (each) => h("span", { className: `tag ${each.state === "open" ? "warn" : "good"}` }, each.state);
const entryLink = (id) => link(`ledger/${id}`, id, { className: "mono" });

/** The day after a month's last. */
function monthAfter(month) {
  const [year, number_] = month.split("-").map(Number);
  return new Date(Date.UTC(year, number_, 1)).toISOString().slice(0, 10);
}

/** Columns of units, and of dollars at what they were worth then; `name` is a figure's in the API. */
function moneyColumns(hasUsd, name = "quota_units", title = "Units") {
  const usd = { name: "USD", of: (row) => dollars(row[`${name}_usd`]), kind: "n" };
  return [{ name: title, of: (row) => number(row[name]), kind: "n" }, ...(hasUsd ? [usd] : [])];
}

function figure(title, value, more = "") {
  return h("div", {}, h("dt", {}, title), h("dd", {}, value, more ? h("small", { className: "soft" }, more) : null));
}

function figures(each) {
  const money = (title, name) => figure(title, number(each[name]), each.units_per_usd === null ? "" : dollars(each[`${name}_usd`]));
  return h("dl", { className: "figures" },
    money("Units in all", "quota_units"), figure("Images", number(each.images)), figure("Requests", number(each.requests)),
    money("Charged", "charged"), money("Refunded", "refunded"), money("Of that overage", "overage"), money("Granted, no charge", "granted"));
}

/** One kind of headings, the largest first; `to(name)` is where a name leads. */
function headings(each, title, kind, to = null) {
  const found = Object.entries(each[kind]).map(([name, sums]) => ({ name, ...sums }));
  if (!found.length) return null;
  const last = (row) => Number(row.name === OTHERS);
  found.sort((one, other) => last(one) - last(other) || other.quota_units - one.quota_units || other.images - one.images);
  const omitted = each.headings_omitted[kind];
  const told = (row) => {
    if (row.name === OTHERS) return omitted ? count(omitted, "other") : "others";
    if (row.name === "") return h("em", {}, "not itemised");
    return to ? link(to(row.name), row.name) : row.name;
  };
  return card(`By ${title}`,
    table(`By ${title}`, [
      { name: title[0].toUpperCase() + title.slice(1), of: told, kind: "w" },
      { name: "Images", of: (row) => number(row.images), kind: "n" },
      ...moneyColumns(each.units_per_usd !== null),
    ], found),
    omitted ? h("small", {}, "The largest are listed; the CSV and the JSON have all of them.") : null);
}

function late(each) {
  const months = Object.entries(each.late).map(([month, sums]) => ({ month, ...sums }));
  if (!months.length) return null;
  const more = Math.max(0, each.late_entries.length - LATE_SHOWN) + each.late_entries_omitted;
  const entries = each.late_entries.slice(0, LATE_SHOWN).map((id) => h("li", {}, entryLink(id)));
  return card("Late entries",
    h("p", { className: "soft" }, "Of requests that were admitted in an earlier month, and settled after it had ended. They are part of this statement, and of no other."),
    table("Late entries by the month of their admission", [
      { name: "Admitted in", of: (row) => row.month, kind: "t" },
      { name: "Entries", of: (row) => number(row.entries), kind: "n" },
      { name: "Images", of: (row) => number(row.images), kind: "n" },
      ...moneyColumns(each.units_per_usd !== null),
    ], months),
    h("details", {}, h("summary", {}, "Which they are"), h("ul", { className: "plain" }, entries), more ? h("p", { className: "soft" }, `and ${number(more)} more: the JSON lists up to 1,000.`) : null));
}

function range(each) {
  const { after, to } = each.ledger;
  const brought = each.brought_forward;
  return card("What it adds up from",
    facts([
      ["Ledger entries", number(each.entries)],
      ["Behind", to === null || to === after ? null : after === null ? "the beginning of the ledger" : entryLink(after)],
      ["Up to", to === null || to === after ? null : entryLink(to)],
      ["A US dollar", each.units_per_usd === null ? null : `${number(Number(each.units_per_usd))} units`],
      ["Brought forward", brought ? `${number(brought.quota_units)} units and ${count(brought.images, "image")} that were trimmed from the ledger before: known by model only` : null],
    ]),
    h("p", { className: "soft" }, "Each entry of the ledger is in exactly one statement: all of a team's statements together are its ledger."));
}

function oneMonth(team, each) {
  const file = `/admin/v1/teams/${team}/statements/${each.month}`;
  const span = { team, since: `${each.month}-01`, until: monthAfter(each.month) };
  const ledger = (more) => `ledger?${new URLSearchParams({ ...span, ...more })}`;
  const told = each.state === "open"
    ? notice("This month is open: what is written until it ends comes in. It is stated once, when it has ended, and does not change after.", "warn")
    : h("p", { className: "soft" }, `Stated ${each.stated_at.slice(0, 10)}. What is written later is in a later month, and marked as late there.`);
  return [
    head(monthName(each.month), [link("statements", "Statements"), " / ", link(address(team), team), " /"],
      h("a", { className: "button", href: `${file}/page`, target: "_blank" }, "To print"),
      h("a", { className: "button", href: `${file}/csv`, download: "" }, "CSV"),
      h("a", { className: "button", href: file, download: `statement-${team}-${each.month}.json` }, "JSON")),
    told, figures(each),
    h("div", { className: "pairs" },
      headings(each, "model", "by_model"),
      headings(each, "key", "by_key", (name) => `keys/${name}`),
      headings(each, "end user", "by_user", (name) => ledger({ user: name })),
      headings(each, "tag", "by_tag", (name) => ledger({ tag: name })),
      late(each), range(each)),
  ];
}

/** All months of a team, the newest first. */
function allMonths(team, statements) {
  const hasUsd = statements.some((each) => each.units_per_usd !== null);
  const rows = [...statements].reverse();
  const labels = statements.map((each) => each.month);
  const title = "Units by month";
  return [
    card(title, chart({ title, labels, series: [{ name: "units", values: statements.map((each) => Math.max(0, each.quota_units)) }], format: units })),
    card("", table(`Statements of ${team}`, [
      { name: "Month", of: (row) => link(address(team, row.month), monthName(row.month)), kind: "t" },
      { name: "State", of: state },
      { name: "Requests", of: (row) => number(row.requests), kind: "n" },
      { name: "Images", of: (row) => number(row.images), kind: "n" },
      { name: "Refunded", of: (row) => number(row.refunded), kind: "n" },
      { name: "Overage", of: (row) => number(row.overage), kind: "n" },
      { name: "Late", of: (row) => number(Object.values(row.late).reduce((sum, each) => sum + each.entries, 0)), kind: "n" },
      ...moneyColumns(hasUsd, "quota_units", "Units in all"),
    ], rows)),
  ];
}

async function pickTeam(who) {
  if (who.role === "team_admin") return whichTeam(who, (team) => address(team));
  const { place } = await pagedTable("Teams", [
    { name: "Team", of: (row) => link(address(row.id), row.id, { className: "mono" }), kind: "t" },
    { name: "Name", of: (row) => row.name, kind: "w" },
    { name: "Images", of: (row) => number(row.images), kind: "n" },
  ], (cursor) => get("teams", { cursor, limit: TEAMS }), empty("No team yet", "A team has a statement of each month, from its first request on.", "lightmeter keys create --team research --new-team"));
  return card("Whose statements?", place);
}

export async function show({ who, query }) {
  const team = query.team ?? onlyTeam(who);
  if (team && query.month) return { content: oneMonth(team, await get(`teams/${team}/statements/${query.month}`, { top: LISTED })) };
  const month = h("input", { name: "month", type: "month", value: "", "aria-label": "Month" });
  const form = filters([teamField(who, team, "research"), field("Month (UTC)", month)], (values) => {
    remember({ team: values.team.trim(), month: values.month });
    go(`statements${location.search}`, { replace: true });
  });
  if (!team) return { content: [head("Statements"), form, await pickTeam(who)] };
  const { data } = await get(`teams/${team}/statements`, { top: 0 });
  const none = data.every((each) => each.entries === 0);
  return { content: [head("Statements", [link(`teams/${team}`, team), " /"]), form, ...(none ? [empty("Nothing to state yet", "A team has a statement of each month, from its first request on.")] : allMonths(team, data))] };
}
