/** <lm-chart>: stacked bars over time, with the same figures as a table for who cannot see them or wants to copy them. */

import { compact, number } from "/console/console/format.js";
import { h, s, table } from "/console/console/html.js";

const HEIGHT = 176;
const LEFT = 46;
const BOTTOM = 20;
const WIDEST = 72;
const COLOURS = 7;

/** The least round figure that is not below `value`. */
export function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value && (step >= 1 || power < 1)) ?? 10 * power;
}

class Chart extends HTMLElement {
  /** `labels` name the bars; each of `series` is {name, values}; `format` tells a value in words. */
  draw(data) {
    this.data = data;
    this.drawn = this.clientWidth || 640;
    this.render(data, this.drawn);
  }

  connectedCallback() {
    this.resizes = new ResizeObserver(() => {
      if (this.data && this.clientWidth && this.clientWidth !== this.drawn) this.draw(this.data);
    });
    this.resizes.observe(this);
  }

  disconnectedCallback() {
    this.resizes.disconnect();
  }

  render({ title, labels, series, format = number, axis = compact }, width) {
    const sums = labels.map((_, at) => series.reduce((sum, each) => sum + each.values[at], 0));
    const top = roundUp(Math.max(0, ...sums));
    const shown = series.filter((each) => each.values.some((value) => value > 0));
    const step = (width - LEFT) / Math.max(1, labels.length);
    const wide = Math.min(step * 0.76, WIDEST);
    const height = HEIGHT - BOTTOM - 8;
    const y = (value) => 8 + height - (value / top) * height;
    const rules = [0, 0.5, 1].map((part) => [
      s("line", { class: "rule", x1: LEFT, x2: width, y1: y(top * part), y2: y(top * part) }),
      s("text", { class: "axis", x: LEFT - 6, y: y(top * part) + 4, "text-anchor": "end" }, axis(top * part)),
    ]);
    const every = Math.max(1, Math.ceil(labels.length / Math.max(2, Math.floor((width - LEFT) / 70))));
    const names = labels.map((label, at) => (labels.length - 1 - at) % every === 0
      ? s("text", { class: "axis", x: LEFT + step * (at + 0.5), y: HEIGHT - 4, "text-anchor": "middle" }, label) : null);
    const bars = labels.map((label, at) => {
      let below = 0;
      const parts = shown.map((each, colour) => {
        const value = each.values[at];
        below += value;
        return value > 0 ? s("rect", { class: `c${colour % COLOURS}`, x: LEFT + step * (at + 0.5) - wide / 2, width: wide, y: y(below), height: Math.max(0.8, (value / top) * height) }) : null;
      });
      const told = shown.filter((each) => each.values[at] > 0).map((each) => `${each.name}: ${format(each.values[at])}`);
      const hit = s("rect", { x: LEFT + step * at, width: step, y: 0, height: HEIGHT - BOTTOM, fill: "transparent" });
      return s("g", {}, s("title", {}, [label, ...told].join("\n")), parts, hit);
    });
    const total = sums.reduce((sum, value) => sum + value, 0);
    const svg = s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${title}: ${format(total)} in all` }, rules, names, bars);
    const legend = h("ul", { className: "legend" }, shown.map((each, colour) => h("li", {},
      s("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, s("rect", { class: `c${colour % COLOURS}`, width: 10, height: 10, rx: 2 })),
      `${each.name}: ${format(each.values.reduce((sum, value) => sum + value, 0))}`)));
    const open = this.querySelector("details")?.open ?? false;
    const columns = [{ name: "When", of: (at) => labels[at], kind: "t" }, ...shown.map((each) => ({ name: each.name, of: (at) => number(each.values[at]), kind: "n" }))];
    const rows = labels.map((_, at) => at).filter((at) => sums[at] > 0);
    const figures = h("details", { open }, h("summary", {}, "As a table"), rows.length ? table(title, columns, rows) : h("p", { className: "soft" }, "Nothing yet."));
    this.replaceChildren(svg, legend, figures);
  }
}
customElements.define("lm-chart", Chart);

/** A chart that is drawn. */
export function chart(data) {
  const made = document.createElement("lm-chart");
  made.draw(data);
  return made;
}

/** Days or minutes without anything are there as zeros: the last `count` UTC days, oldest first. */
export function lastDays(count, now = Date.now()) {
  return Array.from({ length: count }, (_, at) => new Date(now - (count - 1 - at) * 86_400_000).toISOString().slice(0, 10));
}

/** The last `count` UTC months, oldest first. */
export function lastMonths(count, now = new Date()) {
  return Array.from({ length: count }, (_, at) => new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - (count - 1 - at), 1)).toISOString().slice(0, 7));
}

/** The `limit` largest of `series`, and the others as one; one that is the `rest` already is among those. */
export function largest(series, limit = COLOURS) {
  const sum = (each) => each.values.reduce((total, value) => total + value, 0);
  const sorted = [...series].sort((one, other) => Number(one.rest ?? false) - Number(other.rest ?? false) || sum(other) - sum(one));
  if (sorted.length <= limit) return sorted;
  const rest = sorted.slice(limit - 1);
  return [...sorted.slice(0, limit - 1), { name: rest.some((each) => each.rest) ? "others" : `${rest.length} others`, values: rest[0].values.map((_, at) => rest.reduce((total, each) => total + each.values[at], 0)) }];
}
