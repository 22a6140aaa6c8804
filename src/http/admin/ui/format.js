// Elements and numbers. Text from elsewhere only ever becomes text: nothing here, or anywhere, parses markup.

export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(9)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

// Puts children into a place anew. What is there already stays, with what somebody has selected or stands on; where the
// rest of it changed, the focus goes to what came in the place of what had it.
export function update(place, ...children) {
  const fresh = document.createElement(place.localName);
  fresh.append(...children);
  const [now, wanted] = [[...place.childNodes], [...fresh.childNodes]];
  if (now.length === wanted.length && now.every((one, at) => one.isEqualNode(wanted[at]))) return;
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  const twins = () => [...place.querySelectorAll(focused.localName)].filter(
    (one) => one.getAttribute("href") === focused.getAttribute("href"));
  const at = focused && twins().indexOf(focused);
  place.replaceChildren(...wanted);
  if (focused) twins()[at]?.focus({ preventScroll: true });
}

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const NOTHING = "–";

export function count(number) {
  return number === null || number === undefined ? NOTHING : NUMBER.format(number);
}

export function decimal(number, digits = 2) {
  return number === null || number === undefined ? NOTHING : number.toFixed(digits);
}

export function percent(share) {
  return share === null || share === undefined ? NOTHING : `${(share * 100).toFixed(1)} %`;
}

export function bytes(number) {
  if (number === null || number === undefined) return NOTHING;
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  let size = number;
  while (size >= 999.5 && unit + 1 < units.length) {
    size /= 1000;
    unit += 1;
  }
  return `${size.toFixed(unit > 0 && size < 99.95 ? 1 : 0)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NOTHING;
  if (seconds === 0) return "0 s";
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 120) return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function rate(number) {
  if (number === null || number === undefined) return NOTHING;
  if (number === 0) return "0";
  if (number < 0.095) return number.toFixed(3);
  if (number < 0.995) return number.toFixed(2);
  return number < 9.95 ? number.toFixed(1) : count(number);
}

export function moment(seconds) {
  const two = (number) => String(number).padStart(2, "0");
  const at = new Date(seconds * 1000);
  if (Number.isNaN(at.getTime())) return String(seconds);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function ago(seconds) {
  return `${duration(Math.max(0, Date.now() / 1000 - seconds))} ago`;
}

// What would not be seen, or would change what is seen around it, is spelled out.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\u2028\u2029]/gu;

export function visible(text) {
  return String(text).replace(UNSEEN, (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

// A name in a run of its own, whatever direction it is written in.
export function nameOf(text) {
  return h("bdi", {}, visible(text));
}

export function table(heads, rows, none) {
  if (rows.length === 0) return h("p", { class: "none" }, none);
  const head = heads.map(([title, kind]) => h("th", { class: kind, scope: "col" }, title));
  return h("div", { class: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)));
}

export function card(width, title, ...content) {
  const heading = Array.isArray(title) ? title : [title];
  return h("section", { class: `card ${width}` }, h("header", {}, h("h2", {}, heading[0]), heading.slice(1)), content);
}

export function share(part, kind) {
  const bar = h("i");
  bar.style.width = `${Math.min(100, Math.max(0, (part ?? 0) * 100))}%`;
  return h("div", { class: `share ${kind ?? ""}` }, bar);
}
