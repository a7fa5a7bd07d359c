/** The books: what the store counts, compared with what the ledger adds up to. */

import { go, remember } from "/console/console/app.js";
import { count, number } from "/console/console/format.js";
import { button, card, empty, facts, h, head, link, notice, table } from "/console/console/html.js";
import { onlyTeam, teamField } from "/console/parts/teams.js";

function result(report) {
  const right = report.ok
    ? notice("Every counter is right: the ledger adds up to what the store counts.", "good")
    : notice(`${count(report.differences.length, "difference")}: keep the store as it is, and read the manual's page of operations.`, "bad");
  const differences = report.differences.length ? table("Differences", [
    { name: "Team", of: (row) => link(`teams/${row.team}`, row.team) },
    { name: "Of", of: (row) => row.where, kind: "t" },
    { name: "Counter", of: (row) => row.counter, kind: "w" },
    { name: "The store has", of: (row) => number(row.found), kind: "n" },
    { name: "The ledger says", of: (row) => number(row.should_be), kind: "n" },
  ], report.differences) : null;
  return [right, differences, facts([
    ["Teams", number(report.teams)], ["Keys", number(report.keys)], ["Ledger entries", number(report.entries)],
    ["Expired requests", number(report.expired)], ["Late settlements", number(report.late)], ["Lost reservations", number(report.lost_reservations)],
    ["Over their limit", report.over_limit.join(", ")], ["Not compared", report.not_compared.join(", ")],
  ])].filter(Boolean);
}

export async function show({ who, query }) {
  const fields = teamField(who, query.team ?? onlyTeam(who), who.role === "team_admin" ? who.teams.join(", ") : "all teams");
  const place = h("div", { className: "stack", "aria-live": "polite" }, empty("Nothing is verified yet", "Each counter is rebuilt from the ledger and compared, at one moment and while requests come in. Nothing is changed."));
  let events = null;
  const start = () => {
    events?.close();
    const named = new FormData(form).get("team").trim();
    remember({ team: named });
    const told = h("p", {}, "Reading …");
    const stop = button("Stop", () => {
      events.close();
      place.replaceChildren(notice("Stopped.", "warn"));
    });
    place.replaceChildren(h("progress", { "aria-label": "Verifying" }), told, h("div", { className: "row" }, stop));
    events = new EventSource(`/admin/v1/ledger/verify${named ? `?${new URLSearchParams({ team: named })}` : ""}`);
    events.addEventListener("progress", (event) => {
      const at = JSON.parse(event.data);
      told.textContent = `${count(at.teams, "team")} and ${count(at.entries, "entry", "entries")} so far; at ${at.team}.`;
    });
    events.addEventListener("done", (event) => {
      events.close();
      place.replaceChildren(...result(JSON.parse(event.data)));
    });
    events.addEventListener("failed", (event) => {
      events.close();
      place.replaceChildren(notice(JSON.parse(event.data).message, "bad"));
    });
    events.onerror = () => {
      events.close();
      place.replaceChildren(notice("The gateway broke off, or refused: it verifies for one at a time.", "bad"));
    };
  };
  const form = h("form", { className: "filters", onsubmit: (event) => {
    event.preventDefault();
    start();
  } }, fields, h("button", { type: "submit", className: "main" }, "Verify"));
  return { content: [head("Books"), form, card("", place)], leave: () => events?.close() };
}
