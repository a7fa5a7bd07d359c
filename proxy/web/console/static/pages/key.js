/** One key. */

import { get, post } from "/console/console/api.js";
import { go } from "/console/console/app.js";
import { moment, number, publicUrl } from "/console/console/format.js";
import { button, card, facts, field, h, head, link, notice } from "/console/console/html.js";
import { keyState } from "/console/pages/teams.js";
import { DAYS, accountActions, usageCards } from "/console/parts/account.js";
import { ask, showSecret } from "/console/parts/dialog.js";
import { usageBars } from "/console/parts/limits.js";

async function rotate(key) {
  const made = await ask(`A new secret for ${key.id}`, {
    text: "The key gets a new text. The old one stays good for as long as you say, so that clients can change over.",
    submit: "Rotate",
    fields: field("The old one stays good for", h("select", { name: "overlap" },
      [[0, "not at all"], [3600, "an hour"], [86400, "a day"], [604800, "a week"]].map(([seconds, text]) => h("option", { value: seconds }, text)))),
    send: (form) => post(`keys/${key.id}/rotate`, { overlap_seconds: Number(form.get("overlap")) }),
  });
  if (made) await showSecret(`New secret of ${key.id}`, made, publicUrl());
}

export async function show({ who, id }) {
  const [key, usage] = await Promise.all([get(`keys/${id}`), get(`keys/${id}/usage`, { days: DAYS })]);
  const again = () => go(`keys/${id}`, { replace: true });
  const may = who.role !== "viewer" && !key.revoked_at;
  const actions = may ? [button("Rotate", () => rotate(key)), ...accountActions("keys", key, again)] : [];
  return {
    content: [
      head(key.id, [link("teams", "Teams and keys"), " / ", link(`teams/${key.team}`, key.team), " /"], ...actions),
      key.revoked_at ? notice(`This key was revoked ${moment(key.revoked_at)}.`, "bad") : null,
      h("div", { className: "wide" },
        card("Limits and what is used", usageBars(usage.limits, key.limits)),
        card("Facts", facts([["State", keyState(key)], ["Name", key.name], ["Created", moment(key.created_at)], ["Expires", key.expires_at ? moment(key.expires_at) : "never"], ["Images", number(key.images)], ["Granted units", number(key.granted_units)], ["Overage units", number(usage.overage_units)]]),
          h("p", { className: "row" }, link(`ledger?team=${key.team}&key=${key.id}`, "Its ledger"), link(`usage?key=${key.id}`, "Its usage")))),
      usageCards(usage),
    ].filter(Boolean),
  };
}
