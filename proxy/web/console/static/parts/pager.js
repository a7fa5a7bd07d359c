/** Lists that the server sends page by page. */

import { button, empty, h, notice, table } from "/console/console/html.js";

/** A table that grows by a button; `read(cursor)` gives a page, `none` is shown where there is nothing. */
export async function pagedTable(caption, columns, read, none) {
  const rows = [];
  const place = h("div", { className: "stack" });
  let cursor = null;
  const more = button("Show more", () => grow(), {});
  async function grow() {
    more.disabled = true;
    try {
      // A page may be empty although there are more.
      let tries = 0;
      do {
        const page = await read(cursor);
        rows.push(...page.data);
        cursor = page.next_cursor;
        tries += 1;
        if (page.data.length) break;
      } while (cursor !== null && tries < 20);
    } catch (error) {
      place.append(notice(error.message, "bad"));
      more.disabled = false;
      return;
    }
    more.disabled = false;
    const shown = rows.length ? table(caption, columns, rows) : cursor === null ? none : empty("Nothing found yet", "There is more to look through.");
    place.replaceChildren(shown, ...(cursor !== null ? [h("div", { className: "row" }, more, h("small", { role: "status" }, `${rows.length} shown`))] : []));
    if (cursor !== null) more.focus();
  }
  // The first page's errors are the page's.
  const first = await read(null);
  rows.push(...first.data);
  cursor = first.next_cursor;
  place.append(rows.length ? table(caption, columns, rows) : cursor === null ? none : empty("Nothing found yet", "There is more to look through."));
  if (cursor !== null) place.append(h("div", { className: "row" }, more, h("small", {}, `${rows.length} shown`)));
  return { place, rows };
}

/** A form of filters that puts what it says into the address, and shows the page again. */
export function filters(fields, apply) {
  const form = h("form", { className: "filters", role: "search", onsubmit: (event) => {
    event.preventDefault();
    apply(Object.fromEntries(new FormData(form)));
  } }, fields, h("button", { type: "submit" }, "Show"));
  return form;
}
