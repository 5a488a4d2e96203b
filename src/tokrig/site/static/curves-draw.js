// Lines and points of several runs in one panel: uPlot draws axes and lines; marks, named lines, the
// words beside a point and the way through the points by keys are ours.
"use strict";

{
  const { make } = tokrig;
  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [14, 4]];
  const HEIGHT = 300;
  const MOST_MARKS = 40; // of a line; more would hide it
  const NEAR = 40; // pixels between pointer and point
  const MARKS_APART = 120; // above it, marks of a linear axis would lie on each other

  const facts = JSON.parse(document.getElementById("curves-facts").textContent);
  const shapes = facts.shapes.map((path) => new Path2D(path));

  /** Colours as a canvas takes them: what the style sheet says for both themes is resolved. */
  const resolved = () => {
    const probe = make("span", { hidden: true });
    document.body.append(probe);
    const of = (name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    const found = { paper: of("paper"), ink: of("chart-ink"), muted: of("chart-muted"), grid: of("chart-grid"), series: [1, 2, 3, 4, 5, 6].map((number) => of(`chart-${number}`)) };
    probe.remove();
    return found;
  };

  /** The mark and the line of a series, as the legend shows them. */
  function swatch(number) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const add = (tag, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      svg.append(element);
    };
    for (const [name, value] of Object.entries({ width: 34, height: 14, viewBox: "-17 -7 34 14", "aria-hidden": "true", class: "swatch" })) svg.setAttribute(name, value);
    const paint = `var(--chart-${number + 1})`;
    add("line", { x1: -17, x2: 17, y1: 0, y2: 0, stroke: paint, "stroke-width": 2, "stroke-dasharray": DASHES[number].join(",") || "none" });
    add("path", { d: facts.shapes[number], fill: paint });
    return svg;
  }

  // Axes

  const decimalsOf = (step) => Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const grouped = (value, decimals) => {
    const [whole, part] = value.toFixed(decimals).split(".");
    return whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",") + (part ? `.${part}` : "");
  };

  /** About so many round values from low to high, with their texts: charts.ticks in Python. */
  function ticks(low, high, count) {
    const power = 10 ** Math.floor(Math.log10((high - low) / count));
    const exact = (high - low) / count / power;
    const step = power * (exact >= 50 ** 0.5 ? 10 : exact >= 10 ** 0.5 ? 5 : exact >= 2 ** 0.5 ? 2 : 1);
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n <= Math.floor(high / step + 1e-9); n++) {
      found.push([n * step, grouped(n * step, decimalsOf(step))]);
    }
    return found;
  }

  function logTicks(low, high, most) {
    let within = [];
    for (const steps of [[1, 2, 5], [1, 3], [1]]) {
      within = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
        for (const step of steps) {
          const value = Number(`${step}e${power}`);
          if (value >= low && value <= high) within.push([value, grouped(value, Math.max(0, -power))]);
        }
      }
      if (within.length <= most) break;
    }
    return within.length < 2 ? ticks(low, high, most) : within;
  }

  /** Which labels are shown so that none touches another: charts.apart in Python. */
  function apart(places, lengths, room) {
    const free = (one, other) => Math.abs(places[other] - places[one]) >= (lengths[one] + lengths[other]) / 2 + room;
    const steps = places.slice(1).map((place, n) => Math.abs(place - places[n]));
    if (steps.length && Math.max(...steps) < 1.01 * Math.min(...steps)) {
      const all = places.map((_, n) => n);
      const fits = (every) => all.filter((n) => n % every === 0).every((n) => !n || free(n - every, n));
      const every = [1, 2, 5, 10, 20, 50].find(fits) ?? places.length;
      return all.map((n) => n % every === 0);
    }
    let last = -1;
    return places.map((_, n) => {
      const shown = last < 0 || free(last, n);
      if (shown) last = n;
      return shown;
    });
  }

  const depthPlace = (depths) => {
    const first = Math.min(...depths.filter((one) => one > 0), Infinity);
    return (depth) => (depth > 0 ? Math.log2(depth) : Math.log2(first === Infinity ? 1 : first) - 1);
  };
  const tokens = (count) => (count && count % 1024 === 0 ? `${count / 1024}k` : String(count));

  /** Bounds, ticks and the place of a value on an axis of the ``values``. */
  function scaleOf(axis, values, most) {
    if (axis.depth) {
      const place = depthPlace(values);
      const several = [...new Set(values)].sort((a, b) => a - b);
      const [low, high] = [place(several[0]), place(several.at(-1))];
      const edge = Math.max(0.2, (high - low) * 0.04);
      return { low: low - edge, high: high + edge, place, values: several.map((deep) => [place(deep), tokens(deep)]) };
    }
    const place = (value) => value;
    const marks = Object.values(axis.marks ?? {});
    if (axis.logarithmic || (marks.length && Math.max(...values) > MARKS_APART)) {
      const least = Math.min(...values, ...marks.map((one) => one / 1.2));
      const [low, high] = [Math.max(least, 1e-9) / 1.35, Math.max(...values) * 1.35];
      return { low, high, place, values: logTicks(low, high, most), logarithmic: true };
    }
    const top = Math.max(...values);
    if (axis.close) {
      const edge = Math.max((top - Math.min(...values)) * 0.15, Math.abs(top) * 0.01);
      const [low, high] = [Math.min(...values) - edge, top + edge];
      return { low, high, place, values: ticks(low, high, most) };
    }
    const high = (top || 1) * 1.08;
    const low = axis.first ?? 0;
    return { low, high: axis.first === undefined ? high : top + 0.5, place, values: axis.whole ? ticks(low, high, Math.min(most, Math.ceil(top))) : ticks(low, high, most) };
  }

  // A panel

  /**
   * Draw one panel into ``host``. ``lines`` are ``[{number, points: [{x, y, said, ring}], path}]``:
   * ``said`` is what a reader is told of a point, ``path`` the points that the line goes through,
   * where those are not all. A picture has more pixels than the screen: ``zoom`` times as many.
   */
  function panel(host, spec, lines, paint, width = Math.max(240, Math.floor(host.clientWidth)), zoom = 1) {
    const all = lines.flatMap((line) => line.points);
    const x = scaleOf(spec.x, all.map((point) => point.x), Math.max(2, Math.floor(width / 75)));
    const y = scaleOf(spec.y, all.map((point) => point.y), 6);
    const font = `${12 * zoom}px system-ui, sans-serif`;
    const measure = document.createElement("canvas").getContext("2d");
    measure.font = font;
    const wide = (text) => measure.measureText(text).width;
    const ways = lines.map((line) => {
      // uPlot wants places in order, each once.
      const way = (line.path ?? line.points).map((point) => [x.place(point.x), point.y]).sort((a, b) => a[0] - b[0]);
      for (let n = 1; n < way.length; n++) if (way[n][0] <= way[n - 1][0]) way[n][0] = way[n - 1][0] + Math.abs(way[n - 1][0] || 1) * 1e-12;
      return [way.map((one) => one[0]), way.map((one) => one[1])];
    });
    const labels = (scale, upright) => (plot, splits) => {
      const places = splits.map((value) => plot.valToPos(value, upright ? "y" : "x"));
      const said = scale.values.map(([, text]) => text);
      const shown = apart(places, said.map((text) => (upright ? 13 * zoom : wide(text))), (upright ? 2 : 8) * zoom);
      return said.map((text, n) => (shown[n] ? text : ""));
    };
    const axis = (scale, upright) => ({
      stroke: paint.muted,
      font,
      grid: { stroke: paint.grid, width: zoom },
      ticks: { show: false },
      splits: () => scale.values.map(([value]) => value),
      filter: (_, splits) => splits,
      values: labels(scale, upright),
      size: upright ? Math.max(34 * zoom, 14 * zoom + Math.max(...scale.values.map(([, text]) => wide(text)))) : 30 * zoom,
      gap: 6 * zoom,
    });
    const scale = (found) => ({ time: false, distr: found.logarithmic ? 3 : 1, log: 10, range: () => [found.low, found.high] });
    const plot = new uPlot(
      {
        width: width * zoom,
        height: HEIGHT * zoom,
        legend: { show: false },
        cursor: { show: false },
        padding: [12 * zoom, 14 * zoom, 0, 0],
        scales: { x: scale(x), y: scale(y) },
        axes: [axis(x, false), axis(y, true)],
        series: [{}, ...lines.map(({ number }) => ({ stroke: paint.series[number], width: 2 * zoom, dash: DASHES[number].map((one) => one * zoom), points: { show: false }, spanGaps: true }))],
        hooks: { draw: [(drawn) => decorate(drawn, spec, lines, x, y, paint, uPlot.pxRatio * zoom)] },
      },
      uPlot.join(ways),
      host,
    );
    return { plot, spots: () => spotsOf(plot, lines, x) };
  }

  /** Named lines below, marks above what uPlot drew. */
  function decorate(plot, spec, lines, x, y, paint, ratio) {
    const { ctx } = plot;
    const { left, top, width, height } = plot.bbox;
    ctx.save();
    ctx.font = `${12 * ratio}px system-ui, sans-serif`;
    ctx.strokeStyle = paint.ink;
    ctx.fillStyle = paint.muted;
    ctx.lineWidth = ratio;
    ctx.setLineDash([3 * ratio, 2 * ratio]);
    const named = [];
    for (const [axis, marks, scale] of [["x", spec.x.marks, x], ["y", spec.y.marks, y]]) {
      for (const [name, value] of Object.entries(marks ?? {})) {
        if (value <= scale.low || value >= scale.high) continue;
        const at = plot.valToPos(value, axis, true);
        ctx.beginPath();
        if (axis === "x") ctx.moveTo(at, top), ctx.lineTo(at, top + height);
        else ctx.moveTo(left, at), ctx.lineTo(left + width, at);
        ctx.stroke();
        const said = `${name} ${value}`;
        // Names on neighbouring lines stand one above the other, or at both ends.
        const number = Object.keys(marks).indexOf(name);
        const right = axis === "y" && !number;
        const [px, py] = axis === "x" ? [at + 4 * ratio, top + (13 + 15 * number) * ratio] : [right ? left + width - 4 * ratio : left + 4 * ratio, at - 5 * ratio];
        named.push([said, px, py, right ? "right" : "left"]);
      }
    }
    ctx.setLineDash([]);
    for (const { number, points } of lines) {
      if (points.length > MOST_MARKS) continue;
      for (const point of points) {
        const [px, py] = [plot.valToPos(x.place(point.x), "x", true), plot.valToPos(point.y, "y", true)];
        ctx.setTransform(ratio, 0, 0, ratio, px, py);
        ctx.fillStyle = paint.series[number];
        ctx.fill(shapes[number]);
        if (point.ring) {
          ctx.strokeStyle = paint.ink;
          ctx.lineWidth = 1.75;
          ctx.beginPath();
          ctx.arc(0, 0, 8, 0, 2 * Math.PI);
          ctx.stroke();
        }
      }
    }
    // Names come last and with an edge of paper, so that no curve crosses them out.
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.strokeStyle = paint.paper;
    ctx.lineWidth = 4 * ratio;
    ctx.lineJoin = "round";
    ctx.fillStyle = paint.muted;
    for (const [said, px, py, side] of named) {
      ctx.textAlign = side;
      ctx.strokeText(said, px, py);
      ctx.fillText(said, px, py);
    }
    ctx.restore();
  }

  /** Where the points are, in pixels of the panel. */
  function spotsOf(plot, lines, x) {
    const [left, top] = [plot.bbox.left / uPlot.pxRatio, plot.bbox.top / uPlot.pxRatio];
    return lines.flatMap(({ number, name, points }, line) =>
      points.map((point, place) => ({
        line, place, number, name, point,
        left: left + plot.valToPos(x.place(point.x), "x"),
        top: top + plot.valToPos(point.y, "y"),
      })),
    );
  }

  /** A panel that tells of its points, under pointer, finger and keys. */
  function figure(spec, lines) {
    const host = make("div", { class: "plot", tabindex: "0", role: "group", "aria-label": `${spec.title}: the arrow keys walk through its points` });
    const tip = make("div", { class: "point", hidden: true });
    const ring = make("div", { class: "ring", hidden: true });
    const live = make("p", { class: "unseen", role: "status" });
    const share = tokrig.share.menu(`Share ${spec.title}`, () => [
      ["Save as PNG", () => tokrig.curves.savePng(spec, lines)],
      ...tokrig.share.ofView(document.querySelector("section.view:not([hidden])")),
    ]);
    const element = make("figure", { class: "panel" }, share, make("figcaption", {}, spec.title), host, make("p", { class: "axis" }, spec.x.title), live);
    let drawn = null;
    let spots = null;
    let at = -1;
    /** uPlot knows where things are when it has drawn, which is a moment after it was made. */
    const places = () => (spots ??= drawn ? drawn.spots() : []);

    const hide = () => {
      tip.hidden = ring.hidden = true;
      at = -1;
    };
    const show = (number, aloud) => {
      at = number;
      const spot = places()[number];
      tip.replaceChildren(swatch(spot.number), make("strong", {}, spot.name), make("span", {}, spot.point.said));
      tip.hidden = ring.hidden = false;
      ring.style.translate = `${spot.left - 9}px ${spot.top - 9}px`;
      const room = host.clientWidth - tip.offsetWidth - 4;
      const below = spot.top + 16 + tip.offsetHeight < HEIGHT;
      tip.style.translate = `${Math.max(0, Math.min(spot.left + 12, room))}px ${below ? spot.top + 14 : Math.max(0, spot.top - 14 - tip.offsetHeight)}px`;
      if (aloud) live.textContent = `${spot.name}: ${spot.point.said}`;
    };
    host.addEventListener("pointermove", (event) => {
      const box = host.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      let best = -1;
      let least = NEAR ** 2;
      places().forEach((spot, number) => {
        const far = (spot.left - px) ** 2 + (spot.top - py) ** 2;
        if (far < least) [best, least] = [number, far];
      });
      if (best < 0) hide();
      else if (best !== at) show(best, false);
    });
    host.addEventListener("pointerleave", hide);
    host.addEventListener("blur", hide);
    host.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      const along = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const across = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!places().length || (!along && !across)) return;
      event.preventDefault();
      if (at < 0) return show(0, true);
      if (along) return show((at + along + spots.length) % spots.length, true);
      const count = lines.length;
      const line = (spots[at].line + across + count) % count;
      const wanted = spots.findIndex((spot) => spot.line === line && spot.place === Math.min(spots[at].place, lines[line].points.length - 1));
      show(wanted, true);
    });
    return {
      element,
      /** Draw anew: at first, when the width or the theme has changed. */
      draw() {
        drawn?.plot.destroy();
        hide();
        drawn = panel(host, spec, lines, resolved());
        spots = null;
        host.append(ring, tip);
      },
      close: () => drawn?.plot.destroy(),
    };
  }

  // A panel as a picture of its own: what stands around it on the page is in it

  const PIXELS = 2; // to a point
  const WIDTH = 760;
  const MARGIN = 20;
  const LINE = 19;
  const LONGEST = 140; // characters of a name
  const cut = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text);

  /** What stands above and below the panel: texts with their places, in points. */
  function words(spec, lines, width, top) {
    const view = document.querySelector("section.view:not([hidden]) h2").textContent.trim();
    const below = top + HEIGHT;
    return [
      { text: spec.title, x: MARGIN, y: 32, font: "600 15px" },
      { text: [view, spec.said].filter(Boolean).join(" · "), x: MARGIN, y: 50, font: "12px" },
      ...lines.map(({ name, of }, n) => ({ text: cut(`${name} · ${of}`), x: MARGIN + 42, y: 74 + LINE * n, font: "12px" })),
      { text: spec.y.title, x: MARGIN, y: top - 2, font: "12px", muted: true },
      { text: spec.x.title, x: MARGIN + width / 2, y: below + 14, font: "12px", muted: true, align: "center" },
      { text: tokrig.share.source(location.search), x: MARGIN, y: below + 42, font: "11px", muted: true },
    ];
  }

  async function savePng(spec, lines) {
    const paint = resolved();
    const type = "system-ui, sans-serif";
    const top = 74 + LINE * lines.length + 10;
    const texts = words(spec, lines, WIDTH, top);
    const canvas = document.createElement("canvas");
    const pen = canvas.getContext("2d");
    const widest = texts.map(({ text, font, x }) => {
      pen.font = `${font} ${type}`;
      return x + pen.measureText(text).width + MARGIN;
    });
    const zoom = PIXELS / uPlot.pxRatio;
    const host = make("div", { hidden: true });
    document.body.append(host);
    const drawn = panel(host, spec, lines, paint, WIDTH, zoom);
    // uPlot draws a moment after it was made.
    while (drawn.plot.status !== 1) await new Promise(requestAnimationFrame);
    canvas.width = PIXELS * Math.ceil(Math.max(WIDTH + 2 * MARGIN, ...widest));
    canvas.height = PIXELS * (top + HEIGHT + 56);
    pen.scale(PIXELS, PIXELS);
    pen.fillStyle = getComputedStyle(document.documentElement).backgroundColor;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(drawn.plot.ctx.canvas, MARGIN, top, WIDTH, HEIGHT);
    drawn.plot.destroy();
    host.remove();
    for (const { text, x, y, font, muted, align } of texts) {
      pen.font = `${font} ${type}`;
      pen.fillStyle = muted ? paint.muted : paint.ink;
      pen.textAlign = align ?? "left";
      pen.fillText(text, x, y);
    }
    lines.forEach(({ number }, n) => {
      pen.save();
      pen.translate(MARGIN + 17, 70 + LINE * n);
      pen.strokeStyle = pen.fillStyle = paint.series[number];
      pen.lineWidth = 2;
      pen.setLineDash(DASHES[number]);
      pen.beginPath();
      pen.moveTo(-17, 0);
      pen.lineTo(17, 0);
      pen.stroke();
      pen.fill(shapes[number]);
      pen.restore();
    });
    return tokrig.share.saveCanvas(canvas, spec.title);
  }

  tokrig.curves = { ...(tokrig.curves ?? {}), figure, savePng, swatch, fast: facts.fast };
}
