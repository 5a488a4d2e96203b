// A samples file in the browser: its content (record/samples_file.py), the figures that follow from it
// (record/formulas.py and samples.py: the same names), and those beside what a record says. Loaded
// with the first such file; layout, loads and limits come with record-rules.js.
"use strict";

{
  const { make, words } = tokrig;
  const { Refused, load } = tokrig.records;
  const MOST = { requests: 1e6, values: 1e7, page: 2 ** 26, cells: 500 };
  const NEEDED = (
    "workload concurrency repeat phase output_tokens first_chunk_tokens count_disagreement accepted_tokens error hidden_tokens last_chunk_tokens" +
    " counted_by depth_tokens load rate_per_s due_ns chunk_t_ns chunk_text timings_decode_tokens timings_decode_ms timings_counts_first"
  ).split(" ");
  const limits = () => tokrig.recordRules.samples.limits;
  const sum = (values) => values.reduce((total, one) => total + one, 0);

  // One request

  const laterBursts = ({ stamps, output_tokens: tokens }) => {
    const mean = (stamps.at(-1) - stamps[0]) / Math.max((tokens || stamps.length) - 1, 1);
    const atOnce = Math.min(limits().at_once_share * mean, limits().at_once_ns);
    return stamps.flatMap((one, at) => (at && one - stamps[at - 1] > atOnce ? [at] : []));
  };
  const gapsOf = ({ stamps, later }) => later.map((at, place) => stamps[at] - stamps[later[place - 1] ?? 0]);
  const decodedTokens = (s) => (s.output_tokens === null || s.first_chunk_tokens === null ? null : s.output_tokens - s.first_chunk_tokens - (s.hidden_tokens ?? 0));
  const tpotOf = ({ decoded, stamps }) => (decoded >= 1 && stamps.at(-1) > stamps[0] ? (stamps.at(-1) - stamps[0]) / 1e9 / decoded : null);

  const hasLongGap = (s) => {
    const window = sum(s.gaps);
    const ends = [...s.later, s.stamps.length];
    const letters = (begin, end) => sum(s.texts.slice(begin, end).map((text) => [...text].length)); // as Python counts them
    return s.gaps.some((gap, at) => {
      if (gap <= limits().longest_gap_share * window) return false;
      const came = letters(ends[at], ends[at + 1]) / letters(0);
      return (s.concurrency === 1 && s.due_ns === null) || came > (limits().held_back * gap) / window;
    });
  };
  const isCoarse = (s) => (s.gaps.length > 0 && s.gaps.length <= limits().fewest_stamps) || hasLongGap(s);

  const deciles = (gaps) => {
    const inOrder = [...gaps].sort((a, b) => a - b);
    return [1, 5, 9].map((tenth) => inOrder[Math.floor((gaps.length * tenth) / 10)]);
  };
  const median = (values) => {
    const inOrder = [...values].sort((a, b) => a - b);
    const half = inOrder.length >> 1;
    return inOrder.length % 2 ? inOrder[half] : (inOrder[half - 1] + inOrder[half]) / 2;
  };
  const rounded = (value) => (Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));
  const onTimer = (gaps, expected) => {
    const usual = median(gaps);
    const whole = gaps.map((gap) => Math.max(rounded(gap / usual), 1));
    if (expected <= gaps.length && !whole.includes(2)) return false;
    const off = gaps.map((gap, at) => Math.abs(gap / usual - whole[at])).sort((a, b) => a - b);
    const place = 0.9 * (off.length - 1);
    const [low, high] = [off[Math.floor(place)], off[Math.ceil(place)]];
    return low + (high - low) * (place % 1) <= limits().on_timer;
  };
  const stepsOf = ({ accepted_tokens: accepted, decoded, output_tokens: tokens }) => (accepted === null || tokens === null ? 0 : rounded(((tokens - 1 - accepted) * decoded) / (tokens - 1)));

  const rateUncertainty = (s) => {
    const { decoded, gaps } = s;
    if (!(decoded >= 1) || !gaps.length) return 0;
    const counted = s.count_disagreement > limits().rate_uncertainty ? 0 : s.count_disagreement ?? 0;
    const [window, last, lastGap, [short, usual, long]] = [sum(gaps), s.last_chunk_tokens || 1, gaps.at(-1), deciles(gaps)];
    if (decoded <= limits().bursty * gaps.length) return counted + Math.max(long - short, onTimer(gaps, decoded) ? usual : 0) / window;
    const steps = stepsOf(s);
    if (steps > 0 && steps * limits().steps_shown <= gaps.length && long <= limits().steps_alike * short) {
      return counted + (onTimer(gaps, steps) ? usual / window : 0);
    }
    const token = (window - lastGap) / Math.max(decoded - last, 1);
    return counted + Math.max(window / gaps.length, lastGap - last * token, long - short) / window;
  };

  const clockRanOverTheSame = (gaps, decoded, timed) => {
    const others = timed - decoded;
    let unlike = 1;
    if (others > 0 && decoded > 1 && decoded <= limits().bursty * gaps.length) {
      const [short, usual, long] = deciles(gaps);
      const half = Math.floor(gaps.length / 2);
      const byChance = ((long - short) / usual) * (1 / others + 1 / decoded) ** 0.5;
      const drift = Math.abs(deciles(gaps.slice(-half))[1] / deciles(gaps.slice(0, half))[1] - 1);
      unlike = Math.min(byChance + drift + Math.abs(sum(gaps) / decoded / usual - 1), 1);
    }
    return others * unlike <= limits().other_tokens * timed;
  };
  const clockConfirms = (s) => {
    const timed = s.timings_decode_tokens - (s.timings_counts_first ? 1 : 0);
    if (!(s.timings_decode_ms > 0) || !(timed > 0) || !s.tpot) return false;
    if (s.counted_by === "engine_clock" && isCoarse(s)) return false;
    const difference = 1 / s.tpot / ((timed / s.timings_decode_ms) * 1e3) - 1;
    return clockRanOverTheSame(s.gaps, s.decoded, timed) && Math.abs(difference) <= limits().clock_confirms;
  };

  /** A request with what follows from its stamps. */
  const sampleOf = (row) => {
    const s = { depth_tokens: 0, load: "closed" };
    for (const name of NEEDED) s[name] = (typeof row[name] === "bigint" ? Number(row[name]) : row[name]) ?? s[name] ?? null;
    const { loads, phases } = tokrig.recordRules.samples;
    const isWhole = [s.concurrency, s.repeat, s.depth_tokens].every(Number.isSafeInteger) && typeof s.workload === "string" && s.chunk_t_ns.length === s.chunk_text.length;
    if (!isWhole || !phases.includes(s.phase) || !loads.includes(s.load)) throw new RangeError("a request that cannot be");
    const stamps = Array.from(s.chunk_t_ns, Number);
    Object.assign(s, { stamps, texts: s.chunk_text, decoded: decodedTokens(s) });
    s.tpot = stamps.length ? tpotOf(s) : null;
    s.later = stamps.length ? laterBursts(s) : [];
    s.gaps = gapsOf(s);
    s.told = rateUncertainty(s) > limits().rate_uncertainty && !clockConfirms(s) ? null : s.tpot;
    return s;
  };

  // Many requests

  const FIGURES = { ttft_s: "TTFT, s", tpot_s: "TPOT, s", output_tok_per_s: "Gen tok/s", end_to_end_tok_per_s: "End-to-end tok/s", requests: "Requests", request_errors: "Failed" };
  const CELL = ["workload", "concurrency", "depth_tokens", "load", "rate_per_s"];
  const keyOf = (cell) => CELL.map((name) => cell[name]).join("\n");

  /** The median of the repeats' medians. */
  const summary = (samples, value) => {
    const repeats = new Map();
    for (const s of samples) {
      if (!repeats.has(s.repeat)) repeats.set(s.repeat, []);
      if (Number.isFinite(value(s) ?? NaN)) repeats.get(s.repeat).push(value(s));
    }
    const medians = [...repeats.values()].filter(({ length }) => length).map(median);
    return medians.length ? tokrig.recordWords.significant(median(medians), 6) : null;
  };
  const rates = (samples, name) => ({ tpot_s: summary(samples, (s) => s[name]), output_tok_per_s: summary(samples, (s) => s[name] && 1 / s[name]) });

  /** What one workload at one concurrency gives. ``stamps`` are its rates where they are taken as the
   * stamps have them; ``decoded``, ``elapsed_s`` and ``every`` tell whether an engine's sums confirm that. */
  const cellOf = (samples) => {
    const [first] = samples;
    const measured = samples.filter(({ phase }) => phase === "measured");
    const good = measured.filter(({ error }) => error === null);
    return {
      ...Object.fromEntries(CELL.map((name) => [name, first[name]])),
      label: tokrig.recordWords.label({ ...first, workload: { name: first.workload.slice(0, 100) } }),
      requests: measured.length,
      request_errors: measured.length - good.length,
      warmup: samples.length - measured.length,
      ttft_s: summary(good, ({ stamps }) => (stamps.length ? stamps[0] / 1e9 : null)),
      ...rates(good, "told"),
      end_to_end_tok_per_s: summary(good, ({ output_tokens: tokens, stamps }) => (tokens === null || !stamps.length ? null : tokens / (stamps.at(-1) / 1e9))),
      stamps: rates(good, "tpot"),
      decoded: sum(good.map((s) => s.decoded ?? 0)),
      elapsed_s: sum(good.map((s) => (s.tpot ?? 0) * (s.decoded ?? 0))),
      every: good.every(({ tpot }) => tpot),
    };
  };
  const countersConfirm = ({ decoded, elapsed_s: elapsed, every }, { output_tokens: tokens = 0, requests = 0, decode_s: seconds = 0 }) => {
    const counted = tokens - requests;
    if (!every || !elapsed || !(requests > 0 && counted > 0 && seconds > 0)) return false;
    const difference = decoded / elapsed / (counted / seconds) - 1;
    return counted - decoded <= limits().other_tokens * decoded && Math.abs(difference) <= limits().clock_confirms;
  };

  // The file

  const CRC = Uint32Array.from({ length: 256 }, (_, byte) => Array.from({ length: 8 }).reduce((crc) => (crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1), byte));
  const crc32 = (bytes) => ~bytes.reduce((crc, byte) => CRC[(crc ^ byte) & 255] ^ (crc >>> 8), -1);

  /** Every page is there, whole by its checksum and of a size that can be; else RangeError. */
  const checkPages = (buffer, { meta_data: column }) => {
    const begin = Number(column.dictionary_page_offset || column.data_page_offset);
    const reader = { view: new DataView(buffer, begin, Number(column.total_compressed_size)), offset: 0 };
    let values = 0;
    while (reader.offset < reader.view.byteLength) {
      const { compressed_page_size: size, crc, ...header } = window.hyparquet.parquetHeader(reader);
      const bytes = new Uint8Array(buffer, begin + reader.offset, size);
      reader.offset += size;
      values += header.data_page_header?.num_values ?? 0;
      const isSmall = reader.offset <= reader.view.byteLength && header.uncompressed_page_size <= MOST.page && (header.dictionary_page_header?.num_values ?? 0) <= MOST.requests;
      if (!isSmall || crc32(bytes) !== crc) throw new RangeError("a page that is damaged");
    }
    if (values !== Number(column.num_values)) throw new RangeError("pages of other numbers");
  };

  const checkLayout = ({ key_value_metadata: pairs, schema }, name) => {
    const { columns, layout } = tokrig.recordRules.samples;
    const told = pairs?.find(({ key }) => key === "tokrig_samples")?.value ?? "";
    if (!/^\d{1,9}$/.test(told)) throw new Refused(`${name}: a Parquet file, but no samples of tokrig`, "drop the .yaml of a run, or the .parquet with the same name from content/benchmarks/samples");
    if (Number(told) > layout) throw new Refused(`${name}: of a newer tokrig than this page`, "look at it on a page that was built since");
    const found = [];
    for (let at = 1; at < schema.length; at++) {
      const parts = [schema[at].name];
      for (let more = 1; more && at < schema.length; at += more) {
        const { type, converted_type: converted, logical_type: logical, num_children: children, repetition_type: repetition } = schema[at];
        parts.push(type, converted, logical?.type, repetition);
        more = Number(children === 1);
      }
      found.push(parts.filter(Boolean).join(" "));
    }
    const expected = columns.filter(([, , since]) => since <= Number(told)).map(([column, type]) => `${column} ${type}`);
    const at = expected.findIndex((one, place) => one !== found[place]);
    if (at >= 0 || found.length !== expected.length) {
      throw new Refused(`${name}: its columns are not those of a samples file${at < 0 ? "" : `: ${expected[at].split(" ")[0]} is missing, or of another type`}`, "drop it as tokrig run wrote it");
    }
    return expected.map((one) => one.split(" ")[0]);
  };

  const requestsOf = async function* (buffer, metadata, names) {
    const decompress = (bytes, size) => window.fzstd.decompress(bytes, new Uint8Array(size));
    const columns = NEEDED.filter((name) => names.includes(name));
    let rowStart = 0;
    for (const { columns: chunks, num_rows: rows } of metadata.row_groups) {
      const isWhole = names.every((name, at) => chunks[at].meta_data.path_in_schema[0] === name && (name.startsWith("chunk_") || chunks[at].meta_data.num_values === rows));
      if (!isWhole) throw new RangeError("a group of other columns");
      for (const chunk of chunks) checkPages(buffer, chunk);
      const rowEnd = rowStart + Number(rows);
      yield* await window.hyparquet.parquetReadObjects({ file: buffer, metadata, columns, rowStart, rowEnd, compressors: { ZSTD: decompress } });
      rowStart = rowEnd;
    }
  };

  /** What the bytes of a file give, cell by cell. Refusals are thrown. */
  const cellsOf = async (bytes, name) => {
    await Promise.all(["vendor/fzstd/fzstd.umd.min", "vendor/hyparquet/hyparquet.iife.min", "record-rules", "record-words"].map((one) => load(`assets/${one}.js`)));
    const cells = new Map();
    try {
      const metadata = window.hyparquet.parquetMetadata(bytes.buffer);
      const names = checkLayout(metadata, name);
      const values = sum(metadata.row_groups.flatMap(({ columns }) => columns.map(({ meta_data: one }) => Number(one.num_values) * (one.path_in_schema[0] === "chunk_t_ns"))));
      if (!(metadata.num_rows <= MOST.requests && values <= MOST.values)) throw new Refused(`${name}: more requests than a page can read`, "tokrig check reads it beside its record");
      for await (const row of requestsOf(bytes.buffer, metadata, names)) {
        const sample = sampleOf(row);
        for (const heavy of ["chunk_t_ns", "chunk_text", "texts", "gaps", "later"]) delete sample[heavy];
        sample.stamps = [sample.stamps[0], sample.stamps.at(-1)].filter(words.isKnown);
        const key = keyOf(sample);
        if (!cells.has(key)) cells.set(key, []);
        cells.get(key).push(sample);
        if (cells.size > MOST.cells) throw new Refused(`${name}: more shapes than a run has`, "tokrig check reads it beside its record");
      }
    } catch (problem) {
      if (problem instanceof Refused) throw problem;
      throw new Refused(`${name}: samples that are damaged or not whole`, "copy the file once more");
    }
    if (!cells.size) throw new Refused(`${name}: samples of no request`, "was the run stopped before its first result?");
    return [...cells.values()].map(cellOf);
  };

  // Beside what a record says

  /** The figures of a cell under what its record says: methodology 1 took the stamps as they are, and an engine's
   * sums may confirm them. The rows of this page tell neither: there the stamps count where the row has their rate. */
  const given = (cell, said) => {
    const asStamped = said && (said.counters === undefined ? isAlike(cell.stamps.output_tok_per_s, said.output_tok_per_s, 1e-5) : said.methodology === 1 || countersConfirm(cell, said.counters ?? {}));
    return asStamped ? { ...cell, ...cell.stamps } : cell;
  };
  const isAlike = (one, other, share) => one === other || (words.isKnown(one) && words.isKnown(other) && Math.abs(one - other) <= share * Math.abs(other));
  // Records have six digits, columns of the page's rows but the headline four.
  const agrees = (name, one, said) => isAlike(one, said[name], said.counters === undefined && name !== "output_tok_per_s" ? 5.1e-4 : 1e-5);

  const cellText = (name, mine, said) => {
    const isTold = said && said[name] !== undefined;
    const beside = isTold ? [make("span", { class: "spread" }, `record ${said[name] ?? words.NULL}${mine && !agrees(name, mine[name], said) ? ", differs" : ""}`)] : [];
    return make("td", { class: "num" }, String(mine?.[name] ?? words.NULL), ...beside);
  };

  const wordFor = (mine, said, from) => {
    if (!said) return `${from} does not have it`;
    if (!mine) return "no samples of it";
    return Object.keys(FIGURES).every((name) => said[name] === undefined || agrees(name, mine[name], said)) ? "agrees" : "differs";
  };

  /** Rows of a samples file, for its list: ``said`` are the results of its record, ``from`` names where they are. */
  const rows = ({ cells, run }, said, from) => {
    const results = new Map((said ?? []).map((one) => [keyOf(one), one]));
    const lines = cells.map((cell) => [cell.label, given(cell, results.get(keyOf(cell))), results.get(keyOf(cell))]);
    const measured = new Set(cells.map(keyOf));
    for (const [key, one] of results) if (!measured.has(key)) lines.push([one.label, null, one]);
    const verdicts = lines.map(([, mine, one]) => wordFor(mine, one, from));
    const off = verdicts.filter((one) => one !== "agrees").length;
    const table = make(
      "table", {},
      make("caption", { class: "unseen" }, `Figures of the samples of ${run}`),
      make("thead", {}, make("tr", {}, ...["Shape", ...(said ? ["The record"] : [])].map((head) => make("th", { scope: "col" }, head)), ...[...Object.values(FIGURES), "Warm-up"].map((head) => make("th", { scope: "col", class: "num" }, head)))),
      make("tbody", {}, ...lines.map(([label, mine, one], at) => make(
        "tr", {},
        make("th", { scope: "row" }, make("bdi", {}, label)),
        ...(said ? [make("td", {}, verdicts[at])] : []),
        ...Object.keys(FIGURES).map((name) => cellText(name, mine, one)),
        make("td", { class: "num" }, String(mine?.warmup ?? words.NULL)),
      ))),
    );
    const sentence = said
      ? `Held against ${from}: ${off ? `${words.count(off, "row")} of ${lines.length} not as these samples give` : "every figure that it has follows from these samples"}.`
      : "No record of this name is here, so these are rows of their own, never valid: drop its .yaml, too.";
    return [make("span", { class: "spread" }, sentence), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Samples of ${run}` }, table)];
  };

  tokrig.samples = { cellsOf, given, rows };
}
