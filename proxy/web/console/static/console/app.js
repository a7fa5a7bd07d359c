/** The frame of the console: signing in, the menu, and which page an address shows. */

import { session } from "/console/console/api.js";
import { setMoney, setPublicUrl } from "/console/console/format.js";
import { button, empty, field, h, notice } from "/console/console/html.js";

const PAGES = [
  { name: "overview", title: "Overview", whole: true },
  { name: "teams", title: "Teams and keys" },
  { name: "usage", title: "Usage" },
  { name: "statements", title: "Statements" },
  { name: "ledger", title: "Ledger" },
  { name: "models", title: "Models and prices" },
  { name: "books", title: "Books" },
  { name: "audit", title: "Audit" },
];
const UNLISTED = { keys: "teams" };

const root = document.getElementById("app");
let who = null;
let leave = null;
let shown = 0;

/** Go to an address of the console; with `replace`, in place of the one before. */
export function go(path, { replace = false, show = true } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", `/console/${path}`);
  if (show) render();
}

/** Put values into the address, so that what is shown can be shared. */
export function remember(values) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = given.length ? `?${new URLSearchParams(given)}` : "";
  history.replaceState(null, "", location.pathname + text);
}

// --- Signing in -------------------------------------------------------------------------------------------------------

function brand() {
  return h("a", { className: "brand", href: "/console/" }, h("img", { src: "/console/console/icon.svg", alt: "" }), "Lightmeter");
}

async function signInPage(message = "", kind = "") {
  leave?.();
  leave = null;
  who = null;
  document.title = "Sign in · Lightmeter";
  const token = h("input", { type: "password", name: "token", autocomplete: "current-password", required: true });
  const submit = h("button", { className: "main", type: "submit" }, "Sign in");
  const told = h("div", { "aria-live": "polite" }, message ? notice(message, kind) : null);
  const begin = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      await enter(await session.begin({ token: token.value }));
    } catch (error) {
      told.replaceChildren(notice(error.message, "bad"));
      token.select();
    }
    submit.disabled = false;
  };
  const other = h("div", { className: "stack" });
  root.replaceChildren(
    h("main", { id: "main", className: "alone", tabindex: "-1" },
      h("div", { className: "sign-in card" }, brand(), h("h1", {}, "Sign in"), told, other,
        h("form", { className: "stack", onsubmit: begin }, field("Admin token", token), submit),
        h("p", { className: "soft" }, "The token is in LIGHTMETER_ADMIN_TOKEN, or in the file admin-token of the gateway's data folder. ",
          h("code", {}, "lightmeter console"), " prints a link that signs in."))));
  token.focus();
  const ways = await session.ways().catch(() => null);
  if (ways?.oidc) {
    other.replaceChildren(h("a", { className: "button", href: `/console/oidc/start?to=${encodeURIComponent(location.pathname + location.search)}` }, `Sign in with ${ways.oidc}`), h("p", { className: "soft" }, "or with a token:"));
  }
}

/** Whose a link is, before it signs in: somebody may have sent theirs. */
function confirmPage(code, { confirm, now }) {
  leave?.();
  leave = null;
  shown += 1;
  document.title = "Sign in · Lightmeter";
  const told = h("div", { "aria-live": "polite" });
  const begin = async () => {
    try {
      await enter(await session.begin({ code, confirmed: true }));
    } catch (error) {
      told.replaceChildren(notice(error.message, "bad"));
    }
  };
  const of = confirm.role === "team_admin" ? `team_admin of ${confirm.teams.join(", ")}` : confirm.role;
  root.replaceChildren(
    h("main", { id: "main", className: "alone", tabindex: "-1" },
      h("div", { className: "sign-in card" }, brand(), h("h1", {}, `Sign in as ${confirm.name}?`), told,
        h("p", {}, `This link signs you in as ${confirm.name} (${of}). ${now === null ? "" : `You are signed in as ${now}. `}Go on only with a link that you asked for: what you do is done in this name.`),
        button(`Sign in as ${confirm.name}`, begin, { className: "main" }),
        button(now === null ? "Sign in otherwise" : `Stay ${now}`, start))));
}

async function signOut() {
  await session.end().catch(() => null);
  await signInPage("You are signed out.", "good");
}

async function enter(found) {
  who = found;
  setMoney(found.units_per_usd);
  setPublicUrl(found.public_url);
  frame();
  await render();
}

// --- The frame --------------------------------------------------------------------------------------------------------

const canSeeAll = () => who.role !== "team_admin";

function frame() {
  const pages = PAGES.filter((page) => canSeeAll() || !page.whole);
  root.replaceChildren(
    h("div", { className: "frame" },
      h("header", { className: "side" }, brand(),
        h("nav", { "aria-label": "Pages" }, h("ul", {}, pages.map((page) => h("li", {}, h("a", { href: `/console/${page.name}`, "data-page": page.name }, page.title))))),
        h("div", { className: "who" },
          h("p", {}, who.name, h("br"), h("small", {}, who.role === "team_admin" ? `of ${who.teams.join(", ")}` : who.role)),
          button("Sign out", signOut, { className: "small" }))),
      h("main", { id: "main", tabindex: "-1" })));
}

async function render() {
  const [name = "", ...rest] = location.pathname.replace(/^\/console\/?/, "").split("/");
  const home = canSeeAll() ? "overview" : "teams";
  if (name === "") return go(home, { replace: true });
  const turn = ++shown;
  leave?.();
  leave = null;
  for (const anchor of root.querySelectorAll("nav a")) {
    if (anchor.dataset.page === (UNLISTED[name] ?? name)) {
      anchor.setAttribute("aria-current", "page");
      // On a narrow screen the menu is wider than it.
      anchor.scrollIntoView({ block: "nearest", inline: "center" });
    } else anchor.removeAttribute("aria-current");
  }
  const main = document.getElementById("main");
  main.replaceChildren(h("p", { className: "soft", role: "status" }, "Loading …"));
  try {
    const page = await import(`/console/pages/${pageFile(name, rest)}.js`);
    const parts = await page.show({ who, id: decodeURIComponent(rest.join("/")), query: Object.fromEntries(new URLSearchParams(location.search)) });
    if (turn !== shown) return void parts.leave?.();
    leave = parts.leave ?? null;
    main.replaceChildren(...parts.content);
  } catch (error) {
    if (turn !== shown || who === null) return;
    main.replaceChildren(h("h1", {}, "This cannot be shown"), notice(error.message, "bad"), h("p", {}, button("Try again", render)));
    if (error.status === 404) main.append(empty("There is no such thing", "It may be spelled otherwise, or belong to another gateway."));
  }
}

function pageFile(name, rest) {
  const known = PAGES.some((page) => page.name === name) || name in UNLISTED;
  if (!known) throw new Error("There is no such page.");
  if (name === "teams" && rest[0]) return "team";
  return name === "keys" ? "key" : name;
}

document.addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[href^='/console/']");
  if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.button !== 0 || anchor.target || anchor.pathname.startsWith("/console/oidc/") || who === null) return;
  event.preventDefault();
  history.pushState(null, "", anchor.href);
  render().then(() => {
    document.getElementById("main")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  });
});
addEventListener("popstate", () => who && render());
document.addEventListener("signed-out", () => who && signInPage("Your session has ended: sign in again.", "warn"));

/** Show the console to who is signed in, or the page for signing in. */
async function start() {
  try {
    await enter(await session.show());
  } catch (error) {
    await signInPage(error.status === 401 ? "" : error.message, error.status === 401 ? "" : "bad");
  }
}

/** Sign in by the code of a link, which leaves the address at once; whether there was one. */
async function startByLink() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (!code) return false;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    const answer = await session.begin({ code });
    if (answer.confirm) confirmPage(code, answer);
    else await enter(answer);
  } catch (error) {
    await signInPage(error.message, "bad");
  }
  return true;
}

// Where a page of the console is open already, a link changes but the fragment, and loads nothing.
addEventListener("hashchange", startByLink);
startByLink().then((isLink) => isLink || start());
