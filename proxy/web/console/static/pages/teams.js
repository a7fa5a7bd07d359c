/** Teams, and keys by their ids: found by how they begin. */

import { get, post } from "/console/console/api.js";
import { go, remember } from "/console/console/app.js";
import { moment, number, publicUrl, unitColumns } from "/console/console/format.js";
import { button, card, empty, field, h, head, link } from "/console/console/html.js";
import { ask, showSecret } from "/console/parts/dialog.js";
import { limitFields, readLimits, tightest } from "/console/parts/limits.js";
import { filters, pagedTable } from "/console/parts/pager.js";

const PAGE = 50;

/** Make a key in a dialog, and show its text once. */
export async function newKey(team = "") {
  const made = await ask("New key", {
    submit: "Create the key",
    fields: [
      h("div", { className: "fields" },
        field("Team", h("input", { name: "team", value: team, required: true, readonly: team !== "", autocomplete: "off", pattern: "[a-z0-9]([a-z0-9\\-]{0,38}[a-z0-9])?", title: "a-z, 0-9 and -" }), team ? "" : "A new one is made"),
        field("Name", h("input", { name: "name", autocomplete: "off", maxlength: "200" }), "What it is for"),
        field("Expires (UTC)", h("input", { name: "expires", type: "datetime-local" }), "Empty: never")),
      h("details", {}, h("summary", {}, "Limits"), h("div", { className: "stack" }, limitFields())),
    ],
    send: (form) => post("keys", {
      team: form.get("team"),
      name: form.get("name"),
      limits: readLimits(form),
      ...(form.get("expires") ? { expires_at: `${form.get("expires")}:00Z` } : {}),
    }),
  });
  if (!made) return null;
  await showSecret(`Key ${made.id}`, made, publicUrl());
  return made;
}

async function newTeam() {
  const made = await ask("New team", {
    submit: "Create the team",
    fields: [
      h("div", { className: "fields" },
        field("Id", h("input", { name: "id", required: true, autocomplete: "off", pattern: "[a-z0-9]([a-z0-9\\-]{0,38}[a-z0-9])?", title: "a-z, 0-9 and -" }), "a-z, 0-9 and -; it stays"),
        field("Name", h("input", { name: "name", autocomplete: "off", maxlength: "200" }))),
      limitFields(),
    ],
    send: (form) => post("teams", { id: form.get("id"), name: form.get("name"), limits: readLimits(form) }),
  });
  if (made) go(`teams/${made.id}`);
}

export async function show({ who, query }) {
  const prefix = query.prefix ?? "";
  const keys = prefix.includes("_");
  const changes = who.role !== "viewer";
  const none = prefix
    ? empty("Nothing begins so", "Ids are found by how they begin; a key's begins with its team's, as in research_x7…")
    : empty("No team yet", "A team has keys, and limits that hold over all of them. Create a key, and its team is made with it.", "lightmeter keys create --team research --new-team --quota-units 1000000");
  const columns = keys ? [
    { name: "Key", of: (row) => link(`keys/${row.id}`, row.id, { className: "mono" }), kind: "t" },
    { name: "Name", of: (row) => row.name, kind: "w" },
    { name: "Tightest quota", of: (row) => tightest(row.usage), kind: "w" },
    { name: "Images", of: (row) => number(row.images), kind: "n" },
    { name: "State", of: (row) => keyState(row) },
  ] : [
    { name: "Team", of: (row) => link(`teams/${row.id}`, row.id, { className: "mono" }), kind: "t" },
    { name: "Name", of: (row) => row.name, kind: "w" },
    { name: "Tightest quota", of: (row) => tightest(row.usage), kind: "w" },
    ...unitColumns((row) => row.usage.quota_units.posted, "Units used"),
    { name: "Images", of: (row) => number(row.images), kind: "n" },
    { name: "State", of: (row) => (row.deleted_at ? h("span", { className: "tag bad" }, "deleted") : h("span", { className: "tag good" }, "active")) },
  ];
  const path = keys ? "keys" : "teams";
  const team = keys && who.role === "team_admin" ? prefix.split("_")[0] : undefined;
  const { place } = await pagedTable(keys ? "Keys" : "Teams", columns, (cursor) => get(path, { prefix, team, cursor, limit: PAGE }), none);
  const search = filters([field("Find by how the id begins", h("input", { name: "prefix", type: "search", value: prefix, autocomplete: "off", spellcheck: "false", placeholder: "research, or research_x7…" }))],
    (values) => {
      remember({ prefix: values.prefix.trim().toLowerCase() });
      go(`teams${location.search}`, { replace: true });
    });
  const actions = [
    who.role === "admin" ? button("New team", newTeam) : null,
    changes ? button("New key", async () => {
      const made = await newKey(who.role === "team_admin" && who.teams.length === 1 ? who.teams[0] : "");
      if (made) go(`teams/${made.team}`);
    }, { className: "main" }) : null,
  ].filter(Boolean);
  return { content: [head("Teams and keys", null, ...actions), search, card("", place)] };
}

/** Whether a key may be used. */
export function keyState(key) {
  if (key.revoked_at) return h("span", { className: "tag bad", title: moment(key.revoked_at) }, "revoked");
  if (key.expires_at && Date.parse(key.expires_at) <= Date.now()) return h("span", { className: "tag bad", title: moment(key.expires_at) }, "expired");
  if (key.expires_at) return h("span", { className: "tag warn", title: moment(key.expires_at) }, `until ${key.expires_at.slice(0, 10)}`);
  return h("span", { className: "tag good" }, "active");
}
