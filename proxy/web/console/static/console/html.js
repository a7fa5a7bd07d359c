/** Makes elements. Text is always text: nothing here reads markup. */

let fields = 0;
const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element: `h("p", {className: "soft"}, "text", other)`. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A link within the console, which the router follows without loading a page. */
export function link(path, text, attributes = {}) {
  return h("a", { href: `/console/${path}`, ...attributes }, text);
}

/** A card with a heading. */
export function card(title, ...children) {
  return h("section", { className: "card stack" }, title ? h("h2", {}, title) : null, ...children);
}

/** What stands where there is nothing yet: what it would be, and what to do. */
export function empty(title, text, command = "") {
  return h("div", { className: "empty" }, h("strong", {}, title), text, command ? h("pre", {}, command) : null);
}

/** A message; `kind` is good, warn or bad. */
export function notice(text, kind = "") {
  return h("p", { className: `notice ${kind}`, role: kind === "bad" ? "alert" : "status" }, text);
}

/** The head of a page: where it stands, its name, and what can be done. */
export function head(title, crumbs = null, ...actions) {
  document.title = `${title} · Lightmeter`;
  return h("div", { className: "head" },
    h("div", {}, crumbs ? h("p", { className: "crumbs" }, crumbs) : null, h("h1", {}, title)),
    actions.length ? h("div", { className: "row" }, ...actions) : null);
}

/** A button. */
export function button(text, onclick, attributes = {}) {
  return h("button", { type: "button", onclick, ...attributes }, text);
}

/** A labelled field. */
export function field(label, input, hint = "") {
  input.id = `field-${++fields}`;
  if (hint) input.setAttribute("aria-describedby", `${input.id}-hint`);
  return h("div", { className: "label" }, h("label", { for: input.id }, label), input, hint ? h("small", { id: `${input.id}-hint` }, hint) : null);
}

/** A table; each column is {name, of(row), kind}, where kind "n" is a number and "t" does not break. */
export function table(caption, columns, rows) {
  return h("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {},
      h("caption", { className: "hidden-label" }, caption),
      h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", className: column.kind }, column.name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((column) => h("td", { className: column.kind, "data-name": column.name }, column.of(row))))))));
}

/** Facts, one a line. */
export function facts(pairs) {
  return h("dl", { className: "facts" },
    pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
