/** One team: its limits, its keys and what it has used. */

import { get } from "/console/console/api.js";
import { go } from "/console/console/app.js";
import { moment, number } from "/console/console/format.js";
import { button, card, empty, facts, h, head, link, notice } from "/console/console/html.js";
import { keyState, newKey } from "/console/pages/teams.js";
import { DAYS, accountActions, usageCards } from "/console/parts/account.js";
import { tightest, usageBars } from "/console/parts/limits.js";
import { pagedTable } from "/console/parts/pager.js";

const PAGE = 25;

export async function show({ who, id }) {
  const [team, usage] = await Promise.all([get(`teams/${id}`), get(`teams/${id}/usage`, { days: DAYS })]);
  const again = () => go(`teams/${id}`, { replace: true });
  const create = async () => {
    if (await newKey(team.id)) again();
  };
  const { place } = await pagedTable(`Keys of ${id}`, [
    { name: "Key", of: (row) => link(`keys/${row.id}`, row.id, { className: "mono" }), kind: "t" },
    { name: "Name", of: (row) => row.name, kind: "w" },
    { name: "Tightest quota", of: (row) => tightest(row.usage), kind: "w" },
    { name: "Images", of: (row) => number(row.images), kind: "n" },
    { name: "State", of: (row) => keyState(row) },
  ], (cursor) => get("keys", { team: id, cursor, limit: PAGE }),
  empty("No key yet", "A client needs one to send requests.", `lightmeter keys create --team ${id}`));
  const open = !team.deleted_at;
  const actions = who.role === "admin" && open ? accountActions("teams", team, again) : [];
  if (who.role !== "viewer" && open) actions.push(button("New key", create, { className: "main" }));
  return {
    content: [
      head(team.id, [link("teams", "Teams and keys"), " /"], ...actions),
      open ? null : notice(`This team was deleted ${moment(team.deleted_at)}: its keys are refused.`, "bad"),
      h("div", { className: "wide" },
        card("Limits and what is used", usageBars(usage.limits, team.limits)),
        card("Facts", facts([["Name", team.name], ["Created", moment(team.created_at)], ["Images", number(team.images)], ["Granted units", number(team.granted_units)], ["Overage units", number(usage.overage_units)]]),
          h("p", { className: "row" }, link(`ledger?team=${id}`, "Its ledger"), link(`usage?team=${id}`, "Its usage"), link(`statements?team=${id}`, "Its statements"), link(`books?team=${id}`, "Verify its books"), link(`audit?team=${id}`, "Who changed what")))),
      card("Keys", place),
      usageCards(usage),
    ].filter(Boolean),
  };
}
