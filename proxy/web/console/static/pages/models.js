/** Models, their prices and where they are made; what a request would cost; recipes for more providers. */

import { get } from "/console/console/api.js";
import { remember } from "/console/console/app.js";
import { number, unitColumns, units } from "/console/console/format.js";
import { button, card, empty, facts, field, h, head, notice, table } from "/console/console/html.js";
import { copyable } from "/console/parts/dialog.js";
import { priceTable } from "/console/parts/prices.js";

function modelCard(model) {
  const places = model.deployments.map((each) => `${each.provider} (${each.upstream_model})`).join(", ");
  return card("", h("h2", { className: "mono" }, model.id),
    facts([["Alias of", model.alias_of], ["Made at", places], ["Multiplier", model.token_multiplier], ["Charged by", model.settled_by], ["Retires", model.retires], ["Sizes", model.sizes.join(", ")], ["Takes", model.parameters.join(", ")]]),
    priceTable(model));
}

function costForm(models, query) {
  const told = h("div", { className: "stack", "aria-live": "polite" });
  const input = (name, more = {}) => h("input", { name, value: query[name] ?? "", autocomplete: "off", ...more });
  const form = h("form", { className: "stack" },
    h("div", { className: "fields" },
      field("Model", h("select", { name: "model" }, models.map((model) => h("option", { value: model.id, selected: query.model === model.id }, model.id)))),
      field("Task", h("select", { name: "task" }, ["generation", "edit", "variation", "chat"].map((task) => h("option", { value: task, selected: query.task === task }, task)))),
      field("Images", input("n", { inputmode: "numeric", pattern: "[0-9]*", placeholder: "the default" })),
      field("Size", input("size", { placeholder: "left open" })),
      field("Quality", input("quality", { placeholder: "left open" })),
      field("Reference images", input("references", { inputmode: "numeric", pattern: "[0-9]*", placeholder: "0" }))),
    h("div", { className: "row" }, h("button", { type: "submit", className: "main" }, "What would it cost?")), told);
  const answer = async () => {
    const values = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
    remember(values);
    try {
      const quote = await get("price", values);
      told.replaceChildren(
        h("p", {}, h("strong", {}, `${units(quote.reserved)} units`), ` are reserved: ${number(quote.images)} × ${number(quote.unit_price)}${quote.reference_units ? ` and ${number(quote.reference_units)} for references` : ""}.`),
        h("p", { className: "soft" }, `${quote.why}.`),
        table("What would be charged", [
          { name: "If the answer", of: (row) => row.answer, kind: "w" },
          { name: "Images", of: (row) => number(row.images), kind: "n" },
          ...unitColumns((row) => row.charged, "Charged"),
        ], quote.answers));
    } catch (error) {
      told.replaceChildren(notice(error.message, "bad"));
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer();
  });
  if (query.model) answer();
  return form;
}

function recipes(list) {
  const place = h("div", { className: "stack" });
  const choose = h("select", { name: "recipe" }, list.map((each) => h("option", { value: each.name }, `${each.name}: ${each.about}`)));
  const showIt = () => place.replaceChildren(copyable(list.find((each) => each.name === choose.value).toml, "the recipe"));
  return h("div", { className: "stack" }, h("div", { className: "filters" }, field("Provider", choose), button("Show", showIt)), place);
}

export async function show({ query }) {
  const [{ data: models }, { data: list }] = await Promise.all([get("models"), get("recipes")]);
  return {
    content: [
      head("Models and prices"),
      models.length ? card("What would a request cost?", costForm(models, query)) : empty("No model is configured", "Take a recipe below into lightmeter.toml, and reload the gateway."),
      h("div", { className: "wide" }, models.map(modelCard)),
      card("Recipes: providers as they work, to copy into lightmeter.toml", list.length ? recipes(list) : h("p", { className: "soft" }, "This installation has none.")),
    ],
  };
}
