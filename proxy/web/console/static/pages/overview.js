/** What the gateways on this store do now, have done in the last hour, and in the last thirty days. */

import { get } from "/console/console/api.js";
import { count, hasMoney, milliseconds, number, units, usd } from "/console/console/format.js";
import { card, empty, facts, h, head, link, notice, table } from "/console/console/html.js";
import { chart, largest } from "/console/parts/chart.js";

const OUTCOMES = ["delivered", "refused", "rejected", "failed", "empty", "truncated", "abandoned", "expired", "unreachable"];
const STATUS = {
  ready: ["good", "Ready"],
  store_unavailable: ["bad", "The store does not answer: requests are refused with 503"],
  journal_unavailable: ["bad", "The journal cannot be written: requests are refused with 503"],
  shutting_down: ["warn", "Shutting down"],
};
const STATES = [["good", "closed"], ["warn", "half open"], ["bad", "open"]];
const DAYS_EVERY_MS = 60_000;

const sum = (rows, name) => rows.reduce((total, row) => total + row[name], 0);
const figure = (title, value, more = "") => h("div", {}, h("dt", {}, title), h("dd", {}, value, more ? h("small", { className: "soft" }, more) : null));

function outcomes(rows) {
  return OUTCOMES.map((name) => ({ name, values: rows.map((row) => row.outcomes[name] ?? 0) }));
}

function now(seen) {
  const { minutes, gateway } = seen;
  const [kind, text] = STATUS[gateway.status] ?? ["warn", gateway.status];
  const charged = sum(minutes, "quota_units");
  const asked = minutes.reduce((total, row) => total + Object.values(row.outcomes).reduce((all, value) => all + value, 0), 0);
  const waiting = gateway.journal_pending > 0 ? notice(`${count(gateway.journal_pending, "settlement")} in the journal wait for the store.`, "warn") : null;
  const parked = gateway.journal_parked > 0 ? notice(`${count(gateway.journal_parked, "record")} of the journal wait for a person: 'lightmeter journal list'.`, "warn") : null;
  return [
    kind === "good" ? null : notice(text, kind), waiting, parked,
    h("dl", { className: "figures" },
      figure("Requests, last hour", number(asked)),
      figure("Images, last hour", number(sum(minutes, "images"))),
      figure("Units charged, last hour", number(charged), hasMoney() ? usd(charged) : ""),
      figure("In flight", number(gateway.in_flight), `${count(gateway.connections, "connection")} open`),
      figure("Own time, p50", milliseconds(gateway.own_p50_ms), `p99 ${milliseconds(gateway.own_p99_ms)}`),
      figure("Store and journal", gateway.status === "ready" ? "Ready" : "Look!", `${number(gateway.journal_pending)} pending`)),
  ];
}

function hour(seen) {
  const labels = seen.minutes.map((row) => row.at.slice(11, 16));
  return [
    card("Requests by minute, last hour", chart({ title: "Requests by minute", labels, series: outcomes(seen.minutes) })),
    card("Images by minute, last hour", chart({ title: "Images by minute", labels, series: [{ name: "images", values: seen.minutes.map((row) => row.images) }] })),
  ];
}

function month(days) {
  const labels = days.map((row) => row.day.slice(5));
  const models = [...new Set(days.flatMap((row) => Object.keys(row.by_model)))];
  const by = (name) => largest(models.map((model) => ({ name: model, values: days.map((row) => row.by_model[model]?.[name] ?? 0) })));
  if (!models.length && !days.some((row) => Object.keys(row.outcomes).length)) return [];
  return [
    card("Units by day and model, last 30 days", chart({ title: "Units by day", labels, series: by("quota_units"), format: units })),
    card("Images by day and model, last 30 days", chart({ title: "Images by day", labels, series: by("images") })),
    card("Requests by day, last 30 days", chart({ title: "Requests by day", labels, series: outcomes(days) })),
  ];
}

function places(seen) {
  const providers = table("Providers", [
    { name: "Provider", of: (row) => row.name },
    { name: "Requests", of: (row) => number(row.requests), kind: "n" },
    { name: "Failed", of: (row) => number(row.failed), kind: "n" },
    { name: "Credit", of: (row) => (row.out_of_credit ? h("span", { className: "tag bad" }, "ran out") : "–") },
  ], seen.providers);
  const deployments = seen.deployments.length ? table("Deployments", [
    { name: "Model", of: (row) => row.model, kind: "w" },
    { name: "Deployment", of: (row) => row.provider },
    { name: "Circuit breaker", of: (row) => h("span", { className: `tag ${STATES[row.state]?.[0] ?? ""}` }, STATES[row.state]?.[1] ?? String(row.state)) },
  ], seen.deployments) : h("p", { className: "soft" }, "No model has several deployments. One with some is tried elsewhere when a provider fails.");
  return [
    card("Providers, since the gateway started", seen.providers.length ? providers : h("p", { className: "soft" }, "No provider has been asked yet.")),
    card("Deployments", deployments),
  ];
}

/** The demo's picture: the first that a person sees here has been drawn, and paid for, through this gateway. */
function firstImage(image) {
  return card("The first image of this gateway",
    h("div", { className: "first-image" },
      h("img", { src: image.picture, alt: "The image that the demo asked for", width: 160, height: 160 }),
      h("div", { className: "stack" },
        facts([["Model", image.model], ["Key", link(`keys/${image.key}`, image.key, { className: "mono" })], ["Cost", `${units(image.quota_units)} units`], ["Ledger entry", link(`ledger/${image.entry}`, image.entry, { className: "mono" })]]),
        h("p", { className: "soft" }, "It was drawn for the demo's key, and is in the figures below within seconds. The gateway keeps no images: this one is from the demo's folder."))));
}

export async function show({ who }) {
  const first = await get("overview");
  const live = h("p", { className: "soft", role: "status" }, "Live");
  const parts = { now: h("div", { className: "stack" }), hour: h("div", { className: "wide" }), month: h("div", { className: "wide" }), places: h("div", { className: "wide" }) };
  const idle = h("div", {});
  const draw = (seen) => {
    parts.now.replaceChildren(...now(seen).filter(Boolean));
    const hasFigures = seen.minutes.some((row) => Object.keys(row.outcomes).length);
    idle.replaceChildren(...(hasFigures || who.first_image || first.days.some((row) => Object.keys(row.outcomes).length) ? [] : [empty("No request yet", h("span", {}, "Make a key under ", link("teams", "Teams and keys"), " and send a first request: its figures are here within seconds."))]));
    parts.hour.replaceChildren(...(hasFigures ? hour(seen) : []));
    parts.places.replaceChildren(...places(seen));
  };
  draw(first);
  parts.month.replaceChildren(...month(first.days));
  const events = new EventSource("/admin/v1/overview/events");
  events.onmessage = (event) => {
    live.textContent = "Live";
    draw(JSON.parse(event.data));
  };
  events.onerror = () => {
    live.textContent = "Not live: the gateway does not answer. Trying again …";
  };
  const daily = setInterval(async () => {
    const seen = await get("overview").catch(() => null);
    if (seen) parts.month.replaceChildren(...month(seen.days));
  }, DAYS_EVERY_MS);
  return {
    content: [head("Overview", null, live), ...(who.first_image ? [firstImage(who.first_image)] : []), parts.now, idle, parts.hour, parts.month, parts.places,
      h("p", { className: "soft" }, "Figures of all gateways on this store, by UTC. They are for looking at; the ledger is what counts.")],
    leave: () => {
      events.close();
      clearInterval(daily);
    },
  };
}
