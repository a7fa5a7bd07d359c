/** Who changed what over the admin API and the console. */

import { get } from "/console/console/api.js";
import { go, remember } from "/console/console/app.js";
import { moment } from "/console/console/format.js";
import { card, empty, field, h, head, link } from "/console/console/html.js";
import { filters, pagedTable } from "/console/parts/pager.js";
import { onlyTeam, teamField, whichTeam } from "/console/parts/teams.js";

const PAGE = 50;
const IGNORED = new Set(["usage", "images"]);
const HIDDEN = new Set(["id", "team", "created_at"]);
const NONE = new Set(["", "0", "*"]);

/** What differs between two records, in short. */
function changes(before, after) {
  if (!before && !after) return "";
  const flat = (record) => Object.fromEntries(Object.entries({ ...record, ...record?.limits }).filter(([name, value]) => !IGNORED.has(name) && name !== "limits" && value !== undefined));
  const [one, other] = [flat(before ?? {}), flat(after ?? {})];
  const told = (value) => (value === null || value === undefined || (!before && NONE.has(String(value))) ? "none" : Array.isArray(value) ? value.join(" ") : String(value));
  const names = [...new Set([...Object.keys(one), ...Object.keys(other)])].filter((name) => told(one[name]) !== told(other[name]) && !HIDDEN.has(name) && !name.endsWith("_usd"));
  return h("span", {}, names.map((name, at) => [at ? "; " : "", `${name.replaceAll("_", " ")}: ${before ? `${told(one[name])} → ` : ""}${told(other[name])}`]));
}

function target(row) {
  if (row.action.startsWith("key.")) return link(`keys/${row.target}`, row.target, { className: "mono" });
  if (row.action.startsWith("team.")) return link(`teams/${row.target}`, row.target, { className: "mono" });
  return link(`ledger/${row.target}`, row.target, { className: "mono" });
}

export async function show({ who, query }) {
  const asked = { team: query.team ?? onlyTeam(who), since: query.since ?? "" };
  const form = filters([
    teamField(who, asked.team),
    field("From (UTC)", h("input", { name: "since", type: "date", value: asked.since })),
  ], (values) => {
    remember(values);
    go(`audit${location.search}`, { replace: true });
  });
  if (who.role === "team_admin" && !asked.team) return { content: [head("Audit"), form, whichTeam(who, (team) => `audit?team=${team}`)] };
  const values = { ...asked, since: asked.since && `${asked.since}T00:00:00Z` };
  const { place } = await pagedTable("Changes", [
    { name: "When (UTC)", of: (row) => moment(row.at), kind: "t" },
    { name: "Who", of: (row) => row.by, kind: "t" },
    { name: "What", of: (row) => h("span", { className: "tag" }, row.action) },
    { name: "Of", of: target, kind: "t" },
    { name: "Change", of: (row) => changes(row.before, row.after), kind: "w" },
  ], (cursor) => get("audit", { ...values, cursor, limit: PAGE }), empty("No change yet", "Each change to a team, a key or the ledger leaves a record here: who made it, and what was there before."));
  return { content: [head("Audit"), form, card("", place)] };
}
