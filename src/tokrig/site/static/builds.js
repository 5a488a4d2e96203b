// Builds of an engine, one after the other: lines by API, steps judged as Compare judges two runs.
// builds.html?card=<card>|rig=<id>&model=…&quant=…&mode=…&shape=chat&concurrency=1&metric=ttft_s
"use strict";

{
  const { make, renew, cells, data } = tokrig;
  const { cards, compareLink, find, isUsual, link, rows, rowsOf, said, shapes, unusual, words } = tokrig.cards;
  const { load, narrowed, runs } = tokrig.runs;
  const { NULL, byShape, count, rate, time } = tokrig.words;
  const METRICS = { output_tok_per_s: ["Decode", "tok/s"], prefill_tok_per_s: ["Prefill", "tok/s"], ttft_s: ["TTFT", "s"] };
  const DEFAULTS = { card: "", rig: "", model: "", quant: "", mode: "", shape: "", concurrency: "", metric: "output_tok_per_s" };
  const collator = new Intl.Collator("en", { numeric: true });
  const [status, form, answer, place, others, overview] = ["status", "filters", "answer", "history", "others", "overview"].map((id) => document.getElementById(id));
  const { state, select, sync } = tokrig.choices(DEFAULTS, show);

  // Histories: what was measured with two builds of one engine and API or more

  const buildOf = (row) => cells.runs.build[rows.run[row]];
  const lineOf = (row) => `${words.engine(row)}${words.api(row) === NULL ? "" : ` (${words.api(row)})`}`;

  /** By model, quant and mode: the rows of each line by cell and build, the first of its place. */
  function histories(card) {
    const found = new Map();
    for (const row of rowsOf(card)) {
      const run = rows.run[row];
      if (words.build(row) === NULL || !isUsual(row) || rows.texts[row] < 0) continue;
      const name = [data.runs.model[run], data.runs.quant[run], data.runs.mode[run]].join();
      if (!found.has(name)) found.set(name, { model: data.models[data.runs.model[run]], quant: data.quants[data.runs.quant[run]], mode: data.modes[data.runs.mode[run]], cells: new Map() });
      const cell = [rows.shape[row], rows.concurrency[row], rows.texts[row]].join();
      const lines = found.get(name).cells;
      if (!lines.has(cell)) lines.set(cell, new Map());
      const line = lines.get(cell);
      if (!line.has(lineOf(row))) line.set(lineOf(row), new Map());
      const builds = line.get(lineOf(row));
      const old = builds.get(buildOf(row));
      if (old === undefined || rows.place[row] < rows.place[old]) builds.set(buildOf(row), row);
    }
    const several = [...found.values()].filter((one) => most(one) > 1);
    return several.sort((a, b) => most(b) - most(a) || collator.compare(a.model[3], b.model[3]) || collator.compare(a.quant[0], b.quant[0]));
  }
  const buildsIn = (lines) => Math.max(...[...lines.values()].map((builds) => builds.size));
  const most = (one) => Math.max(...[...one.cells.values()].map(buildsIn));
  const ordered = (builds) => [...builds].sort(([a], [b]) => a - b).map(([, row]) => row);

  /** The cell that is asked for, else that of most builds, of one request rather than of several. */
  function cellOf(one) {
    const fits = [...one.cells].filter(([, lines]) => {
      const row = [...[...lines.values()][0].values()][0];
      return (!state.shape || shapes[rows.shape[row]] === state.shape) && (!state.concurrency || rows.concurrency[row] === Number(state.concurrency));
    });
    const level = ([cell]) => Number(cell.split(",")[1]);
    fits.sort((a, b) => buildsIn(b[1]) - buildsIn(a[1]) || level(a) - level(b) || Number(a[0].split(",")[0]) - Number(b[0].split(",")[0]));
    return fits[0]?.[1] ?? null;
  }

  // Steps

  const figureText = (value) => (state.metric === "ttft_s" ? time(value) : rate(value));

  /** What a row's run says of the figure, once its script is here; null where it does not. */
  function figureOf(row) {
    const cell = runs.get(words.id(row))?.cells.find((one) => one.shape === shapes[rows.shape[row]] && one.concurrency === rows.concurrency[row]);
    return cell?.figures[state.metric] ?? null;
  }
  const boundsOf = (figure) => figure?.ci95 ?? (figure && figure.min !== null && figure.n > 1 ? [figure.min, figure.max] : null);

  /** One build against the one before, by the rules of Compare. */
  function step(row, before) {
    const subject = (one) => narrowed({ id: words.id(one), concurrency: rows.concurrency[one], shape: shapes[rows.shape[one]] });
    const found = tokrig.compare(subject(before), subject(row));
    const ratio = found.pairs[0]?.figures.find(({ metric }) => metric === state.metric)?.ratio ?? { value: null, verdict: "none" };
    const beside = found.changed.filter((name) => name !== "build");
    return { row, before, ratio, beside, reason: found.class === "D" ? found.reason : "" };
  }

  function stepCell(one) {
    if (!one) return make("td", { class: "num muted", "data-label": "step" }, "first");
    const { row, before, ratio, beside, reason } = one;
    const to = compareLink(before, row);
    if (ratio.value === null) return make("td", { class: "num", "data-label": "step" }, link(to, "not compared"), make("span", { class: "spread" }, reason));
    const interval = ratio.low === null ? "" : `${ratio.low.toFixed(2)}–${ratio.high.toFixed(2)}`;
    const told = [interval, ratio.verdict.replaceAll("_", " "), beside.length ? `${beside.join(", ")} changed, too` : ""].filter(Boolean).join(" · ");
    return make("td", { class: `num step ${ratio.verdict}`, "data-label": "step" }, link(to, `×${ratio.value.toFixed(2)}`), make("span", { class: "spread", title: ratio.settle || null }, told));
  }

  // The picture

  const NS = "http://www.w3.org/2000/svg";
  const draw = (tag, properties, ...children) => {
    const made = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  function picture(lines, title) {
    const all = [...lines.values()].flat();
    const place = ({ row }) => `${words.engine(row)}\n${String(buildOf(row)).padStart(6, "0")}`;
    const builds = [...new Set(all.map(place))].sort();
    const named = new Map(all.map((one) => [place(one), words.build(one.row)]));
    const ends = all.flatMap(({ figure }) => (figure ? [figure.median, ...(boundsOf(figure) ?? [])] : []));
    if (!ends.length) return null;
    const [low, high] = [Math.min(...ends), Math.max(...ends)];
    const room = (high - low) * 0.12 || high * 0.05;
    const [left, right, top, bottom] = [64, 16, 12, 44];
    const width = Math.max(Math.min(860, overview.closest("main").clientWidth - 40), 84 + builds.length * 56);
    const height = 280;
    const x = (name) => left + ((builds.indexOf(name) + 0.5) * (width - left - right)) / builds.length;
    const y = (value) => top + ((high + room - value) * (height - top - bottom)) / (high - low + 2 * room);
    const parts = [0, 1, 2, 3].map((n) => {
      const value = low + ((high - low) * n) / 3;
      const grid = draw("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "grid" });
      return draw("g", {}, grid, draw("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, figureText(value)));
    });
    const every = Math.ceil(builds.length / 12);
    builds.forEach((name, n) => {
      if (n % every) return;
      const label = named.get(name);
      parts.push(draw("text", { x: x(name), y: height - 22, "text-anchor": "middle" }, label.length > 12 ? `${label.slice(0, 11)}…` : label));
    });
    [...lines].forEach(([, steps], number) => {
      const at = steps.filter(({ figure }) => figure).map((one) => [x(place(one)), one.figure]);
      const group = draw("g", { class: `line-${(number % 6) + 1}` });
      group.append(draw("polyline", { points: at.map(([each, figure]) => `${each},${y(figure.median)}`).join(" "), class: "path" }));
      for (const [each, figure] of at) {
        const bounds = boundsOf(figure);
        if (bounds) group.append(draw("line", { x1: each, x2: each, y1: y(bounds[0]), y2: y(bounds[1]), class: "bound" }));
        group.append(draw("circle", { cx: each, cy: y(figure.median), r: 4.5 }));
      }
      parts.push(group);
    });
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-labelledby": "picture-title", class: "steps" }, draw("title", { id: "picture-title" }, title), ...parts);
    const keys = [...lines.keys()].map((name, number) => make("li", { class: `line-${(number % 6) + 1}` }, name));
    return make("div", {}, make("div", { class: "drawing", tabindex: "0", role: "region", "aria-label": `${title}, drawn` }, svg), make("ul", { class: "keys" }, ...keys));
  }

  // All of it

  function sayAnswer(one, lines) {
    const all = [...lines.values()].flat().filter(({ figure }) => figure);
    if (!all.length) return answer.replaceChildren("None of these builds has this figure.");
    const better = state.metric === "ttft_s" ? -1 : 1;
    const best = all.reduce((a, b) => (better * (b.figure.median - a.figure.median) > 0 ? b : a));
    const named = (row) => (lines.size > 1 ? `${words.build(row)} (${words.api(row)})` : words.build(row));
    const of = (verdict) => all.filter(({ judged }) => judged?.ratio.verdict === verdict).map(({ row }) => named(row));
    const [slower, faster] = [of("slower"), of("faster")];
    const [label] = METRICS[state.metric];
    answer.replaceChildren(
      `${label === "TTFT" ? "Shortest TTFT" : `Fastest ${label.toLowerCase()}`}: `, make("strong", {}, words.build(best.row)), ` ${lineOf(best.row)}, ${figureText(best.figure.median)}${state.metric === "ttft_s" ? "" : " tok/s"}. `,
      slower.length ? `Slower than the build before: ${slower.join(", ")}. ` : "No step is shown to be slower. ",
      faster.length ? `Faster: ${faster.join(", ")}.` : "",
    );
  }

  function table(lines, title) {
    const head = (name) => make("tr", { class: "group" }, make("th", { scope: "rowgroup", colspan: "3" }, name));
    const line = ([, steps]) => steps.map(({ row, figure, judged }) => {
      const bounds = boundsOf(figure);
      const spread = bounds ? `${bounds.map(figureText).join("–")} ${figure.ci95 ? "95 %" : "range"}` : "";
      const told = [unusual(row), rows.valid[row] === 2 ? "unverified" : ""].filter(Boolean).join(" · ");
      return make(
        "tr", {},
        make("th", { scope: "row" }, said(words.build(row)), make("span", { class: "spread" }, words.date(row))),
        make("td", { class: "num" }, link(`runs/${words.id(row)}.html`, figure ? figureText(figure.median) : NULL), make("span", { class: "spread" }, said([spread, told].filter(Boolean).join(" · ")))),
        stepCell(judged),
      );
    });
    return make(
      "table", { class: "builds" },
      make("caption", { class: "unseen" }, title),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Build"), make("th", { scope: "col", class: "num" }, METRICS[state.metric][0]), make("th", { scope: "col", class: "num" }, "Beside the build before"))),
      ...[...lines].map((each) => make("tbody", {}, head(each[0]), ...line(each))),
    );
  }

  let latest = 0;
  async function drawHistory(card, one) {
    const lines = cellOf(one);
    const mine = ++latest;
    if (!lines) {
      answer.replaceChildren("Nothing was measured there with several builds.");
      return place.replaceChildren();
    }
    const wanted = [...lines].map(([name, builds]) => [name, ordered(builds)]).sort(([a], [b]) => collator.compare(a, b));
    await Promise.all(wanted.flatMap(([, list]) => list.map((row) => load(words.id(row)))));
    if (mine !== latest) return; // another one was chosen meanwhile
    const there = wanted.map(([name, list]) => [name, list.filter((row) => runs.has(words.id(row)))]);
    const found = new Map(there.map(([name, list]) => [name, list.map((row, n) => ({ row, figure: figureOf(row), judged: n ? step(row, list[n - 1]) : null }))]));
    const first = wanted[0][1][0];
    const mode = one.mode[1] === "baseline" ? "" : one.mode[0];
    const title = [`${METRICS[state.metric][0]} of ${one.model[3]}`, one.quant[0], mode, words.shape(first), card.label].filter(Boolean).join(" · ");
    sayAnswer(one, found);
    const drawn = picture(found, title);
    place.replaceChildren(make("figure", { class: "chart wide" }, make("figcaption", {}, said(title)), ...(drawn ? [drawn] : []), table(found, title)));
  }

  function drawForm(card, all, one) {
    const named = all.map((each) => [nameOf(each), keyOf(each)]);
    const toModel = (key) => ({ ...addressOf(all.find((each) => keyOf(each) === key)), shape: "", concurrency: "" });
    const rowsIn = [...one.cells.values()].map((lines) => [...[...lines.values()][0].values()][0]);
    const unique = (values) => [...new Set(values)];
    renew(
      form,
      select("history", "Model", named, toModel),
      select("metric", "Figure", Object.entries(METRICS).map(([value, [label]]) => [label, value])),
      select("shape", "Shape", [["most builds", ""], ...unique(rowsIn.map((row) => shapes[rows.shape[row]])).sort(byShape).map((each) => [each, each])]),
      select("concurrency", "Concurrency", [["most builds", ""], ...unique(rowsIn.map((row) => rows.concurrency[row])).sort((a, b) => a - b).map((each) => [String(each), String(each)])]),
    );
    form.elements.history.value = keyOf(one);
    sync(form);
  }
  const nameOf = (one) => [one.model[3], one.quant[0], one.mode[1] === "baseline" ? "" : one.mode[0]].filter(Boolean).join(" · ");
  const keyOf = (one) => [one.model[2], one.quant[1], one.mode[1]].join("~");
  const addressOf = (one) => ({ model: one.model[2], quant: one.quant[1], mode: one.mode[1] === "baseline" ? "" : one.mode[1] });

  /** Every card with histories, and those of one card if given. */
  function drawOverview(list) {
    others.hidden = !list.length;
    const item = ([card, all, name]) =>
      make("li", {}, make("strong", {}, said(card.label)), make("ul", {}, ...all.map((one) => {
        const to = `?${new URLSearchParams({ [name]: card.address, ...Object.fromEntries(Object.entries(addressOf(one)).filter(([, value]) => value)) })}`;
        return make("li", {}, make("a", { href: to }, said(nameOf(one))), make("span", { class: "muted" }, ` ${count(most(one), "build")}`));
      })));
    overview.replaceChildren(make("ul", { class: "histories" }, ...list.map(item)));
  }

  async function show() {
    if (!METRICS[state.metric]) state.metric = DEFAULTS.metric;
    const asked = state.rig || state.card;
    const found = asked ? find(asked) : [];
    const say = (...parts) => status.replaceChildren(...parts);
    say();
    if (found.length !== 1) {
      form.hidden = true;
      answer.replaceChildren();
      place.replaceChildren();
      drawOverview((found.length ? found : cards).map((card) => ({ ...card, rig: null })).map((card) => [card, histories(card), "card"]).filter(([, all]) => all.length));
      if (asked) say(found.length ? `“${asked}” is ${found.length} cards here: choose one below.` : `No card or machine here is called “${asked}”.`);
      else say(others.hidden ? "Nothing was measured with two builds of one engine and API yet." : "Choose what to look at.");
      return;
    }
    const [card] = found;
    const all = histories(card);
    document.getElementById("title").replaceChildren("Builds on ", said(card.label));
    drawOverview(all.length ? [[card, all, state.rig ? "rig" : "card"]] : []);
    const fits = all.filter((one) => (!state.model || one.model[2] === state.model) && (!state.quant || one.quant[1] === state.quant) && (!state.mode || one.mode[1] === state.mode));
    if (!fits.length) {
      form.hidden = true;
      answer.replaceChildren();
      place.replaceChildren();
      const what = [state.model, state.quant, state.mode].filter(Boolean).join(" ");
      return say(all.length ? `Of ${what || "this"} there are no two builds here; below is what there is.` : "Here nothing was measured with two builds of one engine and API yet. ", ...(all.length ? [] : [link("builds.html", "Where there is"), "."]));
    }
    drawForm(card, all, fits[0]);
    await drawHistory(card, fits[0]);
  }

  show();
}
