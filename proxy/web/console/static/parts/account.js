/** What can be done with a team or a key, and what it has used. */

import { patch, post, end } from "/console/console/api.js";
import { number, units } from "/console/console/format.js";
import { button, card, field, h } from "/console/console/html.js";
import { chart, lastDays } from "/console/parts/chart.js";
import { ask, confirmEnd } from "/console/parts/dialog.js";
import { limitFields, readLimits } from "/console/parts/limits.js";

/** What is shown of an account's past. */
export const DAYS = 30;

/** Buttons for an account at `path` ("teams" or "keys"); `again` shows the page anew. */
export function accountActions(path, account, again) {
  const one = `${path}/${account.id}`;
  const kind = path === "teams" ? "team" : "key";
  const change = button("Change", async () => {
    const expiry = kind === "key" ? field("Expires (UTC)", h("input", { name: "expires", type: "datetime-local", value: account.expires_at?.slice(0, 16) ?? "" }), "Empty: never") : null;
    const done = await ask(`Change ${account.id}`, {
      submit: "Save",
      fields: [h("div", { className: "fields" }, field("Name", h("input", { name: "name", value: account.name, maxlength: "200", autocomplete: "off" })), expiry), limitFields(account.limits)],
      send: (form) => patch(one, {
        name: form.get("name"),
        limits: readLimits(form),
        ...(kind === "key" && form.get("expires") !== (account.expires_at?.slice(0, 16) ?? "") ? { expires_at: form.get("expires") ? `${form.get("expires")}:00Z` : null } : {}),
      }),
    });
    if (done) again();
  });
  const grant = button("Grant", async () => {
    const done = await ask(`Grant ${account.id} more of its quota`, {
      text: "A grant adds to the quota in all; a negative one takes back. It stands in the ledger.",
      submit: "Grant",
      fields: h("div", { className: "fields" },
        field("Units", h("input", { name: "units", required: true, autocomplete: "off", inputmode: "numeric" }), "As 500000, -5000 or $5"),
        field("Reason", h("input", { name: "reason", required: true, maxlength: "1000", autocomplete: "off" }))),
      send: (form) => {
        const text = form.get("units").replaceAll(/[\s,_]/g, "");
        if (!/^(-?\d+|-?\$[\d.]+)$/.test(text)) throw new Error(`"${text}" should be a whole number, or dollars as $5.`);
        return post(`${one}/grants`, { quota_units: text.includes("$") ? text : Number(text), reason: form.get("reason") });
      },
    });
    if (done) again();
  });
  const revoke = button(kind === "team" ? "Delete" : "Revoke", async () => {
    const done = await confirmEnd(kind === "team" ? `Delete the team ${account.id}` : `Revoke the key ${account.id}`, {
      name: account.id,
      text: kind === "team" ? "All of its keys are refused from the next request on, and it gets no new ones. Its ledger stays. This cannot be undone." : "It is refused from the next request on. Its ledger stays. This cannot be undone.",
      submit: kind === "team" ? "Delete the team" : "Revoke the key",
      send: () => end(one),
    });
    if (done) again();
  }, { className: "danger" });
  return [change, grant, revoke];
}

/** Charts of what was charged: by day, and by model. */
export function usageCards(usage) {
  const days = lastDays(DAYS);
  const of = (day, name) => usage.by_day[day]?.[name] ?? 0;
  const models = Object.entries(usage.by_model).sort(([, one], [, other]) => other.quota_units - one.quota_units);
  const labels = days.map((day) => day.slice(5));
  const byDay = (title, name, format) => card(title, chart({ title, labels, series: [{ name: name === "images" ? "images" : "units", values: days.map((day) => of(day, name)) }], format }));
  const most = Math.max(1, ...models.map(([, each]) => each.quota_units));
  const byModel = models.map(([model, each]) => {
    const filled = h("i", { className: "used" });
    filled.style.width = `${(each.quota_units / most) * 100}%`;
    return h("div", { className: "limit" }, h("p", {}, h("span", { className: "mono" }, model), h("span", { className: "soft" }, `${units(each.quota_units)} units, ${number(each.images)} images`)), h("div", { className: "bar", "aria-hidden": "true" }, filled));
  });
  return h("div", { className: "wide" },
    byDay("Units by day", "quota_units", units), byDay("Images by day", "images", number),
    card("By model, since the beginning", byModel.length ? byModel : h("p", { className: "soft" }, "Nothing was charged yet.")));
}
