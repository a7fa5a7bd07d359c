/** The ledger: every request that was forwarded, every grant and refund; and refunds. */

import { get, post } from "/console/console/api.js";
import { go, remember } from "/console/console/app.js";
import { csv, download, moment, number, unitColumns, units } from "/console/console/format.js";
import { button, card, empty, facts, field, h, head, link, notice } from "/console/console/html.js";
import { ask } from "/console/parts/dialog.js";
import { filters, pagedTable } from "/console/parts/pager.js";
import { onlyTeam, teamField, whichTeam } from "/console/parts/teams.js";

const PAGE = 50;
const OUTCOMES = ["delivered", "empty", "refused", "failed", "unreachable", "truncated", "abandoned", "expired"];
const FILTERS = ["key", "user", "tag", "outcome", "since", "until", "request"];
const GOOD = { delivered: "good", failed: "bad", unreachable: "bad", truncated: "warn", expired: "warn", abandoned: "warn" };
const charged = (row) => row.charged ?? row.quota_units ?? 0;

const told = (value) => (value !== null && typeof value === "object" ? h("pre", {}, JSON.stringify(value, null, 1)) : String(value));

const ledgerOf = (team, more) => `ledger?${new URLSearchParams({ team, ...more })}`;

/** The end user and the tags of an entry; each leads to those that have it as well. */
function people(entry) {
  const tags = Object.entries(entry.tags ?? {}).map(([name, value]) => `${name}=${value}`);
  if (!entry.user && !tags.length) return "";
  return h("span", { className: "tags" },
    entry.user ? link(ledgerOf(entry.team, { user: entry.user }), entry.user) : null,
    tags.map((tag) => link(ledgerOf(entry.team, { tag }), tag, { className: "tag" })));
}

/** All facts of an entry, and its refund. */
function details(entry, who) {
  const place = h("div", { className: "stack" });
  const refund = async () => {
    const done = await ask(`Refund ${entry.id}`, {
      text: `${units(charged(entry))} units go back to ${entry.key || entry.team}. An entry is refunded once.`,
      submit: "Refund",
      danger: true,
      fields: field("Reason", h("input", { name: "reason", required: true, maxlength: "1000", autocomplete: "off" })),
      send: (form) => post(`ledger/${entry.id}/refund`, { reason: form.get("reason") }),
    });
    if (done) place.append(notice(`Refunded by the entry ${done.ledger_entry}.`, "good"));
  };
  const may = who.role === "admin" && ["request", "late"].includes(entry.kind) && charged(entry) > 0;
  const { user, tags, ...others } = entry;
  place.append(facts([...Object.entries(others).map(([name, value]) => [name.replaceAll("_", " "), told(value)]), [tags ? "user and tags" : "user", user || tags ? people(entry) : null]]), ...(may ? [h("div", { className: "row" }, button("Refund", refund, { className: "danger" }))] : []));
  return place;
}

async function entryPage(id, who) {
  const team = id.slice(0, id.lastIndexOf("_"));
  const [ms] = id.slice(id.lastIndexOf("_") + 1).split("-");
  const since = new Date(Number(ms)).toISOString();
  // The ledger is read from the entry's own millisecond on.
  const page = await get("ledger", { team, since, limit: 50 });
  const entry = page.data.find((each) => each.id === id);
  const content = entry ? card("", details(entry, who)) : empty("There is no such entry", "It may have been trimmed, or belong to another gateway's store.");
  return { content: [head(id, [link(`ledger?team=${team}`, `Ledger of ${team}`), " /"]), content] };
}

export async function show({ who, id, query }) {
  if (id) return entryPage(id, who);
  const asked = { team: query.team ?? onlyTeam(who), ...Object.fromEntries(FILTERS.map((name) => [name, query[name] ?? ""])) };
  const input = (name, more = {}) => h("input", { name, value: asked[name], autocomplete: "off", spellcheck: "false", ...more });
  const form = filters([
    teamField(who, asked.team),
    field("Key", input("key", { placeholder: "all" })),
    field("End user", input("user", { placeholder: "all" })),
    field("Tag", input("tag", { placeholder: "name=value" })),
    field("Outcome", h("select", { name: "outcome" }, h("option", { value: "" }, "all"), OUTCOMES.map((name) => h("option", { value: name, selected: asked.outcome === name }, name)))),
    field("From (UTC)", input("since", { type: "date" })),
    field("To (UTC)", input("until", { type: "date" })),
    field("Request", input("request", { placeholder: "req_…" })),
  ], (values) => {
    remember(values);
    go(`ledger${location.search}`, { replace: true });
  });
  const newest = Boolean(asked.team || asked.key);
  const values = { ...asked, since: asked.since && `${asked.since}T00:00:00Z`, until: asked.until && `${asked.until}T00:00:00Z`, order: newest ? "newest" : "" };
  const columns = [
    { name: "When (UTC)", of: (row) => link(`ledger/${row.id}`, moment(row.at)), kind: "t" },
    { name: "Key or team", of: (row) => (row.key ? link(`keys/${row.key}`, row.key, { className: "mono" }) : link(`teams/${row.team}`, row.team, { className: "mono" })), kind: "t" },
    { name: "What", of: (row) => (row.outcome ? h("span", { className: `tag ${GOOD[row.outcome] ?? ""}` }, row.outcome) : h("span", { className: "tag" }, row.kind)) },
    { name: "Model", of: (row) => row.model ?? "", kind: "w" },
    { name: "Images", of: (row) => (row.images === undefined ? "" : number(row.images)), kind: "n" },
    ...unitColumns(charged),
    { name: "User and tags", of: people, kind: "w" },
  ];
  const hasFilter = Object.values(asked).some(Boolean);
  const none = hasFilter ? empty("No entry is like that", "Look at other days, or with fewer filters.") : empty("No entry yet", "Every request that is forwarded leaves exactly one entry here, as do grants and refunds.");
  const needsTeam = who.role === "team_admin" && !asked.team && !asked.key;
  if (needsTeam) return { content: [head("Ledger"), form, whichTeam(who, (team) => ledgerOf(team, {}))] };
  const { place, rows } = await pagedTable("Ledger entries", columns, (cursor) => get("ledger", { ...values, cursor, limit: PAGE }), none);
  const save = () => {
    const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
    download("lightmeter-ledger.csv", csv(names, rows.map((row) => names.map((name) => (row[name] !== null && typeof row[name] === "object" ? JSON.stringify(row[name]) : row[name])))));
  };
  return { content: [head("Ledger", null, button("Save what is shown", save, { disabled: !rows.length })), form, newest ? null : h("p", { className: "soft" }, "Over all teams, entries come team by team, oldest first. Name a team or a key for its newest first."), card("", place)].filter(Boolean) };
}
