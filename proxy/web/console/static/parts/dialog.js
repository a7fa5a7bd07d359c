/** Dialogs: forms, the one time that a secret is shown, and questions before something ends. */

import { button, field, h, notice } from "/console/console/html.js";

/** Show a dialog; `make(close)` gives its content. Answers what it was closed with. */
export function open(title, make) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" });
    let result = null;
    const close = (value = null) => {
      result = value;
      dialog.close();
    };
    dialog.append(h("div", { className: "stack" }, h("h2", { id: "dialog-title" }, title), make(close)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      before?.focus?.();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A form in a dialog. `send(FormData)` does what it is for, and its error is shown; answers what `send` does. */
export function ask(title, { text = "", fields, submit, danger = false, send }) {
  return open(title, (close) => {
    const told = h("div", { "aria-live": "assertive" });
    const go = h("button", { type: "submit", className: danger ? "danger" : "main" }, submit);
    const onsubmit = async (event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        close((await send(new FormData(event.target))) ?? true);
      } catch (error) {
        told.replaceChildren(notice(error.message, "bad"));
      }
      go.disabled = false;
    };
    return h("form", { onsubmit }, text ? h("p", {}, text) : null, fields, told,
      h("div", { className: "actions" }, button("Cancel", () => close()), go));
  });
}

/** Ask before something ends, by its name. */
export function confirmEnd(title, { name, text, submit, send }) {
  const typed = h("input", { name: "typed", autocomplete: "off", spellcheck: "false", required: true });
  return ask(title, {
    text,
    submit,
    danger: true,
    fields: field(`Type ${name} to go on`, typed),
    send: (form) => {
      if (form.get("typed").trim() !== name) throw new Error(`This is not ${name}.`);
      return send();
    },
  });
}

/** Text that can be copied. */
export function copyable(text, label) {
  const copy = button(`Copy ${label}`, async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      // Without https there is no clipboard: the text is selected instead, for the keyboard.
      getSelection().selectAllChildren(shown);
      copy.textContent = "Selected: copy it now";
    }
  }, { className: "small" });
  const shown = h("code", { className: "secret", tabindex: "0" }, text);
  return h("div", { className: "stack" }, shown, h("div", { className: "row" }, copy));
}

/** The one time that a key's text is shown. */
export function showSecret(title, key, base) {
  const line = [
    `curl ${base}/v1/images/generations \\`,
    `  -H "Authorization: Bearer ${key.key}" -H "Content-Type: application/json" \\`,
    `  -d '{"model": "MODEL", "prompt": "A lighthouse at dusk"}'`,
  ].join("\n");
  return open(title, (close) => h("div", { className: "stack" },
    notice("This is shown once, and kept nowhere: copy it now.", "warn"),
    copyable(key.key, "the key"),
    h("p", { className: "soft" }, "To try it:"),
    copyable(line, "the command"),
    h("div", { className: "actions" }, button("I have it", () => close(true), { className: "main" }))));
}
