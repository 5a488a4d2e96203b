// The tables of all results: filters, sorting, groups, paging, with all state in the address.
// Data comes from assets/rows.js: columns, names by number (see site/table.py).
"use strict";

{
  const { make, url, data, picks } = tokrig;
  const { NULL, count, rate, span, time } = tokrig.words;
  const { runs, rows } = data;
  const table = document.getElementById("results");
  const form = document.getElementById("filters");
  const status = document.getElementById("status");
  const pager = document.getElementById("pager");
  const perResult = table.dataset.page === "latency";

  // What a browser draws at once: more than that takes it longer than a reader would wait.
  const MOST_LINES = 100; // in one view; more come page by page
  const PAGE_LINES = 50;
  const PAGE_GROUPS = 10;
  const GROUP_LINES = 3; // of a family, where there are several on a page
  const MOST_BARS = 12;
  const OWN_SHAPES = ["chat", "rag", "codegen", "agent"];
  const VERDICTS = ["invalid", "valid", "unverified"]; // as rows.valid numbers them

  // What a run is, as words

  const familyOf = (run) => data.families[data.models[runs.model[run]][0]];
  const words = {
    shape: (shape) => [data.shapes[shape], data.shapes[shape]],
    hardware: (run) => data.rigs[runs.rig[run]],
    family: familyOf,
    backend: (run) => data.backends[runs.backend[run]],
    quant: (run) => data.quants[runs.quant[run]],
    mode: (run) => data.modes[runs.mode[run]],
    settings: (run) => data.settings[runs.settings[run]],
  };
  const accepted = (line) => {
    const shares = line.rows.map((row) => data.accepted[row]).filter((share) => share !== undefined);
    if (!shares.length) return "";
    const [low, high] = [Math.min(...shares), Math.max(...shares)];
    return `${low === high ? low : `${low}–${high}`} % accepted`;
  };
  /** What is switched on beside the baseline, and what it brought: query/labels.py's ``how``. */
  const how = (line) => {
    const mode = words.mode(line.run)[0];
    return mode === "baseline" ? "" : [mode, accepted(line)].filter(Boolean).join(", ");
  };
  const ofRun = ["hardware", "family", "backend", "quant", "mode", "settings"];

  // State, in the address

  const DEFAULTS = {
    shape: "", concurrency: perResult ? "all" : "1", hardware: "", family: "", backend: "", quant: "", mode: "", settings: "",
    validity: "shown", sort: perResult ? "ttft" : "-gen", group: perResult ? "none" : "family", closed: "", page: "1",
  };
  const CONCURRENCIES = [...new Set(rows.concurrency)].sort((a, b) => a - b);
  if (!perResult && CONCURRENCIES.length && !CONCURRENCIES.includes(1)) {
    DEFAULTS.concurrency = String(CONCURRENCIES[0]);
  }
  let state = read();

  function read() {
    const asked = new URLSearchParams(location.search);
    const found = {};
    for (const [name, usual] of Object.entries(DEFAULTS)) found[name] = asked.get(name) ?? usual;
    return found;
  }

  function address() {
    const changed = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
    // Commas stay readable; everything else is encoded.
    const query = changed.map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("%2C", ",")}`);
    return location.pathname + (query.length ? `?${query.join("&")}` : "") + location.hash;
  }

  /** Take over what changed and show it. A ``step`` is one the back button returns from. */
  function go(change, step = true) {
    state = { ...state, page: "1", ...change };
    if (step) history.pushState(null, "", address());
    else history.replaceState(null, "", address());
    show();
  }

  // Rows → lines

  /** Numbers of the runs that pass the filters on runs. */
  function passing() {
    const wanted = ofRun.filter((name) => state[name]);
    return runs.id.map((_, run) => wanted.every((name) => words[name](run)[1] === state[name]));
  }

  function isShown(row) {
    const word = VERDICTS[rows.valid[row]];
    if (state.validity === "shown" && (word === "invalid" || rows.gen[row] === null)) return false;
    if (VERDICTS.includes(state.validity) && word !== state.validity) return false;
    if (perResult && rows.ttft_s[row] === null) return false;
    if (state.concurrency !== "all" && String(rows.concurrency[row]) !== state.concurrency) return false;
    return !state.shape || data.shapes[rows.shape[row]] === state.shape;
  }

  /** A line is a run at one concurrency, or one result where a shape is chosen. */
  function lines() {
    const leftOut = new Map(); // shapes of a run at a concurrency that are in no range, by line
    const note = (run, concurrency, word) => {
      const key = `${run} ${concurrency}`;
      leftOut.set(key, [...(leftOut.get(key) ?? []), word]);
    };
    const passes = passing();
    const found = [];
    const open = new Map();
    let run = -1;
    for (let row = 0; row < rows.run.length; row++) {
      if (!passes[rows.run[row]]) continue;
      if (!isShown(row)) {
        const why = rows.valid[row] ? "without a rate" : "invalid";
        const wanted = VERDICTS[rows.valid[row]] === "invalid" || rows.gen[row] === null;
        if (wanted) note(rows.run[row], rows.concurrency[row], `${data.shapes[rows.shape[row]]} ${why}`);
        continue;
      }
      if (rows.run[row] !== run) open.clear();
      run = rows.run[row];
      const at = perResult ? row : rows.concurrency[row];
      let line = open.get(at);
      if (!line) {
        line = { run, concurrency: rows.concurrency[row], rows: [], low: null, high: null, invalid: 0 };
        open.set(at, line);
        found.push(line);
      }
      line.rows.push(row);
      line.invalid += rows.valid[row] ? 0 : 1;
      const gen = rows.gen[row];
      if (gen === null) continue;
      line.low = line.low === null ? gen : Math.min(line.low, gen);
      line.high = line.high === null ? gen : Math.max(line.high, gen);
    }
    for (const line of found) {
      for (const [shape, concurrency] of data.skipped[line.run] ?? []) {
        if (concurrency === line.concurrency) note(line.run, concurrency, `${shape} skipped`);
      }
      line.leftOut = leftOut.get(`${line.run} ${line.concurrency}`) ?? [];
    }
    return found;
  }

  /** Over which shapes a range is, where that is not all there are: table.py's ``covers``. */
  function covers(line) {
    const there = line.rows.map((row) => data.shapes[rows.shape[row]]);
    const all = OWN_SHAPES.every((shape) => there.includes(shape));
    return [all ? "" : there.join(", "), line.leftOut.join(", ")].filter(Boolean).join("; ");
  }

  const single = (line) => (perResult || state.shape ? line.rows[0] : null);

  // Sorting

  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const text = (labels) => {
    // Labels are few: their order is made once, lines are then sorted by numbers.
    const order = labels.map((label, number) => [label, number]).sort((a, b) => collator.compare(a[0], b[0]));
    const ranks = [];
    order.forEach(([, number], rank) => (ranks[number] = rank));
    return ranks;
  };
  const ranks = {
    variant: text(data.models.map((model) => (model[1]))),
    model: text(data.models.map((model) => model[3])),
    quant: text(data.quants.map((quant) => quant[0])),
    hardware: text(data.rigs.map((rig) => rig[0])),
    backend: text(data.backends.map((backend) => backend[0])),
    mode: text(data.modes.map((mode) => mode[0])),
  };
  const keys = {
    variant: (line) => ranks[state.group === "family" ? "variant" : "model"][runs.model[line.run]],
    quant: (line) => ranks.quant[runs.quant[line.run]],
    hardware: (line) => ranks.hardware[runs.rig[line.run]],
    backend: (line) => ranks.backend[runs.backend[line.run]],
    mode: (line) => ranks.mode[runs.mode[line.run]],
    shape: (line) => rows.shape[line.rows[0]],
    concurrency: (line) => line.concurrency,
    gen: (line) => line.high,
    ttft: (line) => rows.ttft_s[line.rows[0]],
    prefill: (line) => rows.prefill_tok_per_s[line.rows[0]],
    whole: (line) => rows.end_to_end_tok_per_s[line.rows[0]],
  };
  const biggestFirst = new Set(["gen", "prefill", "whole"]);

  function sorted(all) {
    const down = state.sort.startsWith("-");
    const key = keys[state.sort.replace("-", "")] ?? keys.gen;
    const sign = down ? -1 : 1;
    const keyed = all.map((line) => [key(line), line]);
    keyed.sort(([a, one], [b, other]) => {
      if (a !== b) {
        if (a === null) return 1; // what is not known comes last, whichever way
        if (b === null) return -1;
        return sign * (a - b);
      }
      const faster = (other.high ?? 0) - (one.high ?? 0) || (other.low ?? 0) - (one.low ?? 0);
      return faster || (runs.id[one.run] < runs.id[other.run] ? -1 : 1);
    });
    return keyed.map(([, line]) => line);
  }

  /** Families newest first, those without a date last; then by name. */
  function grouped(all) {
    if (state.group !== "family") return [{ family: null, lines: all }];
    const found = new Map();
    for (const line of all) {
      const family = familyOf(line.run);
      if (!found.has(family)) found.set(family, []);
      found.get(family).push(line);
    }
    const groups = [...found].map(([family, members]) => ({ family, lines: members }));
    groups.sort(
      ({ family: a }, { family: b }) =>
        (b[2] ?? "").localeCompare(a[2] ?? "", "en") || collator.compare(a[0], b[0]),
    );
    return groups;
  }

  // Ties: the rules of query/ranks.py

  /** Which of some rows have a rank: the valid ones, else the unverified ones among themselves. */
  function rankable(list) {
    const having = (word) => list.filter((row) => VERDICTS[rows.valid[row]] === word && rows.from[row] !== null);
    const valid = having("valid");
    return valid.length ? valid : having("unverified");
  }

  /** Ranks of rows sorted by speed, by row: ``1``, ``2=``, ``2=``, ``4``. */
  function rankWords(list) {
    const groups = [];
    let [from, to] = [0, 0]; // what all of the last group cover
    list.forEach((row, place) => {
      const shared = [Math.max(from, rows.from[row]), Math.min(to, rows.to[row])];
      if (place && shared[0] <= shared[1]) {
        groups.at(-1).rows.push(row);
        [from, to] = shared;
      } else {
        groups.push({ place, rows: [row] });
        [from, to] = [rows.from[row], rows.to[row]];
      }
    });
    const word = ({ place, rows: tied }) => `${place + 1}${tied.length > 1 ? "=" : ""}`;
    return new Map(groups.flatMap((group) => group.rows.map((row) => [row, word(group)])));
  }

  // Drawing

  function markOf(kind, label, title) {
    return make("span", { class: `mark ${kind}`, title }, label);
  }

  function marks(line) {
    const [kind, level, status] = data.kinds[runs.kind[line.run]];
    const found = [];
    if (status !== "complete") found.push(markOf("invalid", status, "the run did not finish"));
    if (line.invalid) {
      const label = line.rows.length === line.invalid ? "invalid" : `${line.invalid} invalid`;
      found.push(markOf("invalid", label, "kept, not a headline; its page tells the reasons"));
    }
    if (runs.errata[line.run]) found.push(markOf("erratum", "erratum", "a correction stands on its page"));
    if (kind === "your file") found.push(markOf("quick", kind, "it is in your browser alone, and has no rank"));
    else if (kind !== "measured") found.push(markOf("transcribed", kind, "not measured by tokrig"));
    else if (level === "quick") found.push(markOf("quick", "quick", "one server start: a range, no interval"));
    if (line.rows.some((row) => VERDICTS[rows.valid[row]] === "unverified")) {
      found.push(markOf("unchecked", "unverified", "something could not be confirmed; its page tells what"));
    }
    return found.length ? [make("span", { class: "marks" }, ...found)] : [];
  }

  /** What tells a run apart from others of its name, small. */
  const apart = (run) => (runs.apart[run] ? [make("span", { class: "spread" }, runs.apart[run])] : []);

  const link = (target, label) => make("a", { href: url(target) }, label);

  function figure(line, fastest, rank) {
    const row = single(line);
    const target = `runs/${runs.id[line.run]}.html`;
    const value = row === null ? span(line.low, line.high) : rate(rows.gen[row]);
    const cell = make("td", { class: "num gen" });
    if (rank?.endsWith("=")) {
      cell.append(make("span", { class: "tie", title: `rank ${rank} of its group: not distinguishable` }, "≈"), " ");
    }
    cell.append(link(target, line.low === null ? NULL : value));
    let [from, to] = [line.low, line.high];
    if (row === null && covers(line)) cell.append(make("span", { class: "spread" }, covers(line)));
    if (row !== null && rows.spread[row]) {
      [from, to] = [rows.low[row], rows.high[row]];
      const kind = rows.spread[row] === 2 ? "95 %" : "range";
      cell.append(make("span", { class: "spread" }, `${span(from, to)} ${kind}`));
    }
    if (to !== null) {
      const strip = make("span");
      strip.style.setProperty("--from", (from / fastest).toFixed(4));
      strip.style.setProperty("--to", (to / fastest).toFixed(4));
      cell.append(make("span", { class: "strip", "aria-hidden": "true" }, strip));
    }
    return cell;
  }

  const cells = {
    variant(line) {
      const model = data.models[runs.model[line.run]];
      const name = state.group === "family" ? model[1] : model[3];
      // Where no column tells the mode, its words stand beside the name.
      const beside = perResult && how(line) ? [" ", make("span", { class: "badge" }, how(line))] : [];
      return make("th", { scope: "row", class: "variant" }, link(`models/${model[2]}.html`, name), ...beside, ...marks(line));
    },
    quant: (line) => make("td", { class: "quant" }, words.quant(line.run)[0]),
    hardware(line) {
      const [label, id, badges] = words.hardware(line.run);
      const shown = badges.map((badge) => make("span", { class: "badge" }, badge));
      return make("td", { class: "hardware" }, link(`rigs/${id}.html`, label), make("span", { class: "badges" }, ...shown));
    },
    backend: (line) => make("td", { class: "backend" }, words.backend(line.run)[0], ...apart(line.run)),
    mode: (line) => make("td", { class: how(line) ? "mode" : "mode none" }, how(line) || NULL),
    shape: (line) => make("td", { class: "shape" }, data.shapes[rows.shape[line.rows[0]]]),
    concurrency: (line) => make("td", { class: "num concurrency" }, String(line.concurrency)),
    gen: (line, fastest, rank) =>
      perResult ? make("td", { class: "num decode" }, rate(line.high)) : figure(line, fastest, rank),
    ttft: (line) =>
      make("td", { class: "num latency" }, link(`runs/${runs.id[line.run]}.html`, time(rows.ttft_s[line.rows[0]]))),
    prefill: (line) => make("td", { class: "num prefill" }, rate(rows.prefill_tok_per_s[line.rows[0]])),
    whole: (line) => make("td", { class: "num whole" }, rate(rows.end_to_end_tok_per_s[line.rows[0]])),
  };
  const headers = [...table.tHead.querySelectorAll("[data-sort]")];
  const columns = headers.map((header) => header.dataset.sort);

  function pickCell(line) {
    const shape = single(line) === null ? "" : `~${data.shapes[rows.shape[single(line)]]}`;
    const pick = `${runs.id[line.run]}~${line.concurrency}${shape}`;
    const name = `Compare ${data.models[runs.model[line.run]][3]} ${words.quant(line.run)[0]} on ${words.hardware(line.run)[0]}`;
    const box = make("input", { type: "checkbox", "data-pick": pick, "aria-label": name });
    return make("td", { class: "pick" }, box);
  }

  function familyRow(group, closed) {
    const [label, slug, released] = group.family;
    const results = group.lines.reduce((sum, line) => sum + line.rows.length, 0);
    const button = make("button", { type: "button", class: "fold", "aria-expanded": String(!closed) }, label);
    button.addEventListener("click", () => {
      const others = state.closed.split(",").filter((one) => one && one !== slug);
      go({ closed: (closed ? others : [...others, slug]).sort().join(","), page: state.page }, false);
      table.querySelector(`[data-family="${CSS.escape(slug)}"] .fold`)?.focus();
    });
    const head = make("th", { colspan: String(columns.length + 1), scope: "rowgroup" });
    head.append(make("span", { class: "name" }, button), " ", make("span", { class: "count" }, count(results, "result")));
    if (released) head.append(" ", make("span", { class: "released" }, `released ${released}`));
    return make("tr", { class: "family" }, head);
  }

  function groupBody(group, isOneOfMany, fastest) {
    const slug = group.family?.[1] ?? "";
    const closed = Boolean(slug) && state.closed.split(",").includes(slug);
    const body = make("tbody", slug ? { "data-family": slug } : {});
    if (group.family) body.append(familyRow(group, closed));
    if (closed) return body;
    const shown = group.part ?? group.lines;
    const inOrder = !perResult && state.shape && state.sort === "-gen";
    // Of the whole list: what is on another page may be tied with what is on this one.
    const ranked = rankWords(inOrder ? rankable(group.lines.map((line) => line.rows[0])) : []);
    for (const line of shown) {
      const rank = ranked.get(line.rows[0]);
      body.append(make("tr", {}, pickCell(line), ...columns.map((name) => cells[name](line, fastest, rank))));
    }
    if (isOneOfMany && shown.length < group.lines.length) {
      const all = make("button", { type: "button", class: "quiet" }, `All ${count(group.lines.length, "line")} of ${group.family[0]}`);
      all.addEventListener("click", () => go({ family: slug }));
      body.append(make("tr", { class: "more" }, make("td", { colspan: String(columns.length + 1) }, all)));
    }
    return body;
  }

  /** What is drawn now: whole groups, or the part of each that its page has room for. */
  function onPage(groups, number) {
    const total = groups.reduce((sum, group) => sum + group.lines.length, 0);
    if (total <= MOST_LINES) return { page: 1, pages: 1, shown: groups };
    const several = groups.length > 1;
    const pages = Math.ceil(several ? groups.length / PAGE_GROUPS : total / PAGE_LINES);
    const page = Math.min(Math.max(1, number), pages);
    const part = (list, size) => list.slice((page - 1) * size, page * size);
    if (!several) return { page, pages, shown: [{ ...groups[0], part: part(groups[0].lines, PAGE_LINES) }] };
    const shown = part(groups, PAGE_GROUPS).map((group) => ({ ...group, part: group.lines.slice(0, GROUP_LINES) }));
    return { page, pages, shown };
  }

  function drawTable(all) {
    const { page, pages, shown } = onPage(grouped(sorted(all)), Number.parseInt(state.page, 10) || 1);
    const fastest = all.reduce((most, line) => Math.max(most, line.high ?? 0), 0) || 1;
    const bodies = shown.map((group) => groupBody(group, shown.length > 1, fastest));
    if (!all.length) {
      const cell = make("td", { colspan: String(columns.length + 1) }, "No result passes these filters.");
      bodies.push(make("tbody", {}, make("tr", { class: "empty" }, cell)));
    }
    for (const body of [...table.tBodies]) body.remove();
    table.append(...bodies);
    drawPager(page, pages);
  }

  function drawPager(page, pages) {
    pager.hidden = pages < 2;
    const step = (label, to) => {
      const button = make("button", { type: "button", disabled: to < 1 || to > pages }, label);
      button.addEventListener("click", () => {
        go({ page: String(to) });
        table.scrollIntoView({ block: "start" });
      });
      return button;
    };
    pager.replaceChildren(step("Previous", page - 1), `page ${page} of ${pages}`, step("Next", page + 1));
  }

  function drawHeaders() {
    const [, minus, name] = /^(-?)(.*)$/.exec(state.sort);
    for (const header of headers) {
      const isSorted = header.dataset.sort === name;
      if (isSorted) header.setAttribute("aria-sort", minus ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
    }
  }

  // Bars by workload, under the same filters

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

  function drawBars() {
    const concurrency = state.concurrency === "all" ? (CONCURRENCIES[0] ?? 1) : Number(state.concurrency);
    const found = rowsByShape(concurrency);
    // By place, as both have one order: HTML changes some characters of a name.
    document.querySelectorAll("[data-shape]").forEach((section, number) => {
      section.hidden = Boolean(state.shape) && state.shape !== data.shapes[number];
      if (!section.hidden) drawShape(section, found[number]);
    });
    const title = document.querySelector("#by-workload .muted");
    if (title) title.textContent = `concurrency ${concurrency}`;
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

  function bar(row, rank, fastest) {
    const run = rows.run[row];
    const model = data.models[runs.model[run]];
    const quant = words.quant(run)[0];
    const line = { run, rows: [row], invalid: 0 };
    const parts = [quant === NULL ? "" : quant, words.hardware(run)[0], words.backend(run)[0], how(line), runs.apart[run]];
    const detail = parts.filter(Boolean).join(" · ");
    const fill = make("span");
    fill.style.setProperty("--to", (rows.gen[row] / fastest).toFixed(4));
    return make(
      "li", {},
      make("span", { class: "rank" }, rank),
      make("span", { class: "what" }, link(`runs/${runs.id[run]}.html`, model[3]), " ", make("span", { class: "muted" }, detail), ...marks(line)),
      make("span", { class: "figure" }, `${rate(rows.gen[row])} tok/s`),
      make("span", { class: "bar", "aria-hidden": "true" }, fill),
    );
  }

  // Controls

  function options(name, found) {
    const seen = new Map(found.map(([label, value]) => [value, label]));
    return [...seen].sort((a, b) => collator.compare(a[1], b[1])).map(([value, label]) => [label, value]);
  }

  const FILTERS = [
    ["shape", "Shape", [["all shapes", ""], ...data.shapes.map((shape) => [shape, shape])]],
    ["concurrency", "Concurrency", [...CONCURRENCIES.map((n) => [String(n), String(n)]), ["all", "all"]]],
    ["hardware", "Hardware", [["all hardware", ""], ...options("hardware", data.rigs)]],
    ["family", "Family", [["all families", ""], ...options("family", data.families)]],
    ["backend", "Backend", [["all backends", ""], ...options("backend", data.backends)]],
    ["quant", "Quant", [["all quants", ""], ...options("quant", data.quants)]],
    ["mode", "Mode", [["all modes", ""], ...options("mode", data.modes)]],
    ["settings", "Settings", [["all settings", ""], ...options("settings", data.settings)]],
    ["validity", "Validity", [["valid, unverified", "shown"], ...["valid", "unverified", "invalid", "all"].map((word) => [word, word])]],
  ];

  function drawForm() {
    for (const [name, label, choices] of FILTERS) {
      const select = make("select", { name }, ...choices.map(([word, value]) => make("option", { value }, word)));
      select.addEventListener("change", () => go({ [name]: select.value }));
      form.append(make("label", {}, make("span", {}, label), select));
    }
    const box = make("input", { type: "checkbox", name: "group" });
    box.addEventListener("change", () => go({ group: box.checked ? "family" : "none" }));
    const reset = make("button", { type: "button", class: "quiet", name: "reset" }, "Reset");
    reset.addEventListener("click", () => go({ ...DEFAULTS }));
    form.append(make("label", { class: "check" }, box, make("span", {}, "Group by family")), reset);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
  }

  function syncForm() {
    for (const [name] of FILTERS) {
      const select = form.elements[name];
      select.value = state[name];
      // A word that nobody knows shows nothing, and says so.
      if (select.selectedIndex < 0) {
        select.append(make("option", { value: state[name] }, `${state[name]} (unknown)`));
        select.value = state[name];
      }
      select.classList.toggle("changed", state[name] !== DEFAULTS[name]);
    }
    form.elements.group.checked = state.group === "family";
    form.elements.reset.disabled = address() === location.pathname + location.hash;
  }

  function makeSortable(header) {
    const name = header.dataset.sort;
    const term = header.querySelector(".term");
    const button = make("button", { type: "button", class: "sort term", "data-term": term.dataset.term }, term.textContent);
    term.replaceWith(button);
    button.addEventListener("click", () => {
      const usual = (biggestFirst.has(name) ? "-" : "") + name;
      const other = biggestFirst.has(name) ? name : `-${name}`;
      go({ sort: state.sort === usual ? other : usual });
    });
  }

  let filtered = { by: null, lines: [] };

  function show() {
    const by = FILTERS.map(([name]) => state[name]).join(" ");
    const isSame = by === filtered.by;
    if (!isSame) filtered = { by, lines: lines() };
    const all = filtered.lines;
    drawTable(all);
    drawHeaders();
    if (!isSame) drawBars();
    syncForm();
    picks.show();
    const results = all.reduce((sum, line) => sum + line.rows.length, 0);
    const of = new Set(all.map((line) => line.run)).size;
    status.textContent = `${count(results, "result")} of ${count(of, "run")}`;
  }

  drawForm();
  headers.forEach(makeSortable);
  addEventListener("popstate", () => {
    state = read();
    show();
  });
  show();
}
