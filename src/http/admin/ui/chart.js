// Lines over time.

import { h, svg, moment } from "./format.js";

const HEIGHT = 180;
const LEFT = 58;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;

// `lines` are { name, values, kind }; a null is a gap. `show` makes text of a value.
export function chart(title, times, lines, show, { filled = false } = {}) {
  const legend = h("div", { class: "legend quiet" });
  const box = h("div", { class: "chart" });
  const known = lines.flatMap((line) => line.values).filter((value) => value !== null);
  if (times.length < 2) return [h("p", { class: "none" }, "No points yet: this begins with the server.")];
  if (known.length === 0) return [h("p", { class: "none" }, "Nothing in this time.")];
  const top = niceAbove(Math.max(...known));
  const draw = () => {
    const width = Math.max(260, box.clientWidth || 600);
    box.replaceChildren(picture(title, width, top, times, lines, show, filled, tell));
  };
  const tell = (at) => {
    const values = lines.map((line, index) =>
      h("span", { class: `l${line.kind ?? index}` }, `${line.name} ${line.values[at] === null ? "–" : show(line.values[at])}`));
    legend.replaceChildren(...values, h("b", { class: "when" }, moment(times[at])));
  };
  tell(times.length - 1);
  new ResizeObserver(draw).observe(box);
  return [legend, box];
}

function picture(title, width, top, times, lines, show, filled, tell) {
  const [first, last] = [times[0], times[times.length - 1]];
  const x = (time) => LEFT + ((time - first) / Math.max(1, last - first)) * (width - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM);
  const summary = lines.map((line) => `${line.name} ${show(line.values.findLast((value) => value !== null) ?? 0)}`).join(", ");
  const root = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${title}: ${summary}` });
  for (const part of [0, 0.5, 1]) {
    root.append(
      svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y(top * part), y2: y(top * part) }),
      svg("text", { x: LEFT - 6, y: y(top * part) + 4, "text-anchor": "end" }, show(top * part)),
    );
  }
  for (const part of [0, 0.5, 1]) {
    const anchor = ["start", "middle", "end"][part * 2];
    const time = first + (last - first) * part;
    const text = last - first > 86400 ? moment(time).slice(5, 16) : moment(time).slice(11, 16);
    root.append(svg("text", { x: x(time), y: HEIGHT - 4, "text-anchor": anchor }, text));
  }
  lines.forEach((line, index) => {
    for (const run of runs(line.values)) {
      const points = run.map((at) => `${x(times[at]).toFixed(1)},${y(line.values[at]).toFixed(1)}`).join(" L");
      if (filled && index === 0) {
        const ends = [run[0], run[run.length - 1]].map((at) => x(times[at]).toFixed(1));
        root.append(svg("path", { class: "area", d: `M${ends[0]},${y(0)} L${points} L${ends[1]},${y(0)} Z` }));
      }
      root.append(svg("path", { class: `line l${line.kind ?? index}`, d: `M${points}${run.length === 1 ? " h0.1" : ""}` }));
    }
  });
  const mark = svg("line", { class: "at", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  root.append(mark);
  root.addEventListener("pointermove", (event) => {
    const at = nearest(times, first + ((event.offsetX - LEFT) / (width - LEFT - RIGHT)) * (last - first));
    mark.setAttribute("x1", x(times[at]));
    mark.setAttribute("x2", x(times[at]));
    mark.setAttribute("visibility", "visible");
    tell(at);
  });
  root.addEventListener("pointerleave", () => {
    mark.setAttribute("visibility", "hidden");
    tell(times.length - 1);
  });
  return root;
}

// Stretches without gaps, as indices.
function runs(values) {
  const found = [];
  values.forEach((value, at) => {
    if (value === null) return;
    if (at === 0 || values[at - 1] === null) found.push([]);
    found[found.length - 1].push(at);
  });
  return found;
}

function nearest(times, wanted) {
  let best = 0;
  times.forEach((time, at) => {
    if (Math.abs(time - wanted) < Math.abs(times[best] - wanted)) best = at;
  });
  return best;
}

function niceAbove(value) {
  // Nothing but zeros: half of this is a whole number, too.
  if (!(value > 0)) return 2;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}
