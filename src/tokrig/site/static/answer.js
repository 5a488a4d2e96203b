// What runs on a machine, for a use, and fast enough: the rules of site/answer.py, which says what
// a line holds. Pure.
"use strict";

window.tokrig = window.tokrig || {};

{
  const SECTIONS = ["fast", "slower", "unrated", "no", "unknown"];
  const VALID = 1;
  const WEIGHTS_SHARE = 0.5; // a record that saw less of the file's bytes saw a part of the model

  const compare = (a, b) => {
    const place = a.findIndex((one, at) => one !== b[at]);
    return place < 0 ? 0 : a[place] - b[place];
  };
  /** The first of the least. */
  const least = (list, key) => list.reduce((best, one) => (compare(key(one), key(best)) < 0 ? one : best));
  const sorted = (list, key) =>
    list.map((one) => [key(one), one]).sort(([a], [b]) => compare(a, b)).map(([, one]) => one);
  const grouped = (list, key) => {
    const found = new Map();
    for (const one of list) {
      const name = key(one);
      if (found.has(name)) found.get(name).push(one);
      else found.set(name, [one]);
    }
    return found;
  };
  const onGpu = (asked) => asked.kind === "size" || asked.kind === "card";
  const takenBy = (asked) => (onGpu(asked) ? "memory.engine_vram_bytes" : "memory.engine_rss_bytes");
  const lineOf = (of, how, facts) => ({
    of, how, seen: false, row: null, rate: null, low: null, high: null, basis: null, memory: null, missing: null, others: null,
    ...facts,
  });

  function sectionOf(line, fast) {
    if (line.how === "no" || line.how === "unknown") return line.how;
    if (line.rate === null) return "unrated";
    return line.rate >= fast ? "fast" : "slower";
  }

  function evidence(data, fit, asked, shape) {
    const { rows, runs, rigs } = data;
    const mine = new Set(asked.rigs);
    const taken = rows[takenBy(asked)];
    const wanted = data.shapes.indexOf(shape);
    const here = new Map();
    const seen = new Map();
    for (let row = 0; row < rows.run.length; row++) {
      if (rows.shape[row] !== wanted || rows.concurrency[row] !== 1 || !rows.valid[row] || rows.gen[row] === null) continue;
      const of = fit.of[rows.run[row]];
      const rig = runs.rig[rows.run[row]];
      if (mine.has(rig)) {
        if (here.has(of)) here.get(of).push(row);
        else here.set(of, [row]);
      }
      const enough = WEIGHTS_SHARE * (fit.models.bytes[of] ?? 0);
      if (Boolean(rigs[rig][4]) === onGpu(asked) && taken[row] && taken[row] >= enough) {
        seen.set(of, Math.min(seen.get(of) ?? taken[row], taken[row]));
      }
    }
    return { here, seen };
  }

  function best(data, results) {
    const { rows, runs } = data;
    const rank = (row) => [
      Number(rows.valid[row] !== VALID),
      Number(data.modes[runs.mode[rows.run[row]]][1] !== "baseline"),
    ];
    const top = rank(least(results, rank));
    const newest = grouped(
      results.filter((row) => compare(rank(row), top) === 0),
      (row) => `${runs.engine[rows.run[row]]} ${runs.api[rows.run[row]]}`,
    );
    return least([...newest.values()].map(([first]) => first), (row) => [-rows.gen[row], row]);
  }

  function measured(data, asked, of, results) {
    const { rows, runs } = data;
    const onRigs = [...grouped(results, (row) => runs.rig[rows.run[row]]).values()];
    const bests = sorted(onRigs.map((list) => best(data, list)), (row) => [rows.gen[row], -row]);
    const row = bests[Math.floor((bests.length - 1) / 2)];
    const gen = results.map((one) => rows.gen[one]);
    const memory = rows[takenBy(asked)][row];
    return lineOf(of, asked.kind === "size" || asked.kind === "none" ? "size" : "here", {
      row, rate: rows.gen[row], low: rows.low[row], high: rows.high[row], memory, seen: memory !== null,
      others: gen.length > 1 ? [Math.min(...gen), Math.max(...gen), gen.length] : null,
    });
  }

  function expected(fit, machine, of) {
    const asked = fit.machines[machine];
    const place = onGpu(asked) ? "gpu" : "cpu";
    if (fit.here[machine][of]) return [...fit.here[machine][of], "here"];
    const step = fit.models.step[of];
    const shares = { elsewhere: fit.shares[place][0][of], like: fit.like[machine][of] };
    for (const [basis, share] of Object.entries(shares)) {
      const within = fit.within[basis];
      if (!asked.widths || !step || !share || !within) continue;
      const [low, middle, high] = asked.widths.map((width) => (share * width) / step);
      return [middle, low / within, high * within, basis];
    }
    return [null, null, null, null];
  }

  function reckoned(fit, machine, use, of, seen) {
    const asked = fit.machines[machine];
    const room = asked.bytes;
    const size = fit.models.bytes[of];
    const extra = fit.overhead[onGpu(asked) ? "gpu" : "cpu"];
    const needs = size === null ? null : size + (fit.models.cache[use][of] ?? 0) + extra;
    const hasRoom = room !== null && seen !== undefined && seen <= room;
    const memory = { memory: hasRoom ? seen : needs, seen: hasRoom };
    if (room === null || (needs === null && !hasRoom)) return lineOf(of, "unknown", memory);
    if (!hasRoom && needs > room) return lineOf(of, "no", { missing: needs - room, ...memory });
    const [rate, low, high, basis] = expected(fit, machine, of);
    return lineOf(of, rate === null ? "fits" : "expected", { rate, low, high, basis, ...memory });
  }

  /** Models by section, of each its quants, the one to be shown first in front. */
  tokrig.answer = (data, fit, machine, use, fast) => {
    const { models } = fit;
    const size = (line) => models.bytes[line.of] ?? 0;
    const parameters = (line) => data.models[models.model[line.of]][4] ?? 0;
    const asked = fit.machines[machine];
    const { here, seen } = evidence(data, fit, asked, fit.uses[use][2]);
    const lines = models.model.map((_, of) =>
      here.has(of) ? measured(data, asked, of, here.get(of)) : reckoned(fit, machine, use, of, seen.get(of)),
    );
    const quantOrder = {
      fast: (line) => [-size(line), line.of],
      slower: (line) => [-line.rate, line.of],
      unrated: (line) => [-size(line), line.of],
      no: (line) => [line.missing, line.of],
      unknown: (line) => [-size(line), line.of],
    };
    const largest = ([line]) => [-parameters(line), -size(line), line.of];
    const modelOrder = {
      fast: largest,
      slower: ([line]) => [-line.rate, -parameters(line), line.of],
      unrated: largest,
      no: ([line]) => [line.missing, -parameters(line), line.of],
      unknown: largest,
    };
    const found = Object.fromEntries(SECTIONS.map((section) => [section, []]));
    for (const list of grouped(lines, (line) => models.model[line.of]).values()) {
      const sections = list.map((line) => SECTIONS.indexOf(sectionOf(line, fast)));
      const top = Math.min(...sections);
      const section = SECTIONS[top];
      const first = least(list.filter((_, place) => sections[place] === top), quantOrder[section]);
      const rest = sorted(list.filter((line) => line !== first), (line) => [-size(line), line.of]);
      found[section].push([first, ...rest]);
    }
    for (const section of SECTIONS) found[section] = sorted(found[section], modelOrder[section]);
    return found;
  };
}
