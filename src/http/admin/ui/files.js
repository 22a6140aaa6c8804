// Names by their beginning, page by page, and what each of them holds.

import { ask } from "./ask.js";
import { bytes, count, h, moment, nameOf, table, update, visible } from "./format.js";

const ROWS = 50;

export function addressOf(prefix, name) {
  const parameters = new URLSearchParams();
  if (prefix) parameters.set("prefix", prefix);
  if (name) parameters.set("name", name);
  return `#/files?${parameters}`;
}

export function files(main, parameters) {
  let prefix = parameters.get("prefix") ?? "";
  let picked = parameters.get("name");
  let cursors = [null];
  const input = h("input", { id: "prefix", type: "search", "aria-label": "Names that begin with",
    placeholder: "Names that begin with …", autocomplete: "off", spellcheck: "false" });
  input.value = prefix;
  let typing = null;
  input.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      typing = null;
      go(input.value, null);
    }, 250);
  });
  const search = h("form", { class: "search", role: "search", onsubmit: (event) => {
    event.preventDefault();
    clearTimeout(typing);
    typing = null;
    go(input.value, null);
  } }, input, h("button", { type: "submit" }, "Show"));
  const crumbs = h("div", { class: "crumbs" });
  const list = h("div");
  const before = h("button", { type: "button", disabled: true, onclick: () => turn(-1) }, "← Previous");
  const next = h("button", { type: "button", disabled: true, onclick: () => turn(1) }, "Next →");
  const where = h("span", { class: "quiet" });
  const details = h("aside", { class: "card", hidden: true, tabindex: -1, "aria-label": "Details" });
  const split = h("div", { class: "split" },
    h("section", { class: "card" }, search, crumbs, list, h("div", { class: "pager" }, before, next, where)), details);
  main.append(split);

  function go(newPrefix, name) {
    const address = addressOf(newPrefix, name);
    if (location.hash === address) refresh().catch(() => {});
    else location.hash = address;
  }

  function change(parameters) {
    const newPrefix = parameters.get("prefix") ?? "";
    if (newPrefix !== prefix) cursors = [null];
    prefix = newPrefix;
    picked = parameters.get("name");
    // Unless somebody is typing: what comes next is theirs.
    if (typing === null && input.value !== prefix) input.value = prefix;
    return true;
  }

  let following = null;

  function turn(step) {
    if (step > 0 && following !== null) cursors.push(following);
    else if (step < 0 && cursors.length > 1) cursors.pop();
    refresh().catch(() => {});
  }

  let asked = 0;
  // Details that the page was opened with take no focus.
  let shown = picked;

  async function refresh() {
    const number = ++asked;
    update(crumbs, ...path(prefix));
    const query = new URLSearchParams({ prefix, rows: ROWS });
    const after = cursors[cursors.length - 1];
    if (after !== null) query.set("after", after);
    const [page, file] = await Promise.all([
      ask(`/api/files?${query}`),
      picked === null ? null : ask(`/api/file?${new URLSearchParams({ name: picked })}`).catch((error) => ({ error })),
    ]);
    // A later question may have been answered already.
    if (number !== asked) return;
    following = page.next;
    before.disabled = cursors.length === 1;
    next.disabled = following === null;
    where.textContent = `Page ${count(cursors.length)}`;
    update(list, table([["Name"], ["Size", "n"], ["Version", "n optional"]],
      page.files.map((one) => row(one, prefix, picked)), prefix ? "No name begins so." : "No files yet."));
    if (file !== null) update(details, ...(file.error ? gone(file.error) : fileDetails(file, prefix)));
    open(split, details, file !== null, picked !== shown, addressOf(prefix, shown));
    shown = picked;
  }

  return { refresh, change, escape: () => picked !== null && go(prefix, null), search: () => input.focus() };
}

// Shows details beside a list, or not. Who opened them by keyboard goes on in them, and where they came from (`back`)
// when they are closed.
export function open(split, details, isOpen, isNew, back) {
  const wasInside = details.contains(document.activeElement);
  details.hidden = !isOpen;
  split.classList.toggle("open", isOpen);
  if (isOpen && isNew) details.focus();
  else if (!isOpen && wasInside) split.querySelector(`a[href="${CSS.escape(back)}"]`)?.focus();
}

// The prefix as a path, each part of which leads back.
function path(prefix) {
  const parts = prefix.split("/");
  const links = [h("a", { href: addressOf("", null) }, "all")];
  parts.slice(0, -1).forEach((part, at) => {
    links.push(" / ", h("a", { href: addressOf(`${parts.slice(0, at + 1).join("/")}/`, null) }, nameOf(part)));
  });
  const last = parts[parts.length - 1];
  return last ? [...links, " / ", nameOf(last), "…"] : links;
}

function row(file, prefix, picked) {
  const at = file.name.lastIndexOf("/") + 1;
  const folder = file.name.slice(0, at);
  return h("tr", { class: file.name === picked ? "picked" : null },
    h("td", { class: "name" },
      folder && h("a", { class: "quiet", href: addressOf(folder, null), title: "Only this folder" }, nameOf(folder)),
      h("a", { href: addressOf(prefix, file.name) }, nameOf(file.name.slice(at)))),
    h("td", { class: "n" }, bytes(file.logical_size)),
    h("td", { class: "n optional" }, moment(file.modified)));
}

function gone(error) {
  return [h("h2", {}, "Details"), h("p", { class: "none" }, visible(error.message))];
}

function fileDetails(file, prefix) {
  const row = (name, ...value) => [h("dt", {}, name), h("dd", {}, value)];
  return [
    h("header", {}, h("h2", {}, nameOf(file.name)), h("a", { href: addressOf(prefix, null), "aria-label": "Close" }, "Close")),
    h("a", { class: "download", href: `/api/download?${new URLSearchParams({ name: file.name })}`,
      download: visible(file.name.split("/").pop()) },
      `Download (${bytes(file.logical_size)})`),
    h("dl", { class: "rows" },
      row("Version", moment(file.modified)),
      row("Size", `${bytes(file.logical_size)} (${count(file.logical_size)} bytes)`),
      row("Stored", `${bytes(file.stored_size)} as ${visible(file.encoding)}`),
      row("SHA-256", h("code", {}, file.digest)),
      row("Object", h("code", {}, visible(file.object))),
      row("BLAKE3 of it", h("code", {}, file.stored_hash)),
      row("Generation", count(file.generation))),
    ...holders(file.held_by, file.more, file.name),
  ];
}

// Who holds the same content, without `but`.
export function holders(names, more, but) {
  const others = names.filter((name) => name !== but);
  if (others.length === 0) return [h("p", { class: "quiet" }, "No other file has this content.")];
  return [
    h("h2", {}, more ? `Shared with more than ${count(others.length)} files, among them` : `Shared with ${count(others.length)}`),
    h("ul", { class: "names" }, others.map((name) => h("li", {}, h("a", { href: addressOf(name, name) }, nameOf(name))))),
  ];
}
