// What is saved, now and over time; requests; what goes on in the background.

import { ask } from "./ask.js";
import { chart } from "./chart.js";
import { ago, bytes, card, count, decimal, duration, h, NOTHING, percent, rate, share, table, update, visible } from "./format.js";

export function overview(main) {
  const places = Object.fromEntries(
    ["figures", "storage", "requests", "times", "cleaner", "migration", "instances"].map((name) => [name, h("div")]));
  let range = "hour";
  const button = (name, title) =>
    h("button", { type: "button", "aria-pressed": String(name === range), "data-range": name, onclick: () => choose(name) }, title);
  const ranges = h("div", { class: "ranges", role: "group", "aria-label": "Time shown" },
    button("hour", "1 hour"), button("week", "7 days"));
  const choose = (name) => {
    range = name;
    for (const one of ranges.children) one.setAttribute("aria-pressed", String(one.dataset.range === name));
    refresh();
  };
  main.append(h("div", { class: "grid" },
    h("div", { class: "w12" }, places.figures),
    card("w12", ["Stored over time", ranges], places.storage),
    card("w6", "Requests a second", places.requests),
    card("w6", "Time until the answer begins", places.times),
    card("w4", "Cleaner", places.cleaner),
    card("w4", "Migration", places.migration),
    card("w4", "Instances", places.instances),
  ));

  async function refresh() {
    const asked = range;
    const parts = [
      ask("/api/stats").then((stats) => {
        update(places.figures, figures(stats));
      }),
      ask(`/api/history?range=${asked}`).then((past) => asked === range && charts(places, past)),
      ask("/api/cleaner").then((now) => update(places.cleaner, cleaner(now))),
      ask("/api/migration").then((now) => update(places.migration, migration(now))),
      ask("/api/instances").then((all) => update(places.instances, instances(all))),
    ];
    const failed = (await Promise.allSettled(parts)).find((outcome) => outcome.status === "rejected");
    if (failed) throw failed.reason;
  }
  return { refresh };
}

function figures(stats) {
  const figure = (title, value, note, kind) =>
    h("div", { class: `figure ${kind ?? ""}` }, h("dt", {}, title), h("dd", {}, value, note && h("small", {}, note)));
  const stored = stats.logical_bytes > 0 ? 1 - stats.savings_ratio : 0;
  const saved = figure("Saved", percent(stats.savings_ratio), `${bytes(stats.saved_bytes)}, by sharing and compression`, "main");
  const bar = share(stored);
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", `${percent(stored)} of the logical size is stored`);
  saved.append(bar);
  return h("dl", { class: "card figures" },
    saved,
    figure("Files", count(stats.dedup_total_references)),
    figure("Contents", count(stats.dedup_unique_blobs), sharing(stats)),
    figure("Logical size", bytes(stats.logical_bytes)),
    figure("Stored", bytes(stats.storage_used_bytes), `in ${visible(stats.contents)}`),
    figure("Files per content", decimal(stats.dedup_ratio), `up for ${duration(stats.uptime_seconds)}`),
  );
}

function sharing(stats) {
  if (stats.dedup_unique_blobs > stats.dedup_total_references) return "those without a file wait for the cleaner";
  return `${percent(stats.deduplication_ratio)} of the files share`;
}

function charts(places, past) {
  const lines = (...all) => all.map(([name, values, kind]) => ({ name, values, kind }));
  const stored = lines(["stored", past.stored_bytes], ["logical", past.logical_bytes]);
  places.storage.replaceChildren(...chart("Stored over time", past.time, stored, bytes, { filled: true }));
  const requests = lines(["answered", past.requests_per_second], ["failed (5xx)", past.failures_per_second, 2]);
  places.requests.replaceChildren(...chart("Requests a second", past.time, requests, rate, { filled: true }));
  const times = lines(["half", past.p50_seconds], ["99 %", past.p99_seconds]);
  places.times.replaceChildren(...chart("Time until the answer begins", past.time, times, duration));
}

function rows(...pairs) {
  return h("dl", { class: "rows" }, pairs.filter(Boolean).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function cleaner(now) {
  if (!now.enabled) return h("p", { class: "none" }, "This instance does not clean.");
  const state = now.running ? "running" : now.leader ? "waits for its time" : now.runs === 0 ? "has not run yet" : "another instance's turn";
  return rows(
    ["State", state],
    ["Last run", now.last_run_seconds === null ? "none yet" : ago(now.last_run_seconds)],
    ["Runs", count(now.runs)],
    ["Deleted", `${count(now.deleted)} objects, ${bytes(now.freed_bytes)}`],
    ["Errors", h("span", { class: now.errors > 0 ? "bad" : "" }, count(now.errors))],
  );
}

function migration(now) {
  const old = now.old_server;
  const parts = [];
  if (now.files) {
    const done = now.files.total > 0 ? now.files.settled / now.files.total : 0;
    parts.push(rows(
      ["From", visible(now.source)],
      ["State", now.waits_for ? `waits: ${visible(now.waits_for)}` : now.phase],
      ["Files", `${count(now.files.settled)} of ${count(now.files.total)} (${percent(done)})`],
      ["Copied", `${count(now.files.copied)}, ${bytes(now.logical_bytes)}`],
      ["Failed", h("span", { class: now.files.failed > 0 ? "bad" : "" }, count(now.files.failed))],
      now.active && ["Rate", `${rate(now.files_per_second)} files/s, ${duration(now.seconds_left)} left`],
    ), share(done));
  }
  if (old) {
    parts.push(rows(
      old.breaker && ["Old server", old.breaker === "closed" ? "answers" : h("span", { class: "bad" }, `does not answer (${old.breaker})`)],
      ["Reads it answered", count(old.reads_answered)],
      ["Writes it lacks", `${count(old.second_writes.waiting)}${old.second_writes.oldest_seconds ? `, the oldest for ${duration(old.second_writes.oldest_seconds)}` : ""}`],
      old.second_writes.last_error && ["Last error", visible(old.second_writes.last_error)],
    ));
  }
  return parts.length > 0 ? h("div", {}, parts) : h("p", { class: "none" }, "No migration, no old server.");
}

function instances(all) {
  const row = (one) => h("tr", {},
    h("td", { class: "name" }, visible(one.id)),
    h("td", {}, h("span", { class: `pill ${one.state === "live" ? "" : "bad"}` }, one.state)),
    h("td", { class: "optional" }, visible(one.version ?? NOTHING)),
    h("td", { class: "n" }, one.last_seen_seconds > 0 ? `${duration(one.last_seen_seconds)} ago` : "now"));
  return table([["Name"], ["State"], ["Version", "optional"], ["Seen", "n"]], all.map(row), "None known.");
}
