// Bars by workload, under the same filters as the table.
"use strict";

tokrig.drawBars = () => {
  const { make, data, view } = tokrig;
  const { NULL, rate } = tokrig.words;
  const { runs, rows } = data;
  const { facts, how, modelOf, rigOf } = view;
  const { rankable, rankWords, passing } = tokrig.lines;
  const { marks, runLink } = tokrig.columns;
  const MOST_BARS = 12;

  /** Valid rows with a rate at one concurrency that pass the filters on runs, by shape. */
  function rowsByShape(concurrency) {
    const passes = passing();
    const found = data.shapes.map(() => []);
    for (let row = 0; row < rows.run.length; row++) {
      const counts = rows.run[row] < data.published && passes[rows.run[row]]; // files of one's own have no bar
      if (counts && rows.concurrency[row] === concurrency && rows.valid[row] && rows.gen[row] !== null) {
        found[rows.shape[row]].push(row);
      }
    }
    return found;
  }

  const isFaster = (row, other) =>
    rows.gen[row] > rows.gen[other] ||
    (rows.gen[row] === rows.gen[other] && runs.id[rows.run[row]] < runs.id[rows.run[other]]);

  /** The fastest few of many, in order; sorting all of them would take far longer. */
  function fastestOf(found, most) {
    const best = [];
    for (const row of found) {
      if (best.length === most && !isFaster(row, best[most - 1])) continue;
      const place = best.findIndex((other) => isFaster(row, other));
      best.splice(place < 0 ? best.length : place, 0, row);
      if (best.length > most) best.pop();
    }
    return best;
  }

  function bar(row, rank, fastest) {
    const run = rows.run[row];
    const quant = facts.quant(run)[0];
    const line = { run, rows: [row], invalid: 0 };
    const parts = [quant === NULL ? "" : quant, rigOf(run)[0], facts.backend(run)[0], how(line), runs.apart[run]];
    const detail = parts.filter(Boolean).join(" · ");
    const fill = make("span");
    fill.style.setProperty("--to", (rows.gen[row] / fastest).toFixed(4));
    return make(
      "li", {},
      make("span", { class: "rank" }, rank),
      make("span", { class: "what" }, runLink(run, modelOf(run)[3]), " ", make("span", { class: "muted" }, detail), ...marks(line)),
      make("span", { class: "figure" }, `${rate(rows.gen[row])} tok/s`),
      make("span", { class: "bar", "aria-hidden": "true" }, fill),
    );
  }

  function drawShape(section, found) {
    const shown = fastestOf(found, MOST_BARS);
    // One more than there are bars: the last may be tied with it.
    const ranked = rankWords(fastestOf(rankable(found), MOST_BARS + 1));
    const items = shown.map((row) => bar(row, ranked.get(row) ?? "", rows.gen[shown[0]]));
    if (!items.length) items.push(make("li", { class: "empty" }, "No valid result passes these filters."));
    section.querySelector("ol").replaceChildren(...items);
    const left = section.querySelector(".left-out");
    left.hidden = found.length <= MOST_BARS;
    left.textContent = `${found.length - shown.length} slower ones are in the table.`;
  }

  const concurrency = view.state.concurrency === "all" ? (view.CONCURRENCIES[0] ?? 1) : Number(view.state.concurrency);
  const found = rowsByShape(concurrency);
  // By place, as both have one order: HTML changes some characters of a name.
  document.querySelectorAll("[data-shape]").forEach((section, number) => {
    section.hidden = Boolean(view.state.shape) && view.state.shape !== data.shapes[number];
    if (!section.hidden) drawShape(section, found[number] ?? []);
  });
  const title = document.querySelector("#by-workload .muted");
  if (title) title.textContent = `concurrency ${concurrency}`;
};
