// Files of one's own beside the published rows, for this visit: kept in the browser, sent nowhere.
// Stands before the scripts that read tokrig.data, and adds to its columns (site/table.py).
"use strict";

{
  const KEY = "tokrig-dropped";
  const MOST = 20; // records at once
  const PREFIX = "dropped-";

  const listed = (key) => {
    try {
      const found = JSON.parse(tokrig.kept.get(key) || "[]");
      return Array.isArray(found) ? found : [];
    } catch {
      return []; // another version's, or nobody's
    }
  };
  const all = () => listed(KEY);
  const keep = (list) => tokrig.kept.set(KEY, JSON.stringify(list));

  /** A record, ready for tables, for a comparison and for a pull request. */
  const entryOf = (record, file) => {
    const words = tokrig.recordWords;
    return {
      id: record.id,
      file,
      run: words.runOf(record),
      subject: { ...words.subject(record), id: PREFIX + record.id },
      pull: words.contribution(record),
      verdict: words.verdict(record),
      curves: words.curvesOf(record),
      methodology: record.provenance.methodology,
      kind: record.provenance.kind,
      source: record.provenance.source,
      results: record.results.map((one) => words.said(one, record.provenance.methodology)),
      notes: record.provenance.kind === "imported" ? record.notes : null,
      private: words.looksPrivate(record).slice(0, 20),
    };
  };

  // What has no page of its own leads to the list of these files.
  const published = tokrig.url;
  tokrig.url = (path) => (/^(runs|models|rigs)\/dropped-/.test(path) ? published("add.html#yours") : published(path));

  // Samples, which are of the run that their file is named after

  const SAMPLES = "tokrig-dropped-samples";
  const samples = () => listed(SAMPLES);
  const keepSamples = (list) => tokrig.kept.set(SAMPLES, JSON.stringify(list));

  /** What this page's rows say of a published run; null where it is none. */
  const publishedRows = ({ rows, runs, shapes }, id) => {
    const run = runs.id.indexOf(id);
    if (run < 0) return null;
    return rows.run.flatMap((one, row) => {
      const cell = { workload: shapes[rows.shape[row]], concurrency: rows.concurrency[row], depth_tokens: 0, load: "closed", rate_per_s: null };
      const figures = { ttft_s: rows.ttft_s[row], output_tok_per_s: rows.gen[row], end_to_end_tok_per_s: rows.end_to_end_tok_per_s[row] };
      return one === run ? [{ ...cell, label: `${cell.workload} × ${cell.concurrency}`, ...figures }] : [];
    });
  };

  const addSamples = async (cells, name) => {
    const { Refused, load } = tokrig.records;
    if (!tokrig.data) await load("assets/rows.js");
    const run = name.replace(/\.parquet$/i, "").slice(0, 200);
    const others = samples().filter((one) => one.run !== run);
    if (others.length >= MOST) throw new Refused(`${MOST} files of samples are here at most`, "remove some of them");
    keepSamples([...others, { samples: true, run, file: name.slice(0, 120), cells, published: publishedRows(tokrig.data, run) }]);
    if (samples().length !== others.length + 1) throw new Refused(`${name}: more than this browser keeps`, "remove some of the files that are here");
    return samples().slice(-1);
  };

  // Among the rows of tokrig.data

  const place = (list, word, isSame) => {
    const found = list.findIndex(isSame);
    return found < 0 ? list.push(word) - 1 : found;
  };
  const labelled = (list, word) => place(list, word, (one) => one[0] === word[0]);

  const append = ({ id, run }) => {
    const { data } = tokrig;
    // Other tools write names in letters of their own: gemma-3 stands with Gemma-3.
    const same = (one, other) => one.toLowerCase() === other.toLowerCase();
    const family = place(data.families, run.family, (one) => same(one[0], run.family[0]));
    const [variant, address, name, ...sizes] = run.model;
    const model = place(data.models, [family, variant, PREFIX + address, name, ...sizes], (one) => one[0] === family && same(one[3], name));
    const [label, rigId, ...machine] = run.rig;
    const rig = place(data.rigs, [label, PREFIX + rigId, ...machine], (one) => one[1] === rigId);
    const kind = place(data.kinds, run.kind, (one) => one.join() === run.kind.join());
    const of = { id: PREFIX + id, model, rig, kind, errata: run.errata, apart: "", bytes: run.bytes, date: run.date };
    for (const word of ["quant", "backend", "engine", "build", "api", "mode", "settings"]) {
      const list = data[word === "settings" ? word : `${word}s`];
      if (list) of[word] = labelled(list, run[word]);
    }
    const number = data.runs.id.length;
    for (const [column, values] of Object.entries(data.runs)) values.push(of[column] ?? null);
    for (const { shape, values, accepted } of run.rows) {
      if (accepted !== null) data.accepted[data.rows.run.length] = accepted;
      const row = { ...values, run: number, shape: place(data.shapes, shape, (one) => one === shape) };
      for (const [column, list] of Object.entries(data.rows)) list.push(row[column] ?? null);
    }
    if (run.skipped.length) data.skipped[number] = run.skipped;
  };

  /** An engine's own benchmark is no row, and no curve. */
  const isRow = ({ run, curves: mine = {} }) => run.rows.length || run.skipped.length || Object.values(mine).some((found) => found.length);

  /** The curves of these files in a view of the curves page, as those of published runs are. */
  const curves = (view) =>
    all().filter(isRow).flatMap(({ id, curves: mine = {} }) =>
      (mine[view] ?? []).map((curve, place) => {
        const key = PREFIX + id;
        return { run: tokrig.data.runs.id.indexOf(key), key: place ? `${key}~${place}` : key, ...curve };
      }),
    );

  /** Add the files of this visit to the rows of all results, and tell which runs they are: their
   * figures stand in tables, and in no rank. */
  const join = () => {
    const { data } = tokrig;
    data.published = data.runs.id.length;
    for (const one of all()) if (isRow(one)) append(one);
  };

  tokrig.dropped = {
    all,
    curves,
    join,
    subjects: () => all().map(({ subject }) => subject),
    /** Read a file or a text and keep what it holds; its entries. ``model`` names what another
     * tool's file is of, where that does not say it. Refusals are thrown. */
    async add(file, model = null) {
      const name = typeof file === "string" ? "what was pasted" : file.name;
      const { Refused, load, recordsOf, samplesOf } = tokrig.records;
      const cells = await samplesOf(file, name);
      if (cells) return addSamples(cells, name);
      const records = await recordsOf(file, name, model);
      await load("assets/record-words.js");
      const entries = records.map((record) => entryOf(record, name.slice(0, 120)));
      const others = all().filter(({ id }) => !entries.some((entry) => entry.id === id));
      if (others.length + entries.length > MOST) throw new Refused(`${MOST} records are here at most, ${others.length} are already`, "remove some of them");
      keep([...others, ...entries]);
      if (all().length !== others.length + entries.length) throw new Refused(`${name}: more than this browser keeps`, "remove some of the files that are here");
      return entries;
    },
    remove: (id) => keep(all().filter((one) => one.id !== id)),
    samples,
    removeSamples: (run) => keepSamples(samples().filter((one) => one.run !== run)),
  };
  if (tokrig.data) join();
}
