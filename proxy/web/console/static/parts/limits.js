/** Limits of a team or a key: as bars of what is used, and as fields to change them. */

import { count, hasMoney, number, units } from "/console/console/format.js";
import { field, h } from "/console/console/html.js";

export const QUOTAS = [["quota_units", "In all"], ["quota_units_per_day", "A day"], ["quota_units_per_month", "A month"]];
const RATES = [["requests_per_minute", "Requests a minute"], ["images_per_minute", "Images a minute"]];
const COUNTS = [...QUOTAS.map(([name, title]) => [name, `Units ${title.toLowerCase()}`]), ...RATES, ["concurrent_requests", "Requests at once"]];

const USER = "user-";
const OF_USER = [["quota_units_per_day", "Daily units"], ["quota_units_per_month", "Monthly units"], ["images_per_minute", "Images in a minute"], ["concurrent_requests", "In progress at once"]];

/** A bar of what is used and what is held. */
export function bar(used, held, limit) {
  const share = (value) => (limit > 0 ? Math.min(100, (value / limit) * 100) : value > 0 ? 100 : 0);
  const part = (name, percent) => {
    const made = h("i", { className: name });
    made.style.width = `${percent}%`;
    return made;
  };
  const filled = share(used);
  return h("div", { className: "bar", "aria-hidden": "true" },
    part(`used ${filled >= 100 ? "full" : filled >= 80 ? "high" : ""}`, filled), part("held", Math.min(100 - filled, share(held))));
}

function quota(title, each) {
  const window = each.window ? ` (${each.window})` : "";
  if (each.limit === null) return h("div", { className: "limit" }, h("p", {}, `${title}${window}`, h("span", { className: "soft" }, `${units(each.posted)} used, no limit`)));
  const held = each.reserved ? `, ${number(each.reserved)} reserved` : "";
  return h("div", { className: "limit" },
    h("p", {}, h("span", {}, `${title}${window}`), h("span", { className: "soft" }, `${number(each.posted)} used${held} of ${units(each.limit)}`)),
    bar(each.posted, each.reserved, each.limit),
    h("small", {}, `${units(each.remaining)} left`));
}

/** Every limit with what is used of it. */
export function usageBars(usage, limits) {
  const rates = RATES.filter(([name]) => usage[name].limit !== null).map(([name, title]) =>
    h("p", { className: "row between" }, title, h("span", { className: "soft" }, `${number(usage[name].remaining)} of ${number(usage[name].limit)} left now`)));
  const running = usage.concurrent_requests;
  return h("div", { className: "stack" }, QUOTAS.map(([name, title]) => quota(title, usage[name])), rates,
    h("p", { className: "row between" }, "Requests at once", h("span", { className: "soft" }, `${count(running.in_progress, "request")} in progress${running.limit === null ? ", no limit" : ` of ${number(running.limit)}`}`)),
    limits ? h("p", { className: "row between" }, "Models", h("span", { className: "soft mono" }, limits.models.join(", "))) : null,
    limits?.limits_per_user ? eachUser(limits.limits_per_user) : null);
}

/** The limits of each end user, in a line. */
function eachUser(limits) {
  const set = OF_USER.filter(([name]) => limits[name] !== null).map(([name, title]) => `${title.toLowerCase()} ${number(limits[name])}`);
  const others = Object.keys(limits.users).length;
  return h("p", { className: "row between" }, "Each end user", h("span", { className: "soft" }, (set.join(", ") || "no limit") + (others ? `; ${count(others, "user")} with limits of their own` : "")));
}

/** Of a list: the tightest quota in short. */
export function tightest(usage) {
  const set = QUOTAS.map(([name, title]) => ({ title, ...usage[name] })).filter((each) => each.limit !== null);
  if (!set.length) return h("span", { className: "soft" }, "no quota");
  const share = (each) => (each.limit === 0 ? 1 : (each.posted + each.reserved) / each.limit);
  const worst = set.sort((one, other) => share(other) - share(one))[0];
  return h("div", { className: "limit" }, bar(worst.posted, worst.reserved, worst.limit),
    h("small", {}, `${number(worst.remaining)} of ${number(worst.limit)} left ${worst.title.toLowerCase()}`));
}

function numberFields(named, limits, prefix = "") {
  const hint = hasMoney() ? "units, or $250" : "empty: none";
  return h("div", { className: "fields" }, named.map(([name, title]) => field(title,
    h("input", { name: prefix + name, inputmode: "numeric", autocomplete: "off", value: limits?.[name] ?? "", placeholder: name.startsWith("quota") ? hint : "empty: none" }))));
}

/** Fields for limits, filled with those that are set. */
export function limitFields(limits = null) {
  const users = limits?.limits_per_user ?? null;
  const others = users && Object.keys(users.users).length ? JSON.stringify(Object.fromEntries(Object.entries(users.users).map(([user, own]) => [user, setOf(own)])), null, 1) : "";
  return [numberFields(COUNTS, limits),
    field("Models", h("input", { name: "models", autocomplete: "off", value: (limits?.models ?? ["*"]).join(", ") }), "Ids, openai/* or *, with commas between"),
    h("details", { open: users !== null }, h("summary", {}, "Limits of each end user"), h("div", { className: "stack" },
      numberFields(OF_USER, users, USER),
      field("Users with other limits", h("textarea", { name: `${USER}users`, spellcheck: "false", value: others }),
        'As JSON: {"ann@example.com": {"images_per_minute": 60}}; "" is whoever names no user')))];
}

function setOf(limits) {
  return Object.fromEntries(Object.entries(limits).filter(([, limit]) => limit !== null));
}

function readNumbers(form, named, prefix = "") {
  return Object.fromEntries(named.map(([name]) => {
    const given = String(form.get(prefix + name) ?? "");
    const text = given.replaceAll(/[\s,_]/g, "");
    if (text === "") return [name, null];
    if (text.startsWith("$")) return [name, text];
    if (/^\d+$/.test(text)) return [name, Number(text)];
    throw new Error(`"${given}" should be a whole number.`);
  }));
}

function readUsers(form) {
  const text = String(form.get(`${USER}users`) ?? "").trim();
  let users;
  try {
    users = JSON.parse(text || "{}");
  } catch {
    users = null;
  }
  if (users === null || typeof users !== "object" || Array.isArray(users)) throw new Error("Users with other limits should be a JSON object.");
  const limits = { ...readNumbers(form, OF_USER, USER), users };
  return Object.keys(users).length || OF_USER.some(([name]) => limits[name] !== null) ? limits : null;
}

/** What the fields say. Units with separators are units. */
export function readLimits(form) {
  const limits = { ...readNumbers(form, COUNTS), limits_per_user: readUsers(form) };
  limits.models = String(form.get("models")).split(",").map((each) => each.trim()).filter(Boolean);
  return limits;
}
