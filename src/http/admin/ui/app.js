// The frame: pages, the state of the server, theme, keys.

import { ask } from "./ask.js";
import { h, visible, moment } from "./format.js";
import { overview } from "./overview.js";
import { files } from "./files.js";
import { shared } from "./shared.js";
import { inside } from "./inside.js";

const PAGES = { overview, files, shared, inside };
const EVERY_MS = 5000;

const main = document.getElementById("main");
const trouble = document.getElementById("trouble");

let page = null;
let pageName = "";

function open() {
  const [name, query] = location.hash.replace(/^#\//, "").split("?");
  const wanted = Object.hasOwn(PAGES, name) ? name : "overview";
  const parameters = new URLSearchParams(query ?? "");
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === wanted) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${wanted[0].toUpperCase()}${wanted.slice(1)} · s3dedup`;
  if (wanted !== pageName || !page?.change?.(parameters)) {
    pageName = wanted;
    main.replaceChildren();
    page = PAGES[wanted](main, parameters);
  }
  refresh();
}

// Who answers. Another one may, behind a balancer or after an upgrade.
async function whoAnswers() {
  const stats = await ask("/api/stats");
  document.getElementById("instance").textContent = `${visible(stats.instance)} · ${visible(stats.version)}`;
}

let busy = false;

async function refresh() {
  if (busy) return;
  busy = true;
  const shown = page;
  const outcomes = await Promise.allSettled([state(), whoAnswers(), shown.refresh()]);
  busy = false;
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  trouble.hidden = !failed;
  if (failed) trouble.textContent = `${visible(failed.reason.message)}. What is shown is from before.`;
  else document.getElementById("updated").textContent = `As of ${moment(Date.now() / 1000)}, every 5 s`;
  if (shown !== page) refresh();
}

async function state() {
  const place = document.getElementById("state");
  const pill = (name, said) => {
    const kind = said === undefined ? "unknown" : said === "ok" ? "" : "bad";
    const text = said === "ok" ? name : `${name}: ${visible(said ?? "not known")}`;
    return h("span", { class: `pill ${kind}`, title: visible(said ?? "") }, text);
  };
  try {
    const ready = await ask("/ready");
    const pills = [pill("metadata", ready.metadata), pill("contents", ready.contents), pill("actors", ready.actors)];
    if (ready.draining) pills.push(pill("server", "stopping"));
    place.replaceChildren(...pills);
  } catch (error) {
    place.replaceChildren(pill("server", error.message));
    throw error;
  }
}

const THEMES = ["auto", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";
try {
  theme = localStorage.getItem("s3dedup-theme") ?? "auto";
} catch {
  // Storage may be switched off: the theme lasts as long as the page.
}

function paint() {
  const now = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
  document.documentElement.dataset.theme = now;
  document.getElementById("theme").textContent = `Theme: ${theme}`;
}

function nextTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try {
    localStorage.setItem("s3dedup-theme", theme);
  } catch {
    // As above.
  }
  paint();
}

dark.addEventListener("change", paint);
document.getElementById("theme").addEventListener("click", nextTheme);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target instanceof HTMLInputElement) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const names = Object.keys(PAGES);
  if (event.key >= "1" && event.key <= String(names.length)) {
    location.hash = `#/${names[Number(event.key) - 1]}`;
  } else if (event.key === "t") {
    nextTheme();
  } else if (event.key === "/") {
    event.preventDefault();
    if (pageName === "files") document.getElementById("prefix")?.focus();
    else location.hash = "#/files";
  } else if (event.key === "Escape") {
    page?.escape?.();
  }
});
addEventListener("hashchange", open);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
setInterval(() => document.hidden || refresh(), EVERY_MS);
paint();
open();
