// What a record is called and what it is beside others: the rules of naming.py, compare.subject and
// site/table.py for a record that was dropped. Patterns and sentences come with record-rules.js;
// tests hold every text against Python's.
"use strict";

{
  const { isKnown } = tokrig.words;
  const rules = () => tokrig.recordRules;

  // Numbers as Python writes them: of two values as near, the even one.

  const fixed = (value, digits) => {
    const text = value.toFixed(digits);
    const exact = value.toFixed(Math.min(100, digits + 30));
    const isTie = /^5 0*$|^50*$/.test(exact.slice(exact.indexOf(".") + 1 + digits));
    if (!isTie || Number(text.at(-1)) % 2 === 0) return text;
    const step = 10 ** -digits;
    return (Math.abs(Number(text)) > Math.abs(value) ? Number(text) - Math.sign(value) * step : Number(text)).toFixed(digits);
  };
  const plain = (value) => {
    const text = String(Number(value.toPrecision(6)));
    return text;
  };
  const humanBytes = (count) => {
    if (!isKnown(count)) return tokrig.words.NULL;
    if (count >= 2 ** 30) return `${fixed(count / 2 ** 30, 2)} GiB`;
    return count >= 2 ** 20 ? `${fixed(count / 2 ** 20, 1)} MiB` : `${fixed(count, 0)} B`;
  };

  // Texts

  const unseen = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
  const tidy = (text) => text.split(/\s+/u).filter(Boolean).join(" ");
  const slug = (text) => text.toLowerCase().replace(/[^a-z0-9._]+/g, "-").replace(/^[-.]+|[-.]+$/g, "") || "unnamed";
  const filterWord = (text) => slug(text).slice(0, rules().names.longest);
  const inMarkdown = (text) => {
    const active = new Set(rules().names.active);
    return [...tidy(text.replace(unseen, " "))].map((one) => (active.has(one) ? `&#${one.codePointAt(0)};` : one)).join("");
  };
  const filled = (name, gaps) => rules().texts[name].replace(/\{(\w+)\}/g, (_, gap) => gaps[gap]);
  const join = (...parts) => parts.filter(Boolean).join(" · ");

  // SHA-256 (FIPS 180-4), of bytes, or of a text as UTF-8: pages on plain HTTP have no crypto.subtle.

  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
  const fraction = (value) => ((value - Math.floor(value)) * 2 ** 32) | 0;
  const sha256 = (of) => {
    const bytes = typeof of === "string" ? new TextEncoder().encode(of) : of;
    const padded = new Uint8Array(Math.ceil((bytes.length + 9) / 64) * 64);
    padded.set(bytes);
    padded[bytes.length] = 0x80;
    const data = new DataView(padded.buffer);
    data.setUint32(data.byteLength - 8, bytes.length / 2 ** 29);
    data.setUint32(data.byteLength - 4, (bytes.length * 8) >>> 0);
    const keys = primes.map((prime) => fraction(Math.cbrt(prime)));
    let state = primes.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));
    const turned = (word, by) => (word >>> by) | (word << (32 - by));
    for (let block = 0; block < data.byteLength; block += 64) {
      const w = Array.from({ length: 16 }, (_, at) => data.getInt32(block + 4 * at));
      for (let t = 16; t < 64; t++) {
        const s0 = turned(w[t - 15], 7) ^ turned(w[t - 15], 18) ^ (w[t - 15] >>> 3);
        const s1 = turned(w[t - 2], 17) ^ turned(w[t - 2], 19) ^ (w[t - 2] >>> 10);
        w[t] = (w[t - 16] + s0 + w[t - 7] + s1) | 0;
      }
      let [a, b, c, d, e, f, g, h] = state;
      for (let t = 0; t < 64; t++) {
        const s1 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25);
        const first = (h + s1 + ((e & f) ^ (~e & g)) + keys[t] + w[t]) | 0;
        const s0 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22);
        const second = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
      }
      state = [a, b, c, d, e, f, g, h].map((word, at) => (word + state[at]) | 0);
    }
    return state.map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  };

  // Names (naming.py)

  const modelName = ({ family, variant }) => (variant === null || family.endsWith(variant) ? family : `${family} ${variant}`);
  const modelLabel = (model) => join(modelName(model), model.quant);
  const withoutVendor = (name) => name.replace(new RegExp(rules().names.vendors), "");
  const gpuName = (gpu) => withoutVendor(gpu.name) + (gpu.mig_profile ? ` MIG ${gpu.mig_profile}` : "");
  const cpuName = ({ id, cpu }) => {
    if (!cpu.model) return id;
    return withoutVendor(tidy(cpu.model.replace(new RegExp(rules().names.noise, "g"), " "))) || cpu.model;
  };
  const limitedBytes = ({ usable_bytes: usable, total_bytes: total }) =>
    !usable || (total !== null && usable > total * (1 - rules().names.negligible)) ? null : usable;

  const even = (value) => Number(fixed(value, 0));
  const memoryGb = (count) => {
    const size = count / 2 ** 30;
    const sold = rules().names.sold.find((one) => size <= one * 1.01);
    return sold && size >= sold * rules().names.least_shown ? sold : Math.max(1, even(size));
  };
  const memoryText = (count) => {
    if (count < rules().names.least_shown * 2 ** 30) return `${Math.max(1, even(count / 2 ** 20))} MB`;
    const size = memoryGb(count);
    return size % 512 === 0 && size >= 1024 ? `${size / 1024} TB` : `${size} GB`;
  };
  const withMemory = (name, count, kind = "") => {
    if (!isKnown(count)) return name;
    const size = memoryText(count);
    const isTold = !kind && new RegExp(`(?<![\\w.])${size.replace(" ", " ?")}\\b`, "i").test(name);
    return isTold ? name : `${name} · ${size}${kind}`;
  };
  const cardName = (rig, gpu) => {
    const [own, main] = [gpu.vram_bytes, rig.memory.total_bytes];
    if (!gpu.unified_memory) return withMemory(gpuName(gpu), own);
    const aside = main && gpu.vendor === "amd" ? own || 0 : 0;
    return withMemory(gpuName(gpu), (main || own || 0) + aside || null, " unified");
  };
  const hardwareName = (rig) => {
    if (rig.id === rules().names.unknown_rig) return "machine not known";
    const { usable_cpus: usable, threads } = rig.cpu;
    const cpus = usable && threads && usable < threads ? usable : null;
    const limit = cpus ? `${plain(cpus)} CPU${cpus === 1 ? "" : "s"}` : "";
    if (!rig.gpus.length) {
      return withMemory(join(cpuName(rig), limit), limitedBytes(rig.memory) || rig.memory.total_bytes, " RAM");
    }
    const cards = rig.gpus.map((gpu) => cardName(rig, gpu));
    const alike = cards.length > 1 && new Set(cards).size === 1;
    return join(alike ? `${cards.length} × ${cards[0]} each` : cards.join(" + "), limit);
  };
  const gpusKnown = (rig) => rig.gpus.length > 0 || [null, "probes"].includes(rig.facts_from);
  const vramGb = (rig) => {
    if (!rig.gpus.length) return gpusKnown(rig) ? 0 : null;
    const sizes = rig.gpus.filter((gpu) => gpu.vram_bytes).map((gpu) => memoryGb(gpu.vram_bytes));
    return sizes.length === rig.gpus.length ? sizes.reduce((sum, one) => sum + one, 0) : null;
  };
  const backendLabel = ({ engine, build, api, api_asked: asked, wrapper }) => {
    const computed = asked === null || asked === api ? api : [api, `${asked} asked`].filter(Boolean).join(", ");
    const name = [engine, build].filter(Boolean).join(" ") + (computed ? ` (${computed})` : "");
    return wrapper ? `${name} via ${wrapper}` : name;
  };
  const modeName = (name) => name.split(/\s*\+\s*/).map((part) => rules().names.modes[part] ?? part).join(", ");
  const modeLabel = (name) => (name === "baseline" ? "" : modeName(name));

  const wordOf = ({ verdict, unverified, unchecked }) =>
    verdict === "valid" && (unverified.length || unchecked.includes("samples")) ? "unverified" : verdict;
  const stands = ({ verdict, unverified }) => verdict !== "invalid" && !unverified.includes("implausible");
  const isPlain = ({ load, depth_tokens: depth }) => load === "closed" && !depth;
  const levelOf = ({ level, kind }) => level || kind;

  // One side of a comparison (compare.subject)

  const scalar = (value) => (typeof value === "boolean" ? (value ? "yes" : "no") : String(value));
  const asPython = (value) => (typeof value === "boolean" ? (value ? "True" : "False") : String(value));
  const MOST_TEXT = 400;
  const valueText = (value) => {
    let text = scalar(value);
    if (Array.isArray(value)) text = value.map(scalar).join(", ");
    else if (typeof value === "object") text = Object.keys(value).sort().map((key) => `${key}=${asPython(value[key])}`).join(", ");
    const visible = text.replace(unseen, (one) => " ".repeat([...one].length));
    if (visible === text && [...text].length <= MOST_TEXT) return text;
    return `${[...visible].slice(0, MOST_TEXT).join("")}… (SHA-256 ${sha256(text).slice(0, 12)})`;
  };
  const at = (record, key) => key.split(".").reduce((found, name) => found?.[name] ?? null, record);
  const isEmpty = (value) => value === null || (typeof value === "object" && !Object.keys(value).length);
  const UNLESS_ASKED = "mode.speculative mode.draft_model mode.draft_tokens mode.reasoning_asked mode.reasoning_switch mode.offload".split(" ");

  const ofGpus = ({ rig, provenance }, name) => {
    if (!rig.gpus.length) return provenance.kind === "measured" && gpusKnown(rig) ? "none" : null;
    const values = rig.gpus.map((gpu) => gpu[name]);
    if (name === "mig_profile") return values.map((value) => value || "whole");
    return values.includes(null) ? null : values;
  };

  const keyValue = (record, key) => {
    const { backend, mode, model, provenance } = record;
    const measured = provenance.kind === "measured";
    if (key.startsWith("rig.gpus.")) return ofGpus(record, key.replace("rig.gpus.", ""));
    if (key === "provenance.methodology" && !measured) return null;
    const value = at(record, key);
    if (key === "rig.id" && value === rules().names.unknown_rig) return null;
    if (key === "mode.name") return value.split("+").filter((part) => !part.startsWith("cap-")).join("+") || "baseline";
    if (key === "backend.argv" && value?.length && model.file) return value.map((word) => word.replaceAll(model.file, "<model file>"));
    const tells = measured || mode.name === "baseline";
    const absent =
      (UNLESS_ASKED.includes(key) && tells) ||
      (key === "mode.draft_sha256" && mode.draft_model === null && tells) ||
      (key === "backend.env" && backend.argv?.length) ||
      (key === "backend.wrapper" && backend.managed);
    if (absent) return isEmpty(value) || !value ? "none" : value;
    return isEmpty(value) ? null : value;
  };

  const usable = (...values) => values.every((value) => value > 1e-12 && value < 1e12);
  const figure = (found) => {
    if (!found || !usable(found.median)) return null;
    const isRange = usable(...[found.min, found.max].filter(isKnown));
    return {
      ...found,
      ...(isRange ? {} : { min: null, max: null }),
      ci95: found.ci95 && usable(...found.ci95) ? found.ci95 : null,
      starts: usable(...found.starts) ? found.starts : [],
    };
  };
  const startsOf = ({ backend, provenance }, { repeats }) => {
    if (backend.managed === false) return 1;
    const starts = provenance.server_starts;
    return starts === null || repeats === null ? starts : Math.min(starts, repeats);
  };
  const tokens = (count) => (count && count % 1024 === 0 ? `${count / 1024}k` : String(count));
  const shapeOf = ({ workload, depth_tokens: depth, load, rate_per_s: rate }) => {
    const more = ["closed", workload.name].includes(load) ? "" : `, ${load}${rate === null ? "" : ` ${plain(rate)}/s`}`;
    return `${workload.name}${depth ? ` at depth ${tokens(depth)}` : ""}${more}`;
  };
  /** record/samples.py: Cell.label. */
  const label = (cell) => (["closed", "sustained", "session"].includes(cell.load) ? `${shapeOf(cell)} × ${cell.concurrency}` : shapeOf(cell));
  /** What its samples give again of a result, and what that depends on. */
  const said = (result, methodology) => ({
    ...Object.fromEntries(["concurrency", "depth_tokens", "load", "rate_per_s", "requests", "request_errors"].map((name) => [name, result[name]])),
    ...Object.fromEntries(["ttft_s", "tpot_s", "output_tok_per_s", "end_to_end_tok_per_s"].map((name) => [name, result[name]?.median ?? null])),
    workload: result.workload.name,
    label: valueText(label(result)),
    counters: result.counters,
    methodology,
  });

  const cellOf = (record, result, metrics) => {
    const verdict = wordOf(result.validity);
    const codes = verdict === "invalid" ? result.validity.reasons : result.validity.unverified;
    return {
      shape: valueText(shapeOf(result)),
      hash: result.workload.content_hash,
      prompt_tokens: result.prompt_tokens?.median ?? null,
      concurrency: result.concurrency,
      verdict,
      codes: codes.map(valueText),
      starts: startsOf(record, result),
      prefill_source: result.prefill_source,
      figures: Object.fromEntries(metrics.map((name) => [name, figure(result[name])])),
    };
  };

  const shapeNamed = ({ workload }) => workload.name ?? workload;
  const sorted = (list) => [...list].sort((one, other) => tokrig.words.byShape(shapeNamed(one), shapeNamed(other)));
  /** With its results by shape, as site/table.in_order has those of published runs. */
  const inOrder = (record) => ({ ...record, results: sorted(record.results), skipped: sorted(record.skipped), ladders: sorted(record.ladders) });

  /** What tokrig.compare needs of a record: Python's subject(record).as_dict(). */
  const subject = (record) => {
    const { compared, keys } = rules();
    const values = keys.filter((key) => key !== "concurrency").map((key) => [key, keyValue(record, key)]);
    const place = join(backendLabel(record.backend), hardwareName(record.rig), modeLabel(record.mode.name));
    return {
      id: record.id,
      name: valueText(modelLabel(record.model)),
      place: valueText(place),
      level: levelOf(record.provenance),
      keys: { ...Object.fromEntries(values.filter(([, value]) => value !== null).map(([key, value]) => [key, valueText(value)])), concurrency: "every" },
      cells: sorted(record.results).map((result) => cellOf(record, result, compared)),
      noise: {},
    };
  };

  // The text of a pull request (compare/contribution.py), but for what it stands beside

  const machine = (record) => {
    const { rig } = record;
    const memory = humanBytes(limitedBytes(rig.memory) || rig.memory.total_bytes);
    const driver = rig.gpus[0]?.driver;
    const parts = [hardwareName(rig), rig.cpu.model, filled("memory", { memory }), driver && filled("driver", { driver }), rig.os];
    return [...new Set(parts.filter(Boolean))].join(", ");
  };

  const tableLine = (record) => {
    const { validity } = record;
    const rates = record.results
      .filter((result) => isPlain(result) && stands(result.validity) && result.output_tok_per_s)
      .map((result) => result.output_tok_per_s.median);
    const [low, high] = [Math.min, Math.max].map((end) => (rates.length ? fixed(end(...rates), 1) : "–"));
    const codes = (validity.reasons.length ? validity.reasons : validity.unverified).join(", ");
    const cells = {
      model: modelLabel(record.model),
      engine: backendLabel(record.backend),
      speed: low === high ? low : `${low}–${high}`,
      level: levelOf(record.provenance),
      verdict: codes ? `${wordOf(validity)} (${codes})` : wordOf(validity),
    };
    return filled("line", Object.fromEntries(Object.entries(cells).map(([name, cell]) => [name, inMarkdown(cell)])));
  };

  /** Title, branch and file of a pull request, and its text beside the nearest record: a comparison
   * as tokrig.compare gives it, null where nobody has measured the model. */
  const contribution = (record) => {
    const names = { model: modelLabel(record.model), machine: hardwareName(record.rig) };
    const place = filled("place", { rig: record.rig.id, id: record.id });
    const name = join(modelName(record.model), record.model.quant, names.machine, backendLabel(record.backend), modeLabel(record.mode.name));
    return {
      title: filled("title", names).replaceAll(" · ", " "),
      branch: filled("branch", { id: record.id }),
      place,
      name,
      before: [rules().texts.head, tableLine(record), "", filled("machine", { rig: record.rig.id, facts: inMarkdown(machine(record)) }), ""],
      first: filled("first", { model: inMarkdown(names.model) }),
      after: ["", filled("files", { files: [place, `benchmarks/samples/${record.id}.parquet`].map((one) => `\`${one}\``).join(", ") }), "", rules().texts.checked],
    };
  };
  const besideText = ({ name, first }, pair) => {
    if (!pair) return first;
    const mean = pair.means.find(({ metric }) => metric === "output_tok_per_s");
    const ratio = mean ? filled("ratio", { ratio: fixed(mean.value, 2), shapes: mean.shapes }) : "";
    const nearest = filled("nearest", { id: pair.a, grade: pair.class, reason: pair.reason });
    return `- ${inMarkdown(`${name}: ${nearest}${ratio}`)}`;
  };
  const pullRequest = (one, pair) => [...one.before, besideText(one, pair), ...one.after].join("\n");

  // What looks private (record/privacy.py): by its form; names are for those who know them

  const texts = (value, place = "") => {
    if (typeof value === "string") return [[place, value]];
    if (Array.isArray(value)) return value.flatMap((one, number) => texts(one, `${place}[${number}]`));
    if (value === null || typeof value !== "object") return [];
    return Object.entries(value).flatMap(([name, one]) => (rules().public.includes(name) ? [] : texts(one, place ? `${place}.${name}` : name)));
  };
  const looksPrivate = (record) => {
    const patterns = rules().private.map(([pattern, instead]) => [new RegExp(pattern, "g"), instead]);
    const without = (text) => patterns.reduce((found, [pattern, instead]) => found.replace(pattern, instead), text);
    return texts(record).filter(([, text]) => without(text) !== text);
  };

  // A run for tokrig.data (site/table.py: columns)

  /** Rounded to significant digits; of two values as near, the even one. */
  const significant = (value, digits) => {
    if (!value || !Number.isFinite(value)) return value;
    const near = value.toExponential(digits - 1);
    const [exact, power] = value.toExponential(digits + 30).split("e");
    const isTie = /^50*$/.test(exact.replace("-", "").slice(digits + 1));
    const mantissa = near.split("e")[0].replace(/[-.]/g, "");
    if (!isTie || Number(mantissa.at(-1)) % 2 === 0) return Number(near);
    return Math.sign(value) * Number(`${Number(mantissa) - 1}e${Number(power) - digits + 1}`);
  };
  const median = (found) => significant(found?.median ?? (typeof found === "number" ? found : null), 4);
  const VERDICTS = ["invalid", "valid", "unverified"];
  const word = (label) => [label || tokrig.words.NULL, filterWord(label || "unknown")];
  const settings = (asked) =>
    rules()
      .asked.filter(([name]) => isKnown(asked[name]))
      .map(([name, phrase, own]) => own[asked[name]] ?? phrase.replace(/\{[^}]*\}/, () => asPython(asked[name])))
      .join(", ");
  const badges = ({ gpus }) => {
    const [gpu] = gpus;
    if (!gpu) return [];
    const share = gpu.power_limit_w !== null && gpu.power_max_w ? gpu.power_limit_w / gpu.power_max_w : null;
    const cap = share !== null && share < 0.995 ? [`${fixed(gpu.power_limit_w, 0)} of ${fixed(gpu.power_max_w, 0)} W`] : [];
    return [...cap, ...(gpu.driver ? [`driver ${gpu.driver}`] : [])];
  };
  const bounds = (found) => {
    if (!found) return null;
    if (found.ci95) return found.ci95;
    return found.min === null || found.max === null || (found.n || 0) < 2 ? null : [found.min, found.max];
  };
  const accepted = ({ speculative: found }) => (found?.drafted_tokens ? Math.round((100 * found.accepted_tokens) / found.drafted_tokens) : null);

  const rowOf = (result) => {
    const gen = result.output_tok_per_s;
    const span = bounds(gen);
    return {
      shape: result.workload.name,
      accepted: accepted(result),
      values: {
        concurrency: result.concurrency,
        valid: VERDICTS.indexOf(wordOf(result.validity)),
        gen: gen?.median ?? null,
        low: span?.[0] ?? null,
        high: span?.[1] ?? null,
        spread: span === null ? 0 : gen.ci95 ? 2 : 1,
        ...Object.fromEntries(rules().columns.map((name) => [name, median(at(result, name))])),
      },
    };
  };

  /** site/formats.size_of: what only a name tells of a model's parameters. */
  const namedSize = (name) => {
    const found = /(?<![\p{L}\p{N}_.])(?:(\d{1,3})x)?E?(\d{1,4}(?:\.\d{1,3})?)([BM])(?![\p{L}\p{N}_.])/iu.exec(name);
    return found ? Math.round(Number(found[1] ?? 1) * Number(found[2]) * (/b/i.test(found[3]) ? 1e9 : 1e6)) || null : null;
  };

  /** A record as a run of the tables: words and figures, numbers of words left to whoever adds it. */
  const runOf = (record) => {
    const { backend, model, provenance, rig } = record;
    const cards = [...new Set(rig.gpus.map(gpuName))].join(" + ") || cpuName(rig);
    const name = modelName(model);
    const size = namedSize(name);
    return {
      family: [model.family, filterWord(model.family), null],
      model: [model.variant || name, slug(name), name, model.parameters ?? size, model.active_parameters, ...(isKnown(model.parameters) || size === null ? [] : [1])],
      quant: word(model.quant),
      rig: [hardwareName(rig), rig.id, badges(rig), cards, vramGb(rig), rig.gpus.some((gpu) => gpu.unified_memory), filterWord(cards), [...new Set(rig.gpus.map((gpu) => gpu.vendor))].sort()],
      backend: word(backendLabel(backend)),
      engine: word(backend.engine),
      build: word(backend.build),
      api: word(backend.api),
      mode: [modeName(record.mode.name), filterWord(record.mode.name), record.mode.name],
      settings: word(settings(backend.asked) || rules().as_it_came),
      kind: ["your file", levelOf(provenance), record.status],
      errata: record.errata.length,
      bytes: model.bytes,
      date: (provenance.started_at || "").slice(0, 10),
      rows: sorted(record.results.filter(isPlain)).map(rowOf),
      raw: record.raw.map(({ test, tok_per_s: rate }) => ({ test, rate: rate.median })),
      skipped: sorted(record.skipped.filter((one) => isPlain(one))).map((one) => [one.workload, one.concurrency]),
    };
  };

  // Curves (site/curves.py) of a record: columns of equal length, a value a point

  const figures = (results, columns) => Object.fromEntries(Object.entries(columns).map(([name, path]) => [name, results.map((result) => median(at(result, path)))]));
  const known = (found) => found?.median > 0;
  const byConcurrency = (results) => [...results].sort((a, b) => a.concurrency - b.concurrency);
  const CURVES = {
    depth({ results }) {
      const closed = results.filter(({ load }) => load === "closed");
      const places = [...new Set(closed.map(({ workload, concurrency }) => `${workload.name} × ${concurrency}`))];
      return places.flatMap((of) => {
        const mine = closed.filter(({ workload, concurrency }) => `${workload.name} × ${concurrency}` === of);
        const stand = mine.filter((one) => stands(one.validity) && known(one.output_tok_per_s)).sort((a, b) => a.depth_tokens - b.depth_tokens);
        return [{ of, depth: stand.map((one) => one.depth_tokens), ...figures(stand, { decode: "output_tok_per_s", prefill: "prefill_tok_per_s", ttft: "ttft_s" }) }];
      });
    },
    load: ({ ladders, results }) =>
      ladders.map(({ workload, depth_tokens: depth, knee }) => {
        const isStep = (one) => one.load === "closed" && one.workload.name === workload && one.depth_tokens === depth && one.output_tok_per_s && one.system_tok_per_s;
        const holds = ({ validity }) => stands(validity) || validity.reasons.join() === "concurrency_not_reached";
        const steps = byConcurrency(results.filter((one) => isStep(one) && holds(one)));
        return { of: workload, knee, flight: steps.map((one) => one.concurrency), ...figures(steps, { each: "output_tok_per_s", system: "system_tok_per_s", ttft: "ttft_s" }) };
      }),
    session: ({ results }) =>
      results
        .filter(({ session, validity }) => session && stands(validity))
        .map(({ concurrency, session, workload }) => ({
          of: `${workload.name} × ${concurrency}`,
          turn: session.by_turn.map((_, turn) => turn + 1),
          ...figures(session.by_turn, { prompt: "prompt_tokens", cached: "cached_tokens", ttft: "ttft_s", total: "total_s" }),
        })),
    cost({ results }) {
      const plainOnes = results.filter((one) => isPlain(one) && stands(one.validity) && one.output_tok_per_s);
      const first = plainOnes.reduce((best, one) => (best && best.concurrency <= one.concurrency ? best : one), null);
      if (!first) return [];
      const mine = byConcurrency(plainOnes.filter((one) => one.workload.name === first.workload.name && one.system_tok_per_s));
      return [{
        of: first.workload.name,
        flight: mine.map((one) => one.concurrency),
        ...figures(mine, { each: "output_tok_per_s", system: "system_tok_per_s", joule: "energy.j_per_output_token" }),
        scope: mine.find(({ energy }) => energy)?.energy.scope ?? null,
      }];
    },
  };
  const LEAST = { depth: ["decode", 2], load: ["each", 2], session: ["ttft", 2], cost: ["each", 1] };
  /** By view, those of a record that have points enough. */
  const curvesOf = (record) =>
    Object.fromEntries(
      Object.entries(LEAST).map(([view, [column, least]]) => [view, CURVES[view](inOrder(record)).filter((curve) => curve[column].filter(isKnown).length >= least)]),
    );

  tokrig.recordWords = { contribution, curvesOf, label, looksPrivate, pullRequest, runOf, said, sha256, significant, subject, verdict: ({ validity }) => ({ word: wordOf(validity), codes: [...validity.reasons, ...validity.unverified] }) };
}
