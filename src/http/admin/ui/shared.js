// The contents that most files share.

import { ask } from "./ask.js";
import { holders, open } from "./files.js";
import { bytes, card, count, duration, h, NOTHING, table, update } from "./format.js";

export function shared(main, parameters) {
  let picked = parameters.get("digest");
  const list = h("div");
  const note = h("span", { class: "quiet" });
  const details = h("aside", { class: "card", hidden: true, tabindex: -1, "aria-label": "Files of a content" });
  const split = h("div", { class: "split" }, card("", ["Most shared contents", note], list), details);
  main.append(split);

  // Details that the page was opened with take no focus.
  let shown = picked;

  async function refresh() {
    const wanted = picked;
    const [found, content] = await Promise.all([
      ask("/api/shared"),
      wanted === null ? null : ask(`/api/content?${new URLSearchParams({ digest: wanted })}`),
    ]);
    if (wanted !== picked) return;
    note.textContent = `as of ${duration(found.age_seconds)} ago`;
    update(list, table(
      [["#", "n"], ["SHA-256"], ["Files", "n"], ["Size", "n optional"], ["Stored", "n optional"], ["Saved by sharing", "n"]],
      found.contents.map((one, at) => row(one, at, picked)), "No content has more than one file."));
    if (content !== null) {
      update(details,
        h("header", {}, h("h2", { class: "mono" }, `${wanted.slice(0, 16)}…`), h("a", { href: "#/shared" }, "Close")),
        ...holders(content.held_by, content.more, null));
    }
    open(split, details, content !== null, wanted !== shown, addressOf(shown));
    shown = wanted;
  }

  return {
    refresh,
    change: (parameters) => {
      picked = parameters.get("digest");
      return true;
    },
    escape: () => picked !== null && (location.hash = "#/shared"),
  };
}

function addressOf(digest) {
  return `#/shared?digest=${digest}`;
}

function row(one, at, picked) {
  const saved = one.logical_size === null ? null : one.logical_size * (one.names - 1);
  return h("tr", { class: one.digest === picked ? "picked" : null },
    h("td", { class: "n quiet" }, at + 1),
    h("td", {}, h("a", { class: "mono", href: addressOf(one.digest), title: one.digest }, `${one.digest.slice(0, 16)}…`)),
    h("td", { class: "n" }, count(one.names)),
    h("td", { class: "n optional" }, bytes(one.logical_size)),
    h("td", { class: "n optional" }, bytes(one.stored_size)),
    h("td", { class: "n" }, saved === null ? NOTHING : bytes(saved)));
}
