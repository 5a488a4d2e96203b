// The tables of all results, drawn: heads, lines, families, pages.
"use strict";

{
  const { make, data, picks, view } = tokrig;
  const { count } = tokrig.words;
  const { rows, runs } = data;
  const { table, isLatency, facts, how, modelOf, rigOf, waits } = view;
  const { lines, sorted, grouped, isDropped, rankable, rankWords, strange } = tokrig.lines;
  const { all: columns, single } = tokrig.columns;
  const status = document.getElementById("status");
  const pager = document.getElementById("pager");

  // What a browser draws at once: more than that takes it longer than a reader would wait.
  const MOST_LINES = 100; // in one view; more come page by page
  const PAGE_LINES = 50;
  const PAGE_GROUPS = 10;
  const GROUP_LINES = 3; // of a family, where there are several on a page

  // Columns: those of the page as it came, and those that can be added

  const heads = new Map();
  const more = document.getElementById("columns")?.content.querySelectorAll("th") ?? [];
  for (const head of [...table.tHead.querySelectorAll("[data-sort]"), ...more]) {
    heads.set(head.dataset.sort, head);
    if (columns[head.dataset.sort].key) makeSortable(head);
  }
  view.columnNames = () => [...heads.keys()];
  view.labelOf = (name) => heads.get(name).textContent.trim();
  view.isNumber = (name) => heads.get(name).classList.contains("num");
  const shownColumns = () => {
    const asked = view.state.columns.split(",");
    const found = [...heads.keys()].filter((name) => asked.includes(name));
    return found.includes("variant") && (isLatency || found.includes("gen")) ? found : view.DEFAULTS.columns.split(",");
  };
  view.headings = () => shownColumns().map((name) => [name, view.labelOf(name)]);

  function makeSortable(head) {
    const name = head.dataset.sort;
    const label = head.firstElementChild;
    const term = label.dataset.term;
    const button = make("button", { type: "button", class: term ? "sort term" : "sort", "data-term": term }, label.textContent);
    label.replaceWith(button);
    button.addEventListener("click", () => {
      const { isBigFirst } = columns[name];
      const usual = (isBigFirst ? "-" : "") + name;
      view.go({ sort: view.state.sort === usual ? (isBigFirst ? name : `-${name}`) : usual });
    });
  }

  function drawHeads(names) {
    const [, minus, sort] = /^(-?)(.*)$/.exec(view.state.sort);
    for (const [name, head] of heads) {
      if (name === sort) head.setAttribute("aria-sort", minus ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const row = table.tHead.rows[0];
    row.replaceChildren(row.cells[0], ...names.map((name) => heads.get(name)));
    table.style.setProperty("--columns", names.length);
    table.classList.toggle("many", names.length > 7 && !isLatency);
  }

  // Lines

  function pickCell(line) {
    const shape = single(line) === null ? "" : `~${data.shapes[rows.shape[single(line)]]}`;
    const pick = `${runs.id[line.run]}~${line.concurrency}${shape}`;
    const where = [rigOf(line.run)[0], facts.backend(line.run)[0], how(line), runs.apart[line.run]].filter(Boolean);
    const what = isLatency ? `, ${data.shapes[rows.shape[line.rows[0]]]}` : "";
    const name = `${modelOf(line.run)[3]} ${facts.quant(line.run)[0]} on ${where.join(", ")}${what}, ${line.concurrency} at once`;
    const box = make("input", { type: "checkbox", "data-pick": pick, "aria-label": `Compare ${name}` });
    return make("td", { class: "pick" }, box, tokrig.rowMenu(name));
  }

  function familyRow(group, closed, width) {
    const [label, slug, released] = group.family;
    const results = group.lines.reduce((sum, line) => sum + line.rows.length, 0);
    const button = make("button", { type: "button", class: "fold", "aria-expanded": String(!closed) }, label);
    button.addEventListener("click", () => {
      const others = view.state.closed.split(",").filter((one) => one && one !== slug);
      view.go({ closed: (closed ? others : [...others, slug]).sort().join(","), page: view.state.page }, false);
      table.querySelector(`[data-family="${CSS.escape(slug)}"] .fold`)?.focus();
    });
    const head = make("th", { colspan: String(width), scope: "rowgroup" });
    head.append(make("span", { class: "name" }, button), " ", make("span", { class: "count" }, count(results, "result")));
    if (released) head.append(" ", make("span", { class: "released" }, `released ${released}`));
    return make("tr", { class: "family" }, head);
  }

  function groupBody(group, isOneOfMany, place, names) {
    const slug = group.family?.[1] ?? "";
    const closed = Boolean(slug) && view.state.closed.split(",").includes(slug);
    const body = make("tbody", slug ? { "data-family": slug } : {});
    if (group.family) body.append(familyRow(group, closed, names.length + 1));
    if (closed) return body;
    const shown = group.part ?? group.lines;
    const inOrder = !isLatency && view.state.shape && view.state.sort === "-gen";
    // Of the whole list: what is on another page may be tied with what is on this one.
    const tied = rankWords(inOrder ? rankable(group.lines.map((line) => line.rows[0])) : []);
    for (const line of shown) {
      const [row] = line.rows;
      const beside = { ...place, tied: tied.get(row), rank: place.ranks.get(row) };
      const cells = names.map((name) => columns[name].cell(line, beside));
      cells.forEach((cell, number) => {
        if (cell.classList.contains("extra")) cell.dataset.label = view.labelOf(names[number]);
      });
      body.append(make("tr", {}, pickCell(line), ...cells));
    }
    if (isOneOfMany && shown.length < group.lines.length) {
      const all = make("button", { type: "button", class: "quiet" }, `All ${count(group.lines.length, "line")} of ${group.family[0]}`);
      all.addEventListener("click", () => view.go({ family: slug }));
      body.append(make("tr", { class: "more" }, make("td", { colspan: String(names.length + 1) }, all)));
    }
    return body;
  }

  /** A few lines of a family: in the order of sizes one of each model, else the first; one's own. */
  function overview(group) {
    const few = new Set(firstOf(group));
    return group.lines.filter((line) => few.has(line) || isDropped(line.run));
  }
  function firstOf(group) {
    if (view.state.sort !== "-parameters") return group.lines.slice(0, GROUP_LINES);
    const seen = new Set();
    const firsts = group.lines.filter(({ run }) => !seen.has(runs.model[run]) && seen.add(runs.model[run]));
    return firsts.slice(0, GROUP_LINES);
  }

  /** What is drawn now, in order: whole groups, or the part of each that its page has room for. */
  function onPage(groups, inOrder, number) {
    const total = groups.reduce((sum, group) => sum + group.lines.length, 0);
    const ordered = (list) => list.map((group) => ({ ...group, lines: inOrder(group.lines) }));
    if (total <= MOST_LINES) return { page: 1, pages: 1, shown: ordered(groups) };
    const several = groups.length > 1;
    const pages = Math.ceil(several ? groups.length / PAGE_GROUPS : total / PAGE_LINES);
    const page = Math.min(Math.max(1, number), pages);
    const part = (list, size) => list.slice((page - 1) * size, page * size);
    const shown = ordered(several ? part(groups, PAGE_GROUPS) : groups);
    for (const group of shown) group.part = several ? overview(group) : part(group.lines, PAGE_LINES);
    return { page, pages, shown };
  }

  /** Of waits, which all are of one shape, load and length of prompt. */
  function waitRanks(all) {
    if (!isLatency) return new Map();
    const shortest = sorted(all, columns.ttft.key, false).map((line) => line.rows[0]);
    return rankWords(rankable(shortest, waits), waits);
  }

  /** What passes the filters, as lines; ``ranks`` of waits by row; ``said`` is how much it is. */
  let filtered = { by: null, lines: [], ranks: new Map(), said: "" };

  function drawTable(all) {
    const names = shownColumns();
    const isDown = view.state.sort.startsWith("-");
    const key = columns[view.state.sort.replace("-", "")]?.key ?? columns.gen.key;
    const inOrder = (lines) => sorted(lines, key, isDown);
    const { page, pages, shown } = onPage(grouped(all), inOrder, Number.parseInt(view.state.page, 10) || 1);
    const fastest = all.reduce((most, line) => Math.max(most, line.high ?? 0), 0) || 1;
    const place = { fastest, ranks: filtered.ranks };
    const bodies = shown.map((group) => groupBody(group, shown.length > 1, place, names));
    if (!all.length) {
      const cell = make("td", { colspan: String(names.length + 1) }, nothing());
      bodies.push(make("tbody", {}, make("tr", { class: "empty" }, cell)));
    }
    for (const body of [...table.tBodies]) body.remove();
    drawHeads(names);
    table.append(...bodies);
    drawPager(page, pages);
  }

  function nothing() {
    if (!runs.id.length) return "No results yet. tokrig run measures this machine and adds the first.";
    const words = strange();
    const named = words.length ? ` Nothing here is called ${words.map((word) => `“${word}”`).join(" or ")}.` : "";
    return `No result passes these filters.${named}`;
  }

  function drawPager(page, pages) {
    pager.hidden = pages < 2;
    const step = (label, to) => {
      const button = make("button", { type: "button", disabled: to < 1 || to > pages }, label);
      button.addEventListener("click", () => {
        view.go({ page: String(to) });
        table.scrollIntoView({ block: "start" });
      });
      return button;
    };
    pager.replaceChildren(step("Previous", page - 1), `page ${page} of ${pages}`, step("Next", page + 1));
  }

  const FILTERS = ["q", "shape", "concurrency", "prompt", "validity", ...Object.keys(facts), ...Object.keys(view.sizes)];

  /** ``8 results of 3 runs``: lines of a run follow one another. */
  function counted(all) {
    const results = all.reduce((sum, line) => sum + line.rows.length, 0);
    const of = all.filter((line, place) => line.run !== all[place - 1]?.run).length;
    return `${count(results, "result")} of ${count(of, "run")}`;
  }

  view.show = () => {
    const by = FILTERS.map((name) => view.state[name]).join(" ");
    const isSame = by === filtered.by;
    if (!isSame) {
      const all = lines();
      filtered = { by, lines: all, ranks: waitRanks(all), said: counted(all) };
    }
    drawTable(filtered.lines);
    if (!isSame && !isLatency) tokrig.drawBars();
    tokrig.controls.sync();
    picks.show();
    status.textContent = filtered.said;
  };

  tokrig.controls.draw();
  addEventListener("popstate", () => {
    view.read();
    view.show();
  });
  view.show();
}
