// Two cards side by side: every cell that both have, the ratios, what only one of them has.
// versus.html?a=<card or rig>&b=…&metric=prefill_tok_per_s&shape=…&concurrency=4&build=same&sort=…&q=…
"use strict";

{
  const { make, renew, cells, data, rules, statistics, url } = tokrig;
  const { cards, compareLink, find, link, rows, rowsOf, said, side, unusual, words, PLAIN, shapes } = tokrig.cards;
  const { NULL, byShape, count, isKnown, rate, time } = tokrig.words;
  const MOST = 40;
  // Label, name among the rules, whether more is better, how the answer says it.
  const METRICS = {
    gen: ["Decode", "output_tok_per_s", true, ["decodes", "as fast as"]],
    prefill_tok_per_s: ["Prefill", "prefill_tok_per_s", true, ["reads prompts", "as fast as"]],
    ttft_s: ["TTFT", "ttft_s", false, ["takes", "as long to the first token as"]],
  };
  const BUILDS = [["any", ""], ["same build", "same"], ["same build and API", "api"]];
  const DEFAULTS = { a: "", b: "", metric: "gen", shape: "", concurrency: "1", build: "", sort: "", q: "" };
  const collator = new Intl.Collator("en", { numeric: true });
  const [place, status, form, pair] = ["versus", "status", "filters"].map((id) => document.getElementById(id)).concat(document.querySelector("form.pair"));
  const times = (value) => `×${value >= 100 ? value.toFixed(0) : value.toFixed(2)}`;

  const { state, query, go, select, search, sync } = tokrig.choices(DEFAULTS, show);

  // What is asked for

  /** The card or machine of an address, or what is to be said instead. */
  function resolve(name) {
    const text = state[name];
    if (!text) return { problem: [] };
    const found = find(text);
    if (found.length === 1) return { card: found[0] };
    if (!found.length) return { problem: [`No card or machine here is called “${text}”. `, link("gpus.html", "All of them"), ". "] };
    const links = found.flatMap((one) => [" ", make("a", { href: query({ [name]: one.address }) }, said(one.label)), ";"]);
    return { problem: [`“${text}” is ${found.length} cards here: `, ...links.slice(0, -1), ". "] };
  }

  // Cells

  const key = (row) => {
    const run = rows.run[row];
    return [data.runs.model[run], data.runs.quant[run], data.runs.mode[run], rows.shape[row], rows.concurrency[row]].join();
  };

  /** The rows of a side by cell, what stands for the card first. */
  const cellsOf = new Map();
  function byCell(card) {
    if (cellsOf.has(card.address)) return cellsOf.get(card.address);
    const found = new Map();
    cellsOf.set(card.address, found);
    for (const row of rowsOf(card)) {
      const name = key(row);
      if (!found.has(name)) found.set(name, []);
      found.get(name).push(row);
    }
    for (const list of found.values()) list.sort((a, b) => rows.place[a] - rows.place[b] || a - b);
    return found;
  }

  const SAME = {
    "": () => true,
    same: (a, b) => words.build(a) !== NULL && words.engine(a) === words.engine(b) && words.build(a) === words.build(b),
    api: (a, b) => SAME.same(a, b) && words.api(a) === words.api(b),
  };
  const sameTexts = (a, b) => rows.texts[a] === rows.texts[b] && rows.texts[a] >= 0;
  const isOne = (a, b) => sameTexts(a, b) && statistics.ofOneLength(rows.prompt[a], rows.prompt[b]);

  /** The first two rows, in their order, that may be divided; without such the first two, and why
   * not; null where no two are of one build and that is asked for. */
  function choose(ofA, ofB, isSame) {
    let other = null;
    for (const a of ofA) {
      for (const b of ofB) {
        if (!isSame(a, b)) continue;
        if (isOne(a, b)) return { a, b, why: "" };
        other ??= { a, b, why: sameTexts(a, b) ? "prompts of another length" : "texts not known to be the same" };
      }
    }
    return other;
  }

  let sides = { of: null };
  /** Everything that does not depend on the filters: cells of both sides, those that are on both. */
  function beside(a, b) {
    const of = [a.address, b.address, state.build].join(" ");
    if (sides.of === of) return sides;
    const [ofA, ofB] = [byCell(a), byCell(b)];
    const isSame = SAME[state.build] ?? SAME[""];
    const both = [];
    for (const [name, list] of ofA) {
      const chosen = ofB.has(name) && choose(list, ofB.get(name), isSame);
      if (chosen) both.push({ ...chosen, text: `${words.model(chosen.a)} ${words.quant(chosen.a)} ${words.mode(chosen.a)}`.toLowerCase() });
    }
    sides = { of, ofA, ofB, both };
    return sides;
  }

  const noise = (row) => rules.noise[data.rigs[data.runs.rig[rows.run[row]]][1]] ?? {};
  const hasSource = ({ a, b }) => cells.runs.source[rows.run[a]] === cells.runs.source[rows.run[b]];

  /** Every shown cell with its ratio, A / B. All intervals shown together are right in 95 of 100. */
  function rated(both) {
    const [, name, isHigher] = METRICS[state.metric];
    const usable = both.map((one) => ({
      ...one,
      why: one.why || (state.metric === "prefill_tok_per_s" && !hasSource(one) ? "prefill rates by other clocks" : ""),
      of: [side(one.a, state.metric), side(one.b, state.metric)],
    }));
    const isRated = ({ why, of }) => !why && of.every(({ metric }) => metric.median > 0);
    const tests = usable.filter((one) => isRated(one) && one.of.every(statistics.ofStarts)).length;
    return usable.map((one) => {
      const least = statistics.leastEffect(name, [noise(one.a), noise(one.b)]);
      return { ...one, ratio: isRated(one) ? statistics.ratio(...one.of, isHigher, Math.max(tests, 1), least) : null };
    });
  }

  // Words

  const verdictWord = ({ verdict }) => verdict.replaceAll("_", " ");
  const figure = (value) => (state.metric === "ttft_s" ? time(value) : rate(value));

  function drawAnswer(list, a, b) {
    const ratios = list.filter(({ ratio }) => ratio).map(({ ratio }) => ratio.value);
    const answer = document.getElementById("answer");
    if (!ratios.length) return answer.replaceChildren("Nothing that both have measured is shown here.");
    const mean = statistics.geometricMean(ratios);
    const verdicts = (wanted) => list.filter(({ ratio }) => ratio?.verdict === wanted).length;
    const counts = ["faster", "slower", "not_distinguishable", "inconclusive"].map((one) => [verdicts(one), one]).filter(([n]) => n);
    const [does, as] = METRICS[state.metric][3];
    answer.replaceChildren(
      said(a.label), ` ${does} `, make("strong", {}, `${times(mean).slice(1)} times`), ` ${as} `, said(b.label),
      ratios.length > 1 ? `: geometric mean over ${ratios.length} identical cells, from ${times(Math.min(...ratios))} to ${times(Math.max(...ratios))}` : ", in the one cell that both have",
      `. ${counts.map(([n, one]) => `${n} ${one.replaceAll("_", " ")}`).join(", ")}.`,
    );
  }

  /** A geometric mean of one quotient of both sides, over the cells where it is known. */
  function meanOf(list, quotient) {
    const found = list.filter(({ why }) => !why).map(({ a, b }) => quotient(a) / quotient(b)).filter((one) => Number.isFinite(one) && one > 0);
    return found.length ? `×${statistics.geometricMean(found).toFixed(2)} over ${count(found.length, "cell")}` : NULL;
  }

  function drawFacts(list, a, b) {
    const limit = (row) => cells.runs.limit[rows.run[row]];
    const perWatt = meanOf(list, (row) => rows.gen[row] / limit(row));
    const joules = meanOf(list, (row) => (row < PLAIN ? rows.joules[row] : null));
    const lines = [
      ["memory", a.memory, b.memory],
      ["bandwidth", a.bandwidth, b.bandwidth],
      ["power limit", a.power, b.power],
      ["machines", ...[a, b].map(({ rig, rigs }) => (rig ? [rig] : rigs).flatMap((id, n) => [...(n ? [", "] : []), link(`rigs/${encodeURIComponent(id)}.html`, id)]))],
    ];
    const cell = (told) => make("td", {}, ...(Array.isArray(told) ? told : [said(told || NULL)]));
    const body = lines.map(([name, ...told]) => make("tr", {}, make("th", { scope: "row" }, name), ...told.map(cell)));
    const both = [["decode per watt of limit, A beside B", perWatt], ["measured J/token, A beside B", joules]].filter(([, told]) => told !== NULL);
    body.push(...both.map(([name, told]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { colspan: "2" }, told))));
    const head = make("tr", {}, make("td", {}), ...[["A", a], ["B", b]].map(([name, { label }]) => make("th", { scope: "col" }, `${name}: `, said(label))));
    document.getElementById("facts").replaceChildren(
      make("table", { class: "pairfacts" }, make("caption", { class: "unseen" }, "Both cards"), make("thead", {}, head), make("tbody", {}, ...body)),
    );
  }

  // The table, in which the picture is a column: a forest of ratios on one logarithmic scale

  function forest(ratio, reach) {
    const at = (value) => `${(50 + (50 * Math.log(value)) / reach).toFixed(2)}%`;
    const [low, high] = [ratio.low ?? ratio.value, ratio.high ?? ratio.value];
    const [span, point] = [make("span", { class: "span" }), make("span", { class: "point" })];
    span.style.left = at(low);
    span.style.right = `calc(100% - ${at(high)})`;
    point.style.left = at(ratio.value);
    return make("span", { class: `forest ${ratio.verdict}`, "aria-hidden": "true" }, make("span", { class: "one" }), span, point);
  }

  function figureCell(row, letter) {
    const told = [words.backend(row), unusual(row), rows.valid[row] === 2 ? "unverified" : "", words.date(row)].filter(Boolean).join(" · ");
    return make(
      "td",
      { class: "num", "data-label": letter },
      link(`runs/${words.id(row)}.html`, figure(rows[state.metric][row])),
      make("span", { class: "spread" }, said(told)),
    );
  }

  const isOtherFile = ({ a, b }) => {
    const [one, other] = [a, b].map((row) => cells.runs.file[rows.run[row]]);
    return one >= 0 && other >= 0 && one !== other;
  };

  function ratioCell({ a, b, why, ratio }) {
    if (!ratio) return make("td", { class: "num", "data-label": "A/B" }, make("span", { class: "muted" }, why || "not known of both"));
    const interval = ratio.low === null ? "" : `${ratio.low.toFixed(2)}–${ratio.high.toFixed(2)}`;
    return make(
      "td",
      { class: "num", "data-label": "A/B" },
      link(compareLink(b, a), times(ratio.value)),
      make("span", { class: "spread", title: ratio.settle || null }, [interval, verdictWord(ratio)].filter(Boolean).join(" ")),
    );
  }

  function line(one, reach) {
    const mode = words.mode(one.a);
    const beside = [words.quant(one.a), mode, isOtherFile(one) ? "files differ" : ""].filter((text) => text && text !== NULL).join(" · ");
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, link(`models/${data.models[data.runs.model[rows.run[one.a]]][2]}.html`, said(words.model(one.a))), make("span", { class: "spread" }, said(beside))),
      make("td", { "data-label": "shape" }, words.shape(one.a)),
      figureCell(one.a, "A"),
      figureCell(one.b, "B"),
      ratioCell(one),
      make("td", { class: "picture" }, ...(one.ratio ? [forest(one.ratio, reach)] : [])),
    );
  }

  const ORDERS = {
    model: (one, other) => collator.compare(words.model(one.a), words.model(other.a)) || collator.compare(words.quant(one.a), words.quant(other.a)) || rows.shape[one.a] - rows.shape[other.a] || rows.concurrency[one.a] - rows.concurrency[other.a],
    a: (one, other) => (rows[state.metric][one.a] ?? 0) - (rows[state.metric][other.a] ?? 0),
    b: (one, other) => (rows[state.metric][one.b] ?? 0) - (rows[state.metric][other.b] ?? 0),
    ratio: (one, other) => (one.ratio?.value ?? 0) - (other.ratio?.value ?? 0),
    "": (one, other) => (data.models[data.runs.model[rows.run[other.a]]][4] ?? 0) - (data.models[data.runs.model[rows.run[one.a]]][4] ?? 0) || ORDERS.model(one, other),
  };

  let most = MOST;
  function drawCells(list) {
    const [, minus, name] = /^(-?)(.*)$/.exec(state.sort);
    const by = ORDERS[name] ?? ORDERS[""];
    const ordered = [...list].sort((one, other) => (minus ? by(other, one) : by(one, other)));
    const ends = ordered.filter(({ ratio }) => ratio).flatMap(({ ratio }) => [ratio.value, ratio.low ?? 1, ratio.high ?? 1].map((one) => Math.abs(Math.log(one))));
    const reach = 1.05 * Math.max(Math.log(1.25), ...ends);
    const head = (id, label, extra) => {
      const button = make("button", { type: "button", class: "sort", name: `sort-${id}` }, label);
      button.addEventListener("click", () => go({ sort: state.sort === `-${id}` ? id : state.sort === id ? `-${id}` : id === "model" ? id : `-${id}` }));
      const sorted = name === id ? { "aria-sort": minus ? "descending" : "ascending" } : {};
      return make("th", { scope: "col", ...extra, ...sorted }, button);
    };
    const table = make(
      "table",
      { class: "cells" },
      make("caption", { class: "unseen" }, "Cells that both have, with the ratio of A to B"),
      make("thead", {}, make("tr", {}, head("model", "Model"), make("th", { scope: "col" }, "Shape"), head("a", "A", { class: "num" }), head("b", "B", { class: "num" }), head("ratio", "A/B", { class: "num" }), make("td", { class: "picture" }, make("span", { class: "scale", "aria-hidden": "true" }, make("span", {}, "B faster"), make("span", {}, "A faster"))))),
      make("tbody", {}, ...ordered.slice(0, most).map((one) => line(one, reach))),
    );
    if (state.metric === "ttft_s") table.querySelector(".scale").replaceChildren(make("span", {}, "A faster"), make("span", {}, "B faster"));
    const parts = list.length ? [table] : [make("p", {}, "Nothing that both have passes these filters.")];
    if (ordered.length > most) {
      const all = make("button", { type: "button" }, `All ${count(ordered.length, "cell")}`);
      all.addEventListener("click", () => {
        most = Infinity;
        show();
        document.querySelectorAll(".cells tbody th a")[MOST].focus();
      });
      parts.push(all);
    }
    renew(document.getElementById("cells"), ...parts);
    const lacking = list.filter(({ ratio }) => ratio?.settle.startsWith("engine starts")).length;
    document.getElementById("count").textContent = `${count(list.length, "cell")}.${lacking ? ` ${lacking} of too few starts for a verdict: ${rules.starts_needed} are needed on each side.` : ""}`;
  }

  // What only one has

  function drawOnly(a, b, { ofA, ofB }) {
    const modelOf = (name) => name.split(",", 2).join();
    const models = (of) => new Map([...of].map(([name, [row]]) => [modelOf(name), row]));
    const [onA, onB] = [models(ofA), models(ofB)];
    const part = (title, here, there, card) => {
      const lone = [...here].filter(([name]) => !there.has(name)).map(([, row]) => row);
      const told = lone.map((row) => ({ row, needs: cells.runs.needs[rows.run[row]] }));
      const room = card.bytes ?? (card.kind === "cpu" ? null : undefined);
      const isBig = ({ needs }) => isKnown(room) && isKnown(needs) && needs * 1e7 > room;
      told.sort((one, other) => Number(isBig(other)) - Number(isBig(one)) || (other.needs ?? 0) - (one.needs ?? 0));
      const item = (one) => make("li", {}, link(`runs/${words.id(one.row)}.html`, said(`${words.model(one.row)} ${words.quant(one.row)}`)), " ",
        isBig(one) ? make("span", { class: "state does_not_fit" }, `needs ${(one.needs / 100).toFixed(1)} GB`) : make("span", { class: "muted" }, isKnown(one.needs) ? `not measured there; needs ${(one.needs / 100).toFixed(1)} GB` : "not measured there"));
      const items = told.map(item);
      const rest = items.splice(20);
      const big = told.filter(isBig).length;
      const lead = told.length ? `${count(told.length, "model")} with its quant${big ? `, ${big} of which ${big === 1 ? "is" : "are"} too large for ${card.label}` : ""}.` : "Nothing.";
      return make("div", {}, make("h3", {}, said(title)), make("p", {}, said(lead)), make("ul", {}, ...items),
        ...(rest.length ? [make("details", {}, make("summary", {}, `${rest.length} more`), make("ul", {}, ...rest))] : []));
    };
    document.getElementById("lonely").replaceChildren(part(`Only on ${a.label}`, onA, onB, b), part(`Only on ${b.label}`, onB, onA, a));
  }

  // All of it

  function drawForm(both) {
    const there = [...new Set(both.map(({ a }) => shapes[rows.shape[a]]))].sort(byShape);
    const levels = [...new Set(both.map(({ a }) => rows.concurrency[a]))].sort((one, other) => one - other);
    const swap = make("button", { type: "button", name: "swap" }, "Swap A and B");
    swap.addEventListener("click", () => go({ a: state.b, b: state.a }));
    renew(
      form,
      search("q", "Search", "model or quant"),
      select("metric", "Figure", Object.entries(METRICS).map(([value, [label]]) => [label, value])),
      select("shape", "Shape", [["all shapes", ""], ...there.map((one) => [one, one])]),
      select("concurrency", "Concurrency", [...levels.map((one) => [String(one), String(one)]), ["all", "all"]]),
      select("build", "Build", BUILDS),
      swap,
    );
  }

  /** What intervals of other figures than decode rates are made from, loaded when first wanted. */
  const wanted = new Set(["gen"]);
  function fetchStarts(metric) {
    if (wanted.has(metric)) return;
    wanted.add(metric);
    document.head.append(make("script", { src: url(`assets/starts-${metric}.js`), onload: show }));
  }

  let drawn = "";
  function show() {
    if (!METRICS[state.metric]) state.metric = DEFAULTS.metric;
    fetchStarts(state.metric);
    const [a, b] = [resolve("a"), resolve("b")];
    for (const [name, { card }] of [["a", a], ["b", b]]) if (card) pair.elements[name].value = card.label;
    const problem = [...(a.problem ?? []), ...(b.problem ?? [])];
    const isSame = a.card && b.card && a.card.address === b.card.address;
    const isReady = a.card && b.card && !isSame;
    place.hidden = !isReady;
    if (!isReady) {
      const one = a.card ?? b.card;
      const ask = isSame ? ["Both are the same: choose another card to hold it against."] : one ? ["Choose the other card for ", said(one.label), "."] : [`Choose two of ${count(cards.length, "card")}.`];
      return status.replaceChildren(...(problem.length ? problem : ask));
    }
    status.replaceChildren();
    document.getElementById("title").replaceChildren(said(a.card.label), " beside ", said(b.card.label));
    const found = beside(a.card, b.card);
    const level = found.both.some((one) => rows.concurrency[one.a] === 1) || state.concurrency !== "1" ? state.concurrency : "all";
    state.concurrency = level;
    const sought = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = found.both.filter(
      (one) =>
        (!state.shape || shapes[rows.shape[one.a]] === state.shape) &&
        (level === "all" || rows.concurrency[one.a] === Number(level)) &&
        sought.every((word) => one.text.includes(word)),
    );
    const list = rated(shown);
    const asked = `${a.card.address} ${b.card.address}`;
    if (drawn !== asked) {
      // Whatever builds are asked for: the choices stay.
      drawForm([...found.ofA].filter(([name]) => found.ofB.has(name)).map(([, [row]]) => ({ a: row })));
      drawOnly(a.card, b.card, found);
      most = MOST;
    }
    drawn = asked;
    sync(form);
    drawAnswer(list, a.card, b.card);
    drawFacts(list, a.card, b.card);
    drawCells(list);
  }

  for (const input of [pair.elements.a, pair.elements.b]) input.addEventListener("focus", () => input.select());
  show();
}
