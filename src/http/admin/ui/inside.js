// Actors, backends, routes: how the server does its work.

import { ask } from "./ask.js";
import { bytes, card, count, duration, h, NOTHING, percent, rate, share, table, update, visible } from "./format.js";

export function inside(main) {
  const [actors, places, backends, routes] = [h("div"), h("div"), h("div"), h("div")];
  main.append(h("div", { class: "grid" },
    card("w8", "Actors", actors), card("w4", "Places and memory", places),
    card("w12", "Backends", backends), card("w12", "Requests by route", routes)));
  let before = null;

  async function refresh() {
    const [tree, metrics] = await Promise.all([ask("/api/actors"), ask("/metrics/json")]);
    const now = { metrics, at: performance.now() / 1000 };
    update(actors, actorTable(tree));
    update(places, placesOf(tree, metrics));
    update(backends, backendTable(metrics, tree));
    update(routes, routeTable(now, before));
    before = now;
  }
  return { refresh };
}

function actorTable(tree) {
  const row = (actor, depth) => h("tr", {},
    h("td", { class: "whole" }, depth ? "└ " : "", actor.name),
    h("td", {}, h("span", { class: `pill ${actor.state === "up" ? "" : "bad"}` }, actor.state)),
    h("td", { class: "n" }, actor.restarts === undefined ? NOTHING : count(actor.restarts)),
    h("td", { class: "n" }, actor.panics === undefined ? NOTHING : count(actor.panics)),
    h("td", { class: "optional" }, Object.entries(actor.load ?? {}).map(([name, value]) => `${name} ${count(value)}`).join(", ")),
    h("td", { class: "name bad" }, visible(actor.last_fault ?? "")));
  const root = tree.actors;
  return table([["Actor"], ["State"], ["Restarts", "n"], ["Panics", "n"], ["Load", "optional"], ["Last fault"]],
    [row(root, 0), ...root.children.map((child) => row(child, 1))], "");
}

function find(metrics, name, labels) {
  const samples = metrics[name];
  if (!Array.isArray(samples)) return undefined;
  return samples.find((one) => Object.entries(labels).every(([label, value]) => one.labels[label] === value))?.value;
}

function placesOf(tree, metrics) {
  const place = (title, used, most) => {
    const part = most > 0 ? used / most : 0;
    return [h("dt", {}, title), h("dd", {}, `${count(used)} of ${count(most)}`, share(part, part > 0.8 ? "warn" : ""))];
  };
  const row = (title, value) => [h("dt", {}, title), h("dd", {}, value)];
  const uploads = [find(metrics, "s3dedup_permits_in_use", { kind: "uploads" }), find(metrics, "s3dedup_permits_max", { kind: "uploads" })];
  const [hits, misses] = [metrics.s3dedup_cache_hits_total, metrics.s3dedup_cache_misses_total];
  return h("dl", { class: "rows" },
    place("Requests inside", tree.requests.inside, tree.requests.slots),
    place("Uploaders busy", uploads[0], uploads[1]),
    row("Waiting for a lock", count(metrics.s3dedup_lock_queue_size)),
    row("Bodies in memory", bytes(tree.requests.spool_bytes)),
    row("Contents in memory", `${count(metrics.s3dedup_cache_contents)}, ${bytes(metrics.s3dedup_cache_size_bytes)}`),
    row("Found there", hits + misses > 0 ? `${percent(hits / (hits + misses))} of ${count(hits + misses)}` : NOTHING),
    row("Database connections", `${count(metrics.s3dedup_db_connections_active)} busy, ${count(metrics.s3dedup_db_connections_idle)} idle`),
    row("Damage seen", h("span", { class: metrics.s3dedup_damaged_objects_seen_total > 0 ? "bad" : "" },
      count(metrics.s3dedup_damaged_objects_seen_total))));
}

function backendTable(metrics, tree) {
  const breaker = (backend) => {
    const number = find(metrics, "s3dedup_breaker_state", { backend });
    return number === undefined ? NOTHING : ["closed", "probing", "open"][number];
  };
  const row = (one) => {
    const up = find(metrics, "s3dedup_backend_up", { backend: one.labels.backend });
    const errors = find(metrics, "s3dedup_backend_errors_total", one.labels);
    return h("tr", {},
      h("td", {}, one.labels.backend),
      h("td", {}, h("span", { class: `pill ${up === 1 ? "" : up === 0 ? "bad" : "unknown"}` }, up === 1 ? "answers" : up === 0 ? "away" : "not known")),
      h("td", {}, breaker(one.labels.backend)),
      h("td", {}, one.labels.operation),
      h("td", { class: "n" }, count(one.value.count)),
      h("td", { class: `n ${errors > 0 ? "bad" : ""}` }, count(errors)),
      h("td", { class: "n" }, one.value.count > 0 ? duration(one.value.sum / one.value.count) : NOTHING),
      h("td", { class: "n" }, duration(quantile(one.value, 0.99))));
  };
  return table([["Backend"], ["State"], ["Breaker"], ["Call"], ["Calls", "n"], ["Errors", "n"], ["Mean", "n"], ["99 %", "n"]],
    metrics.s3dedup_backend_request_duration_seconds.map(row), "");
}

function routeTable(now, before) {
  const name = (one) => `${one.labels.method} ${one.labels.endpoint}`;
  const requests = (metrics, keep) => {
    const sums = new Map();
    for (const one of metrics.s3dedup_http_requests_total) {
      if (keep(one)) sums.set(name(one), (sums.get(name(one)) ?? 0) + one.value);
    }
    return sums;
  };
  const all = requests(now.metrics, () => true);
  const failed = requests(now.metrics, (one) => one.labels.status.startsWith("5"));
  const earlier = before && requests(before.metrics, () => true);
  const row = (one) => {
    const failures = failed.get(name(one)) ?? 0;
    const rateNow = earlier ? ((all.get(name(one)) ?? 0) - (earlier.get(name(one)) ?? 0)) / (now.at - before.at) : null;
    return h("tr", {},
      h("td", { class: "mono" }, name(one)),
      h("td", { class: "n" }, count(all.get(name(one)))),
      h("td", { class: "n" }, rate(rateNow)),
      h("td", { class: `n ${failures > 0 ? "bad" : ""}` }, count(failures)),
      h("td", { class: "n" }, duration(quantile(one.value, 0.5))),
      h("td", { class: "n" }, duration(quantile(one.value, 0.99))));
  };
  const rows = [...now.metrics.s3dedup_http_request_duration_seconds].sort((one, other) => other.value.count - one.value.count);
  return table([["Route"], ["Requests", "n"], ["A second", "n"], ["Failed (5xx)", "n"], ["Half", "n"], ["99 %", "n"]],
    rows.map(row), "None yet.");
}

// The time that a share of the calls took at most; between two bounds they are taken to be spread evenly.
function quantile(histogram, part) {
  if (histogram.count === 0) return null;
  let [from, below] = [0, 0];
  for (const bucket of histogram.buckets) {
    if (bucket.count >= part * histogram.count && bucket.count > below) {
      return from + (bucket.le - from) * ((part * histogram.count - below) / (bucket.count - below));
    }
    [from, below] = [bucket.le, bucket.count];
  }
  return from;
}
