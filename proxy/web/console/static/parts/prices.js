/** A model's prices as a table. */

import { unitColumns } from "/console/console/format.js";
import { table } from "/console/console/html.js";

const conditions = (row) => Object.entries(row).filter(([name]) => !name.startsWith("quota_units")).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ") || "otherwise";

export function priceTable(model) {
  return table(`Prices of ${model.id}`, [
    { name: "An image", of: conditions, kind: "w" },
    ...unitColumns((row) => row.quota_units),
  ], model.prices);
}
