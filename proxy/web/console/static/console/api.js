/** The admin API, asked with the session's cookie. */

/** An answer that is no success, in the words of the gateway. */
export class ApiError extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function ask(method, path, body) {
  const init = { method, headers: { "x-lightmeter-console": "1" }, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new ApiError(0, "The gateway does not answer. Is it running?", "unreachable");
  }
  if (answer.status === 204) return null;
  const content = await answer.json().catch(() => null);
  if (answer.ok) return content;
  const error = content?.error;
  if (answer.status === 401 && path.startsWith("/admin/")) document.dispatchEvent(new Event("signed-out"));
  throw new ApiError(answer.status, error?.message ?? `The gateway answers ${answer.status}.`, error?.code);
}

const query = (values) => {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
};

export const get = (path, values = {}) => ask("GET", `/admin/v1/${path}${query(values)}`);
export const post = (path, body = {}) => ask("POST", `/admin/v1/${path}`, body);
export const patch = (path, body) => ask("PATCH", `/admin/v1/${path}`, body);
export const end = (path) => ask("DELETE", `/admin/v1/${path}`);

export const session = {
  show: () => ask("GET", "/console/session"),
  ways: () => ask("GET", "/console/ways"),
  begin: (body) => ask("POST", "/console/session", body),
  end: () => ask("DELETE", "/console/session"),
};

/** Every item of a list, page by page; stops at `limit`, and says whether there is more. */
export async function all(path, values, limit) {
  const found = [];
  let cursor = null;
  do {
    const page = await get(path, { ...values, cursor, limit: Math.min(1000, limit - found.length) });
    found.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor !== null && found.length < limit);
  return { items: found, more: cursor !== null };
}
