// The index of hardware: sorts, filters and searches its rows; holds them against any card.
// gpus.html?q=…&kind=nvidia&memory=16&beside=<card>&sort=-beside
"use strict";

{
  const { make } = tokrig;
  const { count } = tokrig.words;
  const table = document.getElementById("gpus");
  const form = document.getElementById("filters");
  const status = document.getElementById("status");
  const body = table.tBodies[0];
  const rows = [...body.rows].filter((row) => row.dataset.address);
  const collator = new Intl.Collator("en", { numeric: true });
  const TEXTS = new Set(["name", "engines", "newest"]);
  const headers = [...table.tHead.querySelectorAll("[data-sort]")];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const kinds = { nvidia: "NVIDIA", amd: "AMD", intel: "Intel", apple: "Apple", other: "other", cpu: "no GPU", unknown: "not known" };
  const labels = new Map(rows.map(({ dataset }) => [dataset.address, dataset.label]));
  const first = rows.find((row) => row.querySelector(".beside").textContent.trim() === "the reference")?.dataset.address ?? "";
  const DEFAULTS = { q: "", kind: "", memory: "", beside: first, sort: "-beside" };

  const { state, go, select, search, sync } = tokrig.choices(DEFAULTS, show);

  /** The ratio of a card to the reference, and over how many cells; null where none is shared. */
  const beside = (card) => {
    const other = state.beside;
    const [forth, back] = [tokrig.relative[other]?.[card], tokrig.relative[card]?.[other]];
    return forth ?? (back ? [1 / back[0], back[1]] : null);
  };

  function drawBeside() {
    for (const row of rows) {
      const cell = row.querySelector(".beside");
      const found = beside(row.dataset.address);
      row.dataset.beside = row.dataset.address === state.beside ? "1" : (found?.[0] ?? "");
      if (row.dataset.address === state.beside) cell.replaceChildren("the reference");
      else if (found) cell.replaceChildren(`×${found[0].toFixed(2)} `, make("span", { class: "spread" }, `(${found[1]})`));
      else cell.replaceChildren(make("span", { class: "muted" }, "nothing shared"));
    }
    const name = document.getElementById("reference-name");
    if (name && labels.has(state.beside)) name.textContent = labels.get(state.beside);
  }

  const order = () => {
    const [, minus, name] = /^(-?)(.*)$/.exec(state.sort);
    const sign = minus ? -1 : 1;
    // What is not known stands last, whichever way.
    return (one, other) => {
      const [a, b] = [one.dataset[name] ?? "", other.dataset[name] ?? ""];
      if (!a || !b) return Number(!a) - Number(!b);
      const by = TEXTS.has(name) ? collator.compare(a, b) : Number(a) - Number(b);
      return sign * by || collator.compare(one.dataset.name, other.dataset.name);
    };
  };

  let drawn = "";
  function show() {
    if (drawn !== state.beside) drawBeside();
    drawn = state.beside;
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const least = Number(state.memory) || 0;
    const passes = ({ dataset }, text) =>
      (!state.kind || dataset.kind === state.kind) &&
      (!least || (dataset.kind !== "cpu" && Number(dataset.gb) >= least)) &&
      words.every((word) => text.includes(word));
    let shown = 0;
    for (const row of rows) {
      row.hidden = !passes(row, texts.get(row));
      shown += Number(!row.hidden);
    }
    const sorted = [...rows].sort(order());
    if (sorted.some((row, place) => row !== body.rows[place])) body.append(...sorted);
    const [, minus, name] = /^(-?)(.*)$/.exec(state.sort);
    for (const header of headers) {
      if (header.dataset.sort === name) header.setAttribute("aria-sort", minus ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
    }
    if (rows.length) sync(form);
    status.textContent = shown === rows.length ? "" : `${shown} of ${count(rows.length, "card")}`;
  }

  const there = [...new Set(rows.map((row) => row.dataset.kind))].sort();
  form.append(
    search("q", "Search", "name, engine, model"),
    select("kind", "Vendor", [["all vendors", ""], ...there.map((kind) => [kinds[kind] ?? kind, kind])]),
    select("memory", "GPU memory", [["any", ""], ...[8, 12, 16, 24, 32, 48, 80, 96].map((gb) => [`${gb} GB or more`, String(gb)])]),
    ...(first ? [select("beside", "Beside", [...labels].map(([address, label]) => [label, address]))] : []),
  );

  for (const header of headers) {
    const label = header.querySelector(".term");
    const properties = label ? { class: "sort term", "data-term": label.dataset.term } : { class: "sort" };
    const button = make("button", { type: "button", ...properties }, header.textContent);
    const usual = TEXTS.has(header.dataset.sort) && header.dataset.sort !== "newest" ? header.dataset.sort : `-${header.dataset.sort}`;
    const other = usual.startsWith("-") ? usual.slice(1) : `-${usual}`;
    button.addEventListener("click", () => go({ sort: state.sort === usual ? other : usual }));
    header.replaceChildren(button);
  }
  show();
}
