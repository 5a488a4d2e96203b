// The rows that are shown, as files: the browser makes them. Columns have the names and meanings of
// data/results.csv where it has them; figures are rounded as the page holds them.
"use strict";

{
  const { data, view } = tokrig;
  const { runs, rows } = data;
  const { NULL } = tokrig.words;
  const { facts, modelOf, rigOf, kindOf, VERDICTS } = view;

  const text = (label) => (label === NULL ? null : label);
  const ofMetric = (column) => (row) => rows[column][row];
  const ofRun = (read) => (row) => read(rows.run[row]);
  const COLUMNS = [
    ["run_id", ofRun((run) => runs.id[run])],
    ["page", ofRun((run) => (runs.id[run].startsWith("dropped-") ? null : `runs/${runs.id[run]}.html`))],
    ["errata", ofRun((run) => runs.errata[run])],
    ["status", ofRun((run) => kindOf(run)[2])],
    ["provenance", ofRun((run) => kindOf(run)[0])],
    ["level", ofRun((run) => kindOf(run)[1])],
    ["date", ofRun((run) => runs.date[run] || null)],
    ["family", ofRun((run) => facts.family(run)[0])],
    ["model", ofRun((run) => modelOf(run)[3])],
    ["quant", ofRun((run) => text(facts.quant(run)[0]))],
    ["parameters", ofRun((run) => (modelOf(run)[6] ? null : modelOf(run)[4]))],
    ["active_parameters", ofRun((run) => modelOf(run)[5])],
    ["model_bytes", ofRun((run) => runs.bytes[run])],
    ["rig", ofRun((run) => rigOf(run)[1])],
    ["hardware", ofRun((run) => rigOf(run)[0])],
    ["engine", ofRun((run) => text(facts.engine(run)[0]))],
    ["build", ofRun((run) => text(facts.build(run)[0]))],
    ["api", ofRun((run) => text(facts.api(run)[0]))],
    ["mode", ofRun((run) => facts.mode(run)[2] ?? facts.mode(run)[1])],
    ["workload", (row) => data.shapes[rows.shape[row]]],
    ["concurrency", ofMetric("concurrency")],
    ["verdict", (row) => VERDICTS[rows.valid[row]]],
    ["output_tok_per_s_median", ofMetric("gen")],
    ["prefill_tok_per_s_median", ofMetric("prefill_tok_per_s")],
    ["ttft_s_median", ofMetric("ttft_s")],
    ["end_to_end_tok_per_s_median", ofMetric("end_to_end_tok_per_s")],
    ["engine_vram_bytes", ofMetric("memory.engine_vram_bytes")],
    ["engine_rss_bytes", ofMetric("memory.engine_rss_bytes")],
    ["j_per_output_token", ofMetric("energy.j_per_output_token")],
    ["ceiling_share", ofMetric("ceiling_share")],
    ["top1_agreement", ofRun((run) => data.quality[run]?.[0])],
    ["kl_nats", ofRun((run) => data.quality[run]?.[1])],
  ];

  // What a spreadsheet takes for the begin of a formula: the rule of store/table.py.
  const FORMULA = /^[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]/;

  function cell(value) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "string") return String(value);
    const safe = FORMULA.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  const names = COLUMNS.map(([name]) => name);
  const table = (found) => found.map((row) => COLUMNS.map(([, read]) => read(row) ?? null));

  tokrig.download = {
    csv: (found) => [names, ...table(found)].map((one) => `${one.map(cell).join(",")}\r\n`).join(""),
    json: (found) =>
      `{"columns":${JSON.stringify(names)},\n"data":[\n${table(found).map((one) => JSON.stringify(one)).join(",\n")}\n]}\n`,

    /** Give a text to the reader as a file. */
    save(name, kind, content) {
      const address = URL.createObjectURL(new Blob([content], { type: kind }));
      tokrig.make("a", { href: address, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60000);
    },
  };
}
