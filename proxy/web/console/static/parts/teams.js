/** A field for a team, which suggests those that begin so. */

import { get } from "/console/console/api.js";
import { empty, field, h, link } from "/console/console/html.js";

const SUGGESTED = 12;
const PAUSE_MS = 150;
let lists = 0;

/** The one team that somebody may see, or nothing where there are several. */
export const onlyTeam = (who) => (who.role === "team_admin" && who.teams.length === 1 ? who.teams[0] : "");

/** A field named `team`; what is typed is looked for by the server. */
export function teamField(who, value, placeholder = "all") {
  const list = h("datalist", { id: `teams-${++lists}` });
  const fill = (ids) => list.replaceChildren(...ids.map((id) => h("option", { value: id })));
  let waiting = null;
  const suggest = () => {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const prefix = input.value.trim().toLowerCase();
      const found = await get("teams", { prefix, limit: SUGGESTED }).catch(() => ({ data: [] }));
      fill(found.data.map((team) => team.id));
    }, PAUSE_MS);
  };
  const input = h("input", { name: "team", value, autocomplete: "off", spellcheck: "false", autocapitalize: "none", placeholder, list: list.id, oninput: who.role === "team_admin" ? null : suggest });
  if (who.role === "team_admin") fill(who.teams);
  return [field("Team", input), list];
}

/** What stands where a team has to be named first; `path(team)` is where each of one's own leads. */
export function whichTeam(who, path) {
  if (who.role !== "team_admin") return empty("Which team?", "Type how its id begins, and choose it.");
  return empty("Which team?", h("span", {}, "Choose one of yours: ", who.teams.map((team, at) => [at ? ", " : "", link(path(team), team)]), "."));
}
