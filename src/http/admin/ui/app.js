// The frame: pages, the state of the server, theme, keys.

import { ask } from "./ask.js";
import { h, visible, moment } from "./format.js";
import { overview } from "./overview.js";
import { files } from "./files.js";
import { shared } from "./shared.js";
import { inside } from "./inside.js";

const PAGES = { overview, files, shared, inside };
const EVERY_MS = 5000;
// An outage is to be seen soon, and asking for it costs little.
const STATE_EVERY_MS = 1000;

const main = document.getElementById("main");
const trouble = document.getElementById("trouble");

let wantsSearch = false;
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
  if (wantsSearch) page.search?.();
  wantsSearch = false;
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
  const outcomes = await Promise.allSettled([shown.refresh(), whoAnswers()]);
  busy = false;
  if (outcomes[0].status === "fulfilled") shown.isFilled = true;
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  trouble.hidden = !failed;
  if (failed) trouble.textContent = `${visible(failed.reason.message)}.${shown.isFilled ? " What is shown is from before." : ""}`;
  else document.getElementById("updated").textContent = `As of ${moment(Date.now() / 1000)}, every 5 s`;
  if (shown !== page) refresh();
}

function pill(name, said) {
  const kind = said === undefined ? "unknown" : said === "ok" ? "" : "bad";
  const text = said === "ok" ? name : `${name}: ${visible(said ?? "not known")}`;
  return h("span", { class: `pill ${kind}`, title: visible(said ?? "") }, text);
}

let looking = false;
let seen = "";

// What is well and what is not.
async function state() {
  if (looking) return;
  looking = true;
  let told;
  try {
    const ready = await ask("/ready");
    told = ["metadata", "contents", "actors"].map((name) => [name, ready[name]]);
    if (ready.draining) told.push(["server", "stopping"]);
  } catch (error) {
    told = [["server", error.message]];
  }
  looking = false;
  // It is read out when it changes: the same again is no change.
  const now = JSON.stringify(told);
  if (now === seen) return;
  seen = now;
  document.getElementById("state").replaceChildren(...told.map(([name, said]) => pill(name, said)));
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
    wantsSearch = pageName !== "files";
    if (wantsSearch) location.hash = "#/files";
    else page.search();
  } else if (event.key === "Escape") {
    page?.escape?.();
  }
});
// Addresses are of pages here, so this link does not change the address.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", open);
function renew() {
  if (document.hidden) return;
  state();
  refresh();
}

document.addEventListener("visibilitychange", renew);
setInterval(() => document.hidden || refresh(), EVERY_MS);
setInterval(() => document.hidden || state(), STATE_EVERY_MS);
paint();
open();
state();
