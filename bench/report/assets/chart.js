"use strict";
// Accuracy against MACs, drawn from the data in the page: hover shows a point, the legend hides a run.
(() => {
  const holder = document.getElementById("chart");
  if (!holder) return;
  const data = JSON.parse(document.getElementById("chart-data").textContent);
  const NS = "http://www.w3.org/2000/svg";
  const off = new Set();
  let log = data.log;
  let spots = [];

  function make(name, attributes, parent, text) {
    const node = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  function units(value) {
    for (const [size, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (value >= size * 0.9995) return `${Number((value / size).toPrecision(3))}${name}`;
    }
    return `${Number(value.toPrecision(3))}`;
  }

  function steps(low, high, count) {
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= raw);
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high + step * 1e-9; k += 1) found.push(k * step);
    return found;
  }

  function decades(low, high) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += 1) {
      for (const k of [1, 2, 5]) if (k * 10 ** power >= low && k * 10 ** power <= high) found.push(k * 10 ** power);
    }
    return found.length > 1 ? found : steps(low, high, 5);
  }

  function path(marker, x, y, r) {
    const p = (...xy) => xy.map(([dx, dy], i) => `${i ? "L" : "M"}${x + dx * r},${y + dy * r}`).join("") + "Z";
    switch (marker) {
      case "s": return p([-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]);
      case "^": return p([0, -1.1], [1, 0.8], [-1, 0.8]);
      case "v": return p([0, 1.1], [1, -0.8], [-1, -0.8]);
      case "D": return p([0, -1.2], [1.1, 0], [0, 1.2], [-1.1, 0]);
      case "P": return p([-0.4, -1], [0.4, -1], [0.4, -0.4], [1, -0.4], [1, 0.4], [0.4, 0.4], [0.4, 1], [-0.4, 1],
        [-0.4, 0.4], [-1, 0.4], [-1, -0.4], [-0.4, -0.4]);
      case "X": return p([-1, -0.5], [-0.5, -1], [0, -0.45], [0.5, -1], [1, -0.5], [0.45, 0], [1, 0.5], [0.5, 1],
        [0, 0.45], [-0.5, 1], [-1, 0.5], [-0.45, 0]);
      default: return `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`;
    }
  }

  function draw() {
    const width = Math.max(holder.clientWidth, 280);
    const narrow = width < 560;
    const height = Math.min(Math.round(width * (narrow ? 0.95 : 0.56)), 620);
    const box = { left: 46, right: width - 14, top: 12, bottom: height - 44 };
    holder.querySelectorAll("svg").forEach((old) => old.remove());
    const svg = document.createElementNS(NS, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", "Test accuracy against MACs; the table below holds the same numbers");
    holder.prepend(svg);
    const shown = data.series.filter((one) => !off.has(one.run));
    const drawn = (shown.length ? shown : data.series).flatMap((one) => one.points);
    const xs = drawn.map((p) => p.x);
    const ys = drawn.map((p) => p.y);
    let [x0, x1] = [Math.min(...xs), Math.max(...xs)];
    let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
    const pad = Math.max((y1 - y0) * 0.08, 0.3);
    [y0, y1] = [y0 - pad, Math.min(y1 + pad, 100)];
    const useLog = log && x0 > 0;
    if (useLog) [x0, x1] = [x0 / 1.12, x1 * 1.12];
    else [x0, x1] = [Math.max(x0 - (x1 - x0 || x1) * 0.05, 0), x1 + (x1 - x0 || x1) * 0.05];
    const f = useLog ? Math.log : (v) => v;
    const X = (v) => box.left + ((f(v) - f(x0)) / (f(x1) - f(x0))) * (box.right - box.left);
    const Y = (v) => box.bottom - ((v - y0) / (y1 - y0)) * (box.bottom - box.top);
    const clip = make("clipPath", { id: "chart-clip" }, make("defs", {}, svg));
    make("rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top }, clip);
    for (const v of useLog ? decades(x0, x1) : steps(x0, x1, narrow ? 4 : 8)) {
      make("line", { x1: X(v), x2: X(v), y1: box.top, y2: box.bottom, class: "grid" }, svg);
      make("text", { x: X(v), y: box.bottom + 16, "text-anchor": "middle" }, svg, units(v));
    }
    for (const v of steps(y0, y1, narrow ? 6 : 9)) {
      make("line", { x1: box.left, x2: box.right, y1: Y(v), y2: Y(v), class: "grid" }, svg);
      make("text", { x: box.left - 6, y: Y(v) + 4, "text-anchor": "end" }, svg, `${Number(v.toFixed(4))}`);
    }
    make("text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, svg,
      `FLOPs (MACs) per image${useLog ? ", log scale" : ""}`);
    make("text", { x: -(box.top + box.bottom) / 2, y: 12, "text-anchor": "middle", transform: "rotate(-90)" }, svg,
      "Top-1 accuracy (%)");
    const inner = make("g", { "clip-path": "url(#chart-clip)" }, svg);
    for (const budget of data.budgets) {
      if (budget.macs < x0 || budget.macs > x1) continue;
      make("line", { x1: X(budget.macs), x2: X(budget.macs), y1: box.top, y2: box.bottom, class: "budget" }, inner);
      make("text", { x: X(budget.macs) + 3, y: box.top + 10, class: "budget" }, inner, budget.name);
    }
    spots = [];
    for (const one of shown) {
      for (const line of one.lines) {
        const at = line.map((k) => one.points[k]);
        if (one.points[line[0]].band) {
          const up = at.map((p) => `${X(p.x)},${Y(p.hi ?? p.y)}`);
          const down = at.map((p) => `${X(p.x)},${Y(p.lo ?? p.y)}`).reverse();
          make("polygon", { points: [...up, ...down].join(" "), fill: one.colour, opacity: 0.12 }, inner);
        }
        make("polyline", { points: at.map((p) => `${X(p.x)},${Y(p.y)}`).join(" "), fill: "none", stroke: one.colour,
          "stroke-width": 1.8, "stroke-dasharray": at[0].dash || "none" }, inner);
      }
      for (const p of one.points) {
        const [x, y] = [X(p.x), Y(p.y)];
        if (!p.band) {
          if (p.lo !== null && p.main) {
            make("line", { x1: x, x2: x, y1: Y(p.lo), y2: Y(p.hi), stroke: one.colour, opacity: 0.7 }, inner);
          }
          make("path", { d: path(one.marker, x, y, p.main ? 5.5 : 4), stroke: one.colour, "stroke-width": 1.5,
            fill: p.adaptive ? one.colour : "#fff" }, inner);
        }
        spots.push({ x, y, p, one });
      }
    }
    make("line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "axis" }, svg);
    make("line", { x1: box.left, x2: box.left, y1: box.top, y2: box.bottom, class: "axis" }, svg);
    const ring = make("circle", { r: 9, fill: "none", "stroke-width": 2, visibility: "hidden" }, svg);
    svg.addEventListener("pointermove", (event) => hover(event, svg, ring));
    svg.addEventListener("pointerdown", (event) => hover(event, svg, ring));
    svg.addEventListener("pointerleave", () => hide(ring));
  }

  const tip = document.getElementById("chart-tip");

  function hide(ring) {
    tip.hidden = true;
    ring.setAttribute("visibility", "hidden");
  }

  function hover(event, svg, ring) {
    const frame = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / frame.width;
    const [x, y] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
    let best = null;
    for (const spot of spots) {
      const far = Math.hypot(spot.x - x, spot.y - y);
      if (far < 28 && (best === null || far < best.far)) best = { ...spot, far };
    }
    if (best === null) {
      hide(ring);
      return;
    }
    ring.setAttribute("cx", best.x);
    ring.setAttribute("cy", best.y);
    ring.setAttribute("stroke", best.one.colour);
    ring.setAttribute("visibility", "visible");
    tip.replaceChildren();
    const title = document.createElement("b");
    title.textContent = best.one.label;
    tip.append(title);
    for (const [name, value] of best.p.facts) {
      const line = document.createElement("div");
      line.textContent = `${name}: ${value}`;
      tip.append(line);
    }
    tip.hidden = false;
    const room = holder.clientWidth;
    const left = best.x / scale > room / 2 ? best.x / scale - tip.offsetWidth - 14 : best.x / scale + 14;
    tip.style.left = `${Math.max(0, Math.min(left, room - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, best.y / scale - tip.offsetHeight - 12)}px`;
  }

  const legend = document.getElementById("chart-legend");
  for (const one of data.series) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    const dot = document.createElement("span");
    dot.className = "dot";
    dot.style.background = one.colour;
    button.append(dot, one.label);
    button.addEventListener("click", () => {
      if (off.has(one.run)) off.delete(one.run);
      else off.add(one.run);
      button.setAttribute("aria-pressed", String(!off.has(one.run)));
      draw();
    });
    legend.append(button);
  }
  const scale = document.getElementById("chart-log");
  scale.checked = log;
  scale.addEventListener("change", () => {
    log = scale.checked;
    draw();
  });
  new ResizeObserver(draw).observe(holder);
  draw();
})();
