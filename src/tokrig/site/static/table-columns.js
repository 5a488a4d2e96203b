// The columns of the tables: by what each sorts, and its cells.
"use strict";

{
  const { make, url, data, view } = tokrig;
  const { NULL, gigabytes, isKnown, mark, parameters, rate, span, time } = tokrig.words;
  const { runs, rows } = data;
  const { isLatency, VERDICTS, facts, how, modelOf, rigOf, kindOf, waits } = view;
  const { collator, covers } = tokrig.lines;

  const single = (line) => (isLatency || view.state.shape ? line.rows[0] : null);
  const link = (target, label) => make("a", { href: url(target) }, label);
  const runLink = (run, label) => link(`runs/${runs.id[run]}.html`, label);

  // Marks

  function marks(line) {
    const [kind, level, status] = kindOf(line.run);
    const found = [];
    if (status !== "complete") found.push(mark("invalid", status));
    if (line.invalid) {
      const label = line.rows.length === line.invalid ? "invalid" : `${line.invalid} invalid`;
      found.push(mark("invalid", label, "invalid"));
    }
    if (runs.errata[line.run]) found.push(mark("erratum", "erratum"));
    const isOwn = kind === "your file";
    if (isOwn) found.push(mark("quick", kind));
    const source = isOwn ? level : kind; // of one's own file the level is where there is one
    if (["imported", "transcribed"].includes(source)) found.push(mark("transcribed", source));
    else if (level === "quick") found.push(mark("quick", "quick"));
    if (line.rows.some((row) => VERDICTS[rows.valid[row]] === "unverified")) {
      found.push(mark("unchecked", "unverified"));
    }
    const repeated = data.reproduced[line.run];
    if (repeated) found.push(make("span", { class: `mark ${repeated[0]}`, title: repeated[2] }, repeated[1]));
    return found.length ? [make("span", { class: "marks" }, ...found)] : [];
  }

  /** What tells a run apart from others of its name, small. */
  const apart = (run) => (runs.apart[run] ? [make("span", { class: "spread" }, runs.apart[run])] : []);

  // Figures

  /** What a figure covers, small: ``148.1–152.0 95 %``. */
  function spread(of, row, format) {
    if (!of.spread[row]) return [];
    const kind = of.spread[row] === 2 ? "95 %" : "range";
    return [make("span", { class: "spread" }, `${joined(of.low[row], of.high[row], format)} ${kind}`)];
  }

  /** ``12.8–375 ms``, ``980 ms–1.20 s``, or one value where both read the same. */
  function joined(low, high, format) {
    const [first, last] = [format(low), format(high)];
    if (first === last) return first;
    const [number, unit] = [first.slice(0, first.lastIndexOf(" ")), first.slice(first.lastIndexOf(" "))];
    return unit.startsWith(" ") && last.endsWith(unit) ? `${number}–${last}` : `${first}–${last}`;
  }

  function figure(line, { fastest, tied }) {
    const row = single(line);
    const value = row === null ? span(line.low, line.high) : rate(rows.gen[row]);
    const cell = make("td", { class: "num gen" });
    if (tied?.endsWith("=")) {
      cell.append(make("span", { class: "tie", title: `rank ${tied} of its group: not distinguishable` }, "≈"), " ");
    }
    cell.append(runLink(line.run, line.low === null ? NULL : value));
    let [from, to] = [line.low, line.high];
    if (row === null && covers(line)) cell.append(make("span", { class: "spread" }, covers(line)));
    if (row !== null && rows.spread[row]) {
      [from, to] = [rows.low[row], rows.high[row]];
      cell.append(...spread(rows, row, rate));
    }
    if (to !== null) {
      const strip = make("span");
      strip.style.setProperty("--from", (from / fastest).toFixed(4));
      strip.style.setProperty("--to", (to / fastest).toFixed(4));
      cell.append(make("span", { class: "strip", "aria-hidden": "true" }, strip));
    }
    return cell;
  }

  // Columns. ``key`` sorts, a null comes last; ``isBigFirst`` is the usual way round

  /** Labels are few: their order is made once, lines are then sorted by numbers. */
  function places(labels) {
    const order = labels.map((label, number) => [label, number]).sort((a, b) => collator.compare(a[0], b[0]));
    const found = [];
    order.forEach(([, number], place) => (found[number] = place));
    return found;
  }

  /** A column of a name: ``number`` of a run among the names. */
  function named(list, number, cell, label = (one) => one[0]) {
    let found = null;
    const key = (line) => {
      if (found?.length !== list.length) found = places(list.map(label));
      return found[number(line.run)];
    };
    return { key, cell };
  }

  const extra = (text, kind = "") => make("td", { class: `extra ${kind}`.trim() }, text);
  const ofList = (name, list, numbers) =>
    named(list, (run) => numbers[run], (line) => extra(facts[name](line.run)[0]));

  /** A column of a metric, over all rows of a line the lowest to the highest. */
  function metric(name, format, isBigFirst = false) {
    const values = (line) => line.rows.map((row) => rows[name][row]).filter(isKnown);
    const key = (line) => {
      const found = values(line);
      return found.length ? (isBigFirst ? Math.max : Math.min)(...found) : null;
    };
    const cell = (line) => {
      const found = values(line);
      return extra(found.length ? joined(Math.min(...found), Math.max(...found), format) : NULL, "num");
    };
    return { key, cell, isBigFirst };
  }

  /** A column of a size of the run. */
  function size(value, format, isBigFirst = true) {
    const key = (line) => value(line.run) ?? null;
    return { key, isBigFirst, cell: (line) => extra(format(value(line.run), line.run), "num") };
  }

  const share = (value) => (isKnown(value) ? `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %` : NULL);
  const depth = (run) => data.depths[run]?.[0];
  const inGroup = { variant: null, model: null };

  const columns = {
    rank: { key: null, cell: (line, { rank }) => make("td", { class: "num rank" }, rank ?? "") },
    variant: {
      key(line) {
        const name = view.state.group === "family" ? "variant" : "model";
        if (inGroup[name]?.length !== data.models.length) {
          inGroup[name] = places(data.models.map((model) => model[name === "variant" ? 1 : 3]));
        }
        return inGroup[name][runs.model[line.run]];
      },
      cell(line) {
        const model = modelOf(line.run);
        const name = view.state.group === "family" ? model[1] : model[3];
        // Where no column tells the mode, its words stand beside the name.
        const isTold = view.state.columns.split(",").includes("mode");
        const beside = !isTold && how(line) ? [" ", make("span", { class: "badge" }, how(line))] : [];
        const head = { scope: "row", class: "variant" };
        return make("th", head, link(`models/${model[2]}.html`, name), ...beside, ...marks(line));
      },
    },
    quant: named(data.quants, (run) => runs.quant[run], (line) => make("td", { class: "quant" }, facts.quant(line.run)[0])),
    hardware: named(data.rigs, (run) => runs.rig[run], (line) => {
      const [label, id, badges] = rigOf(line.run);
      const shown = badges.map((badge) => make("span", { class: "badge" }, badge));
      return make("td", { class: "hardware" }, link(`rigs/${id}.html`, label), make("span", { class: "badges" }, ...shown));
    }),
    backend: named(data.backends, (run) => runs.backend[run], (line) =>
      make("td", { class: "backend" }, facts.backend(line.run)[0], ...apart(line.run))),
    mode: named(data.modes, (run) => runs.mode[run], (line) =>
      make("td", { class: how(line) ? "mode" : "mode none" }, how(line) || NULL)),
    concurrency: {
      key: (line) => line.concurrency,
      cell: (line) => make("td", { class: "num concurrency" }, String(line.concurrency)),
    },
    gen: {
      key: (line) => line.high,
      isBigFirst: true,
      cell: (line, place) => (isLatency ? make("td", { class: "num decode" }, rate(line.high)) : figure(line, place)),
    },
    ttft: isLatency
      ? {
          key: (line) => rows.ttft_s[line.rows[0]],
          cell(line) {
            const [row] = line.rows;
            return make("td", { class: "num latency" }, runLink(line.run, time(rows.ttft_s[row])), ...spread(waits, row, time));
          },
        }
      : metric("ttft_s", time),
    prefill: metric("prefill_tok_per_s", rate, true),
    whole: metric("end_to_end_tok_per_s", rate, true),
    parameters: size((run) => modelOf(run)[4], (all, run) => {
      const active = modelOf(run)[5];
      return isKnown(active) && active !== all ? `${parameters(all)}, ${parameters(active)} active` : `${modelOf(run)[6] ? "≈ " : ""}${parameters(all)}`;
    }),
    file: size((run) => runs.bytes[run], gigabytes),
    vram: metric("memory.engine_vram_bytes", gigabytes),
    depth: size(depth, (tokens, run) => (tokens ? `${rate(data.depths[run][1])} at ${tokens.toLocaleString("en")}` : NULL)),
    energy: metric("energy.j_per_output_token", rate),
    ceiling: metric("ceiling_share", share, true),
    quality: size((run) => data.quality[run]?.[0], share),
    engine: ofList("engine", data.engines, runs.engine),
    build: ofList("build", data.builds, runs.build),
    api: ofList("api", data.apis, runs.api),
    date: {
      key: (line) => (runs.date[line.run] ? Number(runs.date[line.run].replaceAll("-", "")) : null),
      isBigFirst: true,
      cell: (line) => extra(runs.date[line.run] || NULL, "date"),
    },
  };

  tokrig.columns = { all: columns, joined, marks, runLink, single };
}
