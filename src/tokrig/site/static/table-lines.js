// Rows → lines of the tables: filters, search, order, families, ranks.
"use strict";

{
  const { data, view } = tokrig;
  const { runs, rows } = data;
  const { isLatency, VERDICTS, facts, numbered, sizes, promptClass } = view;

  // Search: each word must begin a word of what a run is called, in any order

  /** ``geforce rtx 4090 geforcertx rtx4090``: people write names together, too. */
  const searchable = (...labels) => {
    const text = labels.filter(Boolean).join(" ").toLowerCase();
    const parts = text.split(/[\s/·()+_-]+/).filter(Boolean);
    return [text, ...parts.slice(1).map((part, place) => parts[place] + part)].join(" ");
  };
  let searched = null; // texts by label: far fewer than there are runs
  function searchTexts() {
    searched ??= [
      [runs.model, data.models.map((model) => searchable(model[3], data.families[model[0]][0]))],
      [runs.quant, data.quants.map(([label]) => searchable(label))],
      [runs.rig, data.rigs.map((rig) => searchable(rig[0], rig[3], rig[4] ? `${rig[4]} GB` : "no GPU", ...(rig[7] ?? [])))],
      [runs.backend, data.backends.map(([label]) => searchable(label))],
      [runs.mode, data.modes.map(([label]) => searchable(label))],
      [runs.settings, data.settings.map(([label]) => searchable(label))],
      [runs.kind, data.kinds.map((kind) => searchable(...kind))],
    ];
    return searched;
  }

  const searchWords = () => view.state.q.toLowerCase().split(/[\s,]+/).filter(Boolean).slice(0, 20);

  /** Whether each run has a word; none begins within a word or behind the point of a number. */
  function having(word) {
    const begin = new RegExp(`(?<![\\p{L}\\p{N}]|\\d\\.)${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`, "u");
    const found = searchTexts().map(([numbers, texts]) => [numbers, texts.map((text) => begin.test(text))]);
    return (run) => found.some(([numbers, has]) => has[numbers[run]]) || (word.length > 5 && runs.id[run].includes(word));
  }

  /** Whether each run has what passes a test, which is asked once for each that there is. */
  function being([numbers, all], test) {
    const has = all.map(test);
    return (run) => has[numbers[run]];
  }

  const FILTERS = ["q", ...Object.keys(facts), ...Object.keys(sizes)];
  let last = { by: null, passes: null }; // table and bars ask one after the other

  /** Whether each run passes the filters on runs, but for one where counts of it are wanted. */
  function passing(without = "") {
    const by = [without, ...FILTERS.map((name) => view.state[name])].join(" ");
    if (by !== last.by) last = { by, passes: passed(without) };
    return last.passes;
  }

  function passed(without) {
    const tests = searchWords().map(having);
    for (const name of Object.keys(facts)) {
      const wanted = new Set(name === without ? [] : view.chosen(name));
      if (wanted.size) tests.push(being(numbered[name], ([, word]) => wanted.has(word)));
    }
    for (const name of Object.keys(sizes)) {
      const range = view.range(name);
      if (!range || !view.state[name]) continue;
      const [low, high] = range;
      tests.push(being(sizes[name], (size) => size !== null && size >= low && size <= high));
    }
    return runs.id.map((_, run) => tests.every((test) => test(run)));
  }

  const levelOf = (concurrency) => view.CONCURRENCIES.find((one) => String(one) === concurrency);
  let promptOf = 0; // the class of prompts that is shown

  /** The classes of prompts that a shape has at a concurrency, and how many rows each. */
  function promptClasses() {
    const [number, level] = [data.shapes.indexOf(view.state.shape), levelOf(view.state.concurrency)];
    const found = new Map();
    for (let row = 0; row < rows.run.length; row++) {
      if (rows.shape[row] !== number || rows.concurrency[row] !== level) continue;
      if (rows.ttft_s[row] === null || !rows.valid[row]) continue;
      found.set(promptClass(row), (found.get(promptClass(row)) ?? 0) + 1);
    }
    return [...found].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  }

  /** Whether a run is of a file of one's own. */
  const isDropped = (run) => run >= (data.published ?? Infinity);
  const isAtLowest = (run) => rows.run.some((of, row) => of === run && String(rows.concurrency[row]) === view.DEFAULTS.concurrency);
  const isRated = (row) => VERDICTS[rows.valid[row]] !== "invalid" && rows.gen[row] !== null;

  /** Whether a row passes the filters on rows. */
  function shown() {
    const { validity, concurrency, shape } = view.state;
    const verdicts = VERDICTS.map((word) => !VERDICTS.includes(validity) || word === validity);
    const level = concurrency === "all" ? null : levelOf(concurrency);
    const number = shape ? data.shapes.indexOf(shape) : null;
    const isUsual = concurrency === view.DEFAULTS.concurrency;
    // One's own file is seen at once, at whatever concurrency it is.
    const isOwn = (run) => isUsual && isDropped(run) && !isAtLowest(run);
    return (row) =>
      verdicts[rows.valid[row]] &&
      (level === null || rows.concurrency[row] === level || isOwn(rows.run[row])) &&
      (number === null || rows.shape[row] === number) &&
      (validity !== "shown" || isRated(row)) &&
      // How long the prompts of one's own file were nobody told.
      (!isLatency || (rows.ttft_s[row] !== null && (isDropped(rows.run[row]) || promptClass(row) === promptOf)));
  }

  /** A line is a run at one concurrency, or one result where a shape is chosen. */
  function lines() {
    if (isLatency) promptOf = view.state.prompt ? Number(view.state.prompt) : (promptClasses()[0]?.[0] ?? 0);
    const passes = passing();
    const isShown = shown();
    const found = [];
    const open = new Map();
    let run = -1;
    for (let row = 0; row < rows.run.length; row++) {
      if (!passes[rows.run[row]] || !isShown(row)) continue;
      if (rows.run[row] !== run) open.clear();
      run = rows.run[row];
      const at = isLatency ? row : rows.concurrency[row];
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
    return found;
  }

  /** Shapes of a line's run and concurrency that are in no range, and why: rows of a run follow
   * one another. */
  function leftOut(line) {
    const words = [];
    const isShown = shown();
    const isOfRun = (row) => rows.run[row] === line.run;
    let [row] = line.rows;
    while (isOfRun(row - 1)) row -= 1;
    for (; isOfRun(row); row += 1) {
      if (rows.concurrency[row] !== line.concurrency || isRated(row) || isShown(row)) continue;
      words.push(`${data.shapes[rows.shape[row]]} ${rows.valid[row] ? "without a rate" : "invalid"}`);
    }
    const skipped = (data.skipped[line.run] ?? []).filter(([, concurrency]) => concurrency === line.concurrency);
    return [...words, ...skipped.map(([shape]) => `${shape} skipped`)];
  }

  /** Over which shapes a range is, where that is not all there are: table.py's ``covers``. */
  function covers(line) {
    const there = line.rows.map((row) => data.shapes[rows.shape[row]]);
    const all = tokrig.shapes.every((shape) => there.includes(shape));
    return [all ? "" : there.join(", "), leftOut(line).join(", ")].filter(Boolean).join("; ");
  }

  // Order

  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  /** Of lines with keys, those with a key first, whichever way; of one key the fastest. */
  function sorted(all, key, isDown) {
    const sign = isDown ? -1 : 1;
    const keys = Float64Array.from(all, (line) => {
      const found = key(line);
      return found === null ? Infinity : sign * found; // what is not known comes last, whichever way
    });
    const faster = (one, other) =>
      (other.high ?? 0) - (one.high ?? 0) || (other.low ?? 0) - (one.low ?? 0) || (runs.id[one.run] < runs.id[other.run] ? -1 : 1);
    const order = Uint32Array.from(keys.keys());
    order.sort((a, b) => (keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : faster(all[a], all[b])));
    return Array.from(order, (place) => all[place]);
  }

  /** Families of one's own files first, then newest first, those without a date last; then by name. */
  function grouped(all) {
    if (view.state.group !== "family") return [{ family: null, lines: all }];
    const found = new Map();
    for (const line of all) {
      const family = facts.family(line.run);
      if (!found.has(family)) found.set(family, []);
      found.get(family).push(line);
    }
    const groups = [...found].map(([family, members]) => ({ family, lines: members }));
    const own = new Set(all.filter(({ run }) => isDropped(run)).map(({ run }) => facts.family(run)));
    groups.sort(
      ({ family: a }, { family: b }) =>
        own.has(b) - own.has(a) || (b[2] ?? "").localeCompare(a[2] ?? "", "en") || collator.compare(a[0], b[0]),
    );
    return groups;
  }

  // Ties: the rules of query/ranks.py. What a figure covers: of gen tok/s, or of the TTFT

  const SPEED = rows;

  /** Which of some rows have a rank: the valid ones, else the unverified ones among themselves. */
  function rankable(list, spans = SPEED) {
    const having = (word) =>
      list.filter((row) => VERDICTS[rows.valid[row]] === word && (spans.from[row] ?? null) !== null);
    const valid = having("valid");
    return valid.length ? valid : having("unverified");
  }

  /** Ranks of rows from the best on, by row: ``1``, ``2=``, ``2=``, ``4``. */
  function rankWords(list, spans = SPEED) {
    const groups = [];
    let [from, to] = [0, 0]; // what all of the last group cover
    list.forEach((row, place) => {
      const shared = [Math.max(from, spans.from[row]), Math.min(to, spans.to[row])];
      if (place && shared[0] <= shared[1]) {
        groups.at(-1).rows.push(row);
        [from, to] = shared;
      } else {
        groups.push({ place, rows: [row] });
        [from, to] = [spans.from[row], spans.to[row]];
      }
    });
    const word = ({ place, rows: tied }) => `${place + 1}${tied.length > 1 ? "=" : ""}`;
    return new Map(groups.flatMap((group) => group.rows.map((row) => [row, word(group)])));
  }

  tokrig.lines = {
    collator, covers, grouped, isDropped, lines, passing, promptClasses, rankable, rankWords, sorted,
    /** Words of the search that nothing here is called. */
    strange: () =>
      searchWords().filter((word) => {
        const has = having(word);
        return !runs.id.some((_, run) => has(run));
      }),
  };
}
