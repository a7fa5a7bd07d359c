/** A model's prices as a table. */

import { hasMoney, number, usd } from "/console/console/format.js";
import { table } from "/console/console/html.js";

const conditions = (row) => Object.entries(row).filter(([name]) => !name.startsWith("quota_units")).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ") || "otherwise";

export function priceTable(model) {
  return table(`Prices of ${model.id}`, [
    { name: "An image", of: conditions, kind: "w" },
    { name: "Units", of: (row) => number(row.quota_units), kind: "n" },
    ...(hasMoney() ? [{ name: "USD", of: (row) => usd(row.quota_units), kind: "n" }] : []),
  ], model.prices);
}
