// Records of other tools' files, by the tables of exchange/formats: the rules of exchange/fields.py,
// values.py, rows.py and imports.py, whose sentences a test holds against these.
"use strict";

{
  const { Refused } = tokrig.records;
  const { isKnown } = tokrig.words;
  const { contentOf, linesOf, whole } = tokrig.fileContent;
  const rules = () => tokrig.importRules;
  const pattern = (name, more = "") => new RegExp(rules().patterns[name][0], rules().patterns[name][1] + more);
  const own = (holder, key) => typeof holder === "object" && holder !== null && !Array.isArray(holder) && key in holder;
  const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
  const cut = (text, most) => [...text].slice(0, most).join("");

  const shown = (value) => {
    if (isObject(value)) return "an object";
    if (Array.isArray(value)) return "a list";
    if (typeof value === "number" && !Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
    const text = typeof value === "string" ? `'${value}'` : String(value);
    return [...text].length <= 40 ? text : `${cut(text, 39)}…`;
  };

  /** Rounded to as many significant digits as a record has. */
  const significant = (value) => tokrig.recordWords.significant(value, rules().digits);
  const rounded = (value) => {
    const below = Math.floor(value);
    const rest = value - below;
    return rest === 0.5 ? below + (below % 2) : Math.round(value);
  };
  /** ``%g``. */
  const general = (value) => {
    const [mantissa, power] = value.toExponential(5).split("e");
    if (power >= -4 && power < 6) return String(Number(value.toPrecision(6)));
    return `${Number(mantissa)}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
  };

  const grouped = (list, keyOf) => {
    const groups = new Map();
    for (const one of list) {
      const key = keyOf(one);
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(one);
    }
    return groups;
  };

  // Fields

  const nameOf = (text) => {
    let line = text.replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, " ").split(" ").filter(Boolean).join(" ");
    if (whole("address").test(line)) return null;
    const slashes = line.split("/").length - 1;
    const isFile = line.toLowerCase().endsWith(".gguf") && slashes !== 2;
    if (whole("path").test(line) || isFile || slashes > 2) line = line.replace(/[\\/]+$/, "").split(/[\\/]/).at(-1);
    return cut(line, rules().most.text) || null;
  };

  class Fields {
    constructor(data, name, place = "", more = {}) {
      Object.assign(this, { data, name, place, isTable: false, report: null, key: "", around: "" }, more);
    }
    with(more) {
      return new Fields(this.data, this.name, this.place, { ...this, ...more });
    }
    at(path) {
      return path.startsWith("^") ? [this.report ?? this, path.slice(1)] : [this, path];
    }
    refuse(path, why, hint = "") {
      const at = this.isTable ? `${this.name}:${this.place.replace(/^line /, "")}` : this.name;
      const inside = this.isTable ? "" : this.place;
      const where = path ? `${inside}.${path}`.replace(/^\.+|\.+$/g, "") : inside;
      return new Refused([at, where, why].filter(Boolean).join(": "), hint);
    }
    get(path) {
      if (this.isTable) return this.data[path] ?? null;
      let found = this.data;
      for (const part of path.split(".")) {
        if (Array.isArray(found) && /^(\d+|-1)$/.test(part)) found = found.at(Number(part));
        else found = own(found, part) ? found[part] : null;
        if (!isKnown(found)) return null;
      }
      return found;
    }
    has(path) {
      if (this.isTable) return path in this.data;
      const parts = path.split(".");
      const last = parts.pop();
      return own(parts.length ? this.get(parts.join(".")) : this.data, last);
    }
    number(path) {
      return this.inRange(this.asNumber(this.get(path), path), path);
    }
    positive(path) {
      return this.number(path) || null;
    }
    count(path) {
      const value = this.number(path);
      if (value !== null && !Number.isInteger(value)) throw this.refuse(path, `should be a whole number, not ${shown(value)}`);
      return value;
    }
    listed(path) {
      const found = this.get(path);
      if (isKnown(found) && !Array.isArray(found)) throw this.refuse(path, `should be a list, not ${shown(found)}`);
      return found;
    }
    numbers(path) {
      return (
        this.listed(path)?.map((one, index) => {
          const value = this.asNumber(one, `${path}.${index}`);
          if (value === null) throw this.refuse(`${path}.${index}`, "should be a number, not null");
          return this.inRange(value, `${path}.${index}`);
        }) ?? null
      );
    }
    text(path) {
      const value = this.get(path);
      if (!isKnown(value) || value === "") return null;
      if (typeof value !== "string") throw this.refuse(path, `should be text, not ${shown(value)}`);
      return nameOf(value);
    }
    flag(path) {
      const value = this.get(path);
      if (isKnown(value) && typeof value !== "boolean") throw this.refuse(path, `should be true or false, not ${shown(value)}`);
      return value ?? null;
    }
    inside(path) {
      const value = this.get(path);
      if (isKnown(value) && !isObject(value)) throw this.refuse(path, `should be an object, not ${shown(value)}`);
      return isKnown(value) ? this.below(value, path) : null;
    }
    each(path) {
      const found = this.listed(path) ?? [];
      found.forEach((one, index) => {
        if (!isObject(one)) throw this.refuse(`${path}.${index}`, `should be an object, not ${shown(one)}`);
      });
      return found.map((one, index) => this.below(one, `${path}.${index}`));
    }
    below(data, path) {
      return new Fields(data, this.name, `${this.place}.${path}`.replace(/^\.+|\.+$/g, ""), { report: this.report });
    }
    asNumber(value, path) {
      if (!isKnown(value)) return null;
      if (this.isTable) return value === "" ? null : this.written(String(value), path);
      if (typeof value !== "number") throw this.refuse(path, `should be a number, not ${shown(value)}`);
      return value;
    }
    written(text, path) {
      if (whole("number").test(text)) return Number(text);
      const hint = whole("decimals").test(text) ? "write numbers as 1234.5: a point for decimals, nothing between thousands" : "";
      throw this.refuse(path, `should be a number, not ${shown(text)}`, hint);
    }
    inRange(value, path) {
      if (value === null) return null;
      if (value < 0) throw this.refuse(path, "is negative");
      if (value > rules().most.number) throw this.refuse(path, "is larger than anything that was ever measured");
      if (Number.isNaN(value)) throw this.refuse(path, "is no number");
      return value;
    }
  }

  // Values (values.py)

  const value = (of, row) => (Array.isArray(of) ? OPERATORS[of[0]](row, ...of.slice(1)) : of);
  const reader = (read) => (row, ...paths) => {
    for (const path of paths) {
      const found = read(...row.at(path));
      if (found !== null) return found;
    }
    return null;
  };
  const truth = (found) => Boolean(Array.isArray(found) ? found.length : isObject(found) ? Object.keys(found).length : found);
  const holds = (of, row) => truth(value(of, row));
  const column = (row, path) => {
    const [rows, name] = path.split(".*.");
    return row.each(rows).map((one) => one.positive(name)).filter(Boolean);
  };
  const slug = (text) => text.toLowerCase().replace(/[^a-z0-9._]+/g, "-").replace(/^[-.]+|[-.]+$/g, "") || "unnamed";
  const asText = (found) => (typeof found === "string" || typeof found === "number" ? String(found) : shown(found ?? "None"));

  const OPERATORS = {
    text: reader((row, path) => row.text(path)),
    count: reader((row, path) => row.count(path)),
    number: reader((row, path) => row.number(path)),
    positive: reader((row, path) => row.positive(path)),
    numbers: reader((row, path) => row.numbers(path)),
    flag: reader((row, path) => row.flag(path)),
    setting: reader((row, path) => (asText(row.get(path)).startsWith("-") ? null : row.count(path))),
    column,
    texts: (of, at) => {
      const [row, path] = of.at(at);
      const told = row.get(path);
      return Array.isArray(told) ? told.slice(0, 64).map((_, index) => row.text(`${path}.${index}`)).filter(Boolean) : [];
    },
    split: (row, path) => (row.text(path) ?? "").split(", ").map((name) => name.trim()).filter(Boolean),
    before: (row, path, end) => {
      const written = asText(row.get(path)).split(end)[0].trim();
      return new Fields({ [path]: written }, row.name, row.place, { isTable: true }).positive(path);
    },
    part: (row, path, source, group, of) => {
      const text = row.text(path) ?? "";
      const found = new RegExp(`^(?:${source})$`).exec(text);
      if (!found || !text) throw row.refuse(path, `'${cut(asText(row.get(path)), 40)}' is no ${of}`);
      return Number((found[group] ?? "0").slice(0, 12));
    },
    one_of: (row, path, ...words) => {
      const text = row.text(path);
      if (text !== null && !words.includes(text)) throw row.refuse(path, `should be ${words.join(" or ")}`);
      return text;
    },
    around: (row, source) => new RegExp(source, "m").exec(row.around)?.[1] ?? null,
    key: (row) => row.key,
    has: (row, path) => {
      const [of, at] = row.at(path);
      return of.has(at);
    },
    has_any: (row, path) => {
      const [of, at] = row.at(path);
      return truth(of.get(at));
    },
    object: (row, path) => row.inside(path) !== null,
    endless: (row, path) => [null, "inf", Infinity].includes(row.get(path)),
    equals: (row, path, word) => row.get(path) === word,
    begins: (row, one, begin) => asText(value(one, row)).startsWith(begin),
    slug: (row, one) => slug(value(one, row)),
    list: (row, one) => [value(one, row)].filter(truth),
    length: (row, path) => row.each(path).length,
    column_length: (row, path) => column(row, path).length,
    first: (row, ...of) => {
      let found = null;
      for (const one of of) {
        found = value(one, row);
        if (truth(found)) break;
      }
      return found;
    },
    all: (row, ...of) => of.every((one) => holds(one, row)),
    any: (row, ...of) => of.some((one) => holds(one, row)),
    not: (row, one) => !holds(one, row),
    is: (row, one, ...words) => words.includes(value(one, row)),
    if: (row, when, then, other = null) => value(holds(when, row) ? then : other, row),
    times: (row, one, by) => {
      const found = value(one, row);
      return found === null ? null : found * by;
    },
    over: (row, one, by) => {
      const [above, below] = [value(one, row), value(by, row)];
      return above && below ? above / below : null;
    },
    sum: (row, one, ...more) => {
      const found = value(one, row);
      return found === null ? null : more.reduce((sum, each) => sum + (value(each, row) || 0), found);
    },
    less: (row, one, other) => {
      const [more, fewer] = [value(one, row), value(other, row)];
      return more === null || fewer === null || more < fewer ? null : more - fewer;
    },
    in: (row, one, words, other = null) => {
      const found = value(one, row);
      return found !== null && Object.hasOwn(words, String(found)) ? words[String(found)] : other;
    },
    words: (row, text, ...of) => {
      const found = of.map((one) => value(one, row));
      return found.includes(null) ? null : text.replace(/\{\}/g, () => String(found.shift()));
    },
    required: (row, one, path, why) => {
      const found = value(one, row);
      if (truth(found)) return found;
      throw row.refuse(path, why);
    },
    nearest: (row, one) => {
      const found = value(one, row);
      return found ? Math.max(1, rounded(found)) : null;
    },
    moment: (row, one) => {
      const seconds = value(one, row);
      return seconds !== null && seconds > 1e9 && seconds < 1e10 ? new Date(Math.floor(seconds) * 1000).toISOString().replace(".000Z", "Z") : null;
    },
  };

  // Figures (format.py)

  const middle = (values) => {
    const ordered = [...values].sort((a, b) => a - b);
    const half = ordered.length >> 1;
    return ordered.length % 2 ? ordered[half] : (ordered[half - 1] + ordered[half]) / 2;
  };
  const summary = ({ values = [], median = null, mean = null, min = null, max = null, n = null }) => {
    if (values.length) {
      const [low, high] = [Math.min, Math.max].map((end) => values.reduce((a, b) => end(a, b)));
      return { median: median ?? significant(middle(values)), min: low, max: high, n: values.length };
    }
    const given = median ?? mean;
    if (given === null) return null;
    const isRange = min !== null && max !== null;
    return { median: given, min: isRange ? min : null, max: isRange ? max : null, n: n || null, is_mean: median === null };
  };
  const figureAt = (fields, [field, figure, scale, , inverse], part) => {
    const { kinds } = rules();
    if (part === "n" || (!part && kinds[figure] === "count")) return fields.count(field);
    if (!part && kinds[figure] === "text") return fields.text(field);
    const scaled = (one) => significant(inverse ? 1 / (one * scale) : one * scale);
    if (part === "values") {
      const found = (Array.isArray(field) ? value(field, fields) : fields.numbers(field))?.filter(Boolean).map(scaled);
      return found?.length ? found : null;
    }
    const found = Array.isArray(field) ? value(field, fields) : fields.positive(field);
    return found ? scaled(found) : null;
  };
  const TURNED = { min: "max", max: "min" };
  const partsOf = (fields, takes) => {
    const told = {};
    const codes = [];
    for (const take of takes) {
      const [, figure, , given, inverse, , when] = take;
      const part = figure.split(".")[1] ?? "";
      const found = holds(when, fields) ? figureAt(fields, take, part) : null;
      const place = inverse ? (TURNED[part] ?? part) : part;
      if (found === null || place in told) continue;
      told[place] = found;
      codes.push(...given);
    }
    return [told, codes];
  };
  const figureOf = (kind, told) => {
    if (kind === "summary") return summary(told);
    if (kind !== "percentiles") return told[""] ?? null;
    const given = Object.entries(told).filter(([name]) => rules().percentiles.includes(name));
    return given.some(([name]) => name !== "n") ? Object.fromEntries(given) : null;
  };
  const figuresOf = (fields, takes) => {
    const byName = grouped(takes, ([, figure]) => figure.split(".")[0]);
    const figures = {};
    const codes = new Set();
    for (const [name, mine] of byName) {
      const ranks = [...grouped(mine, (take) => take[5])].sort(([a], [b]) => a - b);
      for (const [, same] of ranks) {
        const [told, given] = partsOf(fields, same);
        const figure = figureOf(rules().kinds[name], told);
        if (figure === null) continue;
        figures[name] = figure;
        given.forEach((code) => codes.add(code));
        break;
      }
    }
    return [figures, [...codes]];
  };

  // Verdicts (record/imported.py): nobody here saw the requests, so none is valid

  const split = (codes) => {
    const given = [...new Set(codes)];
    const isUnchecked = (code) => rules().unchecked.includes(code);
    return [given.filter((code) => !isUnchecked(code)), given.filter(isUnchecked)];
  };
  const judged = (figures, codes) => {
    const mine = Object.values(figures).some((figure) => figure?.is_mean) ? ["mean_not_median"] : [];
    if (figures.prefill_source === "ttft_derived") mine.push("prefill_from_ttft");
    if (!figures.output_tok_per_s) mine.push("no_rate");
    const [given, unchecked] = split([...codes, ...mine]);
    const reasons = figures.request_errors ? ["request_errors"] : [];
    return { verdict: reasons.length ? "invalid" : "unverified", reasons, unverified: ["samples", ...given], unchecked: [...rules().unseen, ...unchecked] };
  };
  const judgedRaw = (raw, codes, complete) => {
    const means = raw.some(({ tok_per_s: rate }) => rate.is_mean) ? ["mean_not_median"] : [];
    const [given, unchecked] = split([...codes, ...means]);
    const [, , ...looked] = rules().unseen;
    return {
      verdict: complete ? "unverified" : "invalid",
      reasons: complete ? [] : ["incomplete"],
      unverified: [...new Set(["samples", "api_unverified", ...given])],
      unchecked: [...looked, ...unchecked],
    };
  };
  const judgedRun = (results, complete) => {
    const union = (name) => [...new Set(results.flatMap(({ validity }) => validity[name]))];
    const reasons = [...union("reasons"), ...(complete ? [] : ["incomplete"])];
    return { verdict: reasons.length ? "invalid" : "unverified", reasons, unverified: union("unverified"), unchecked: union("unchecked") };
  };

  // Rows (rows.py)

  const below = (facts, part) =>
    Object.fromEntries(Object.entries(facts).filter(([name]) => name.startsWith(`${part}.`)).map(([name, one]) => [name.slice(part.length + 1), one]));

  const resultOf = (row, of) => {
    const [found, codes] = figuresOf(row, of.takes);
    const { requests = null, request_errors: errors = null, prefill_source: source = null, prompt = null, answer = null, depth_tokens: deep = null, workload: name = null, concurrency = 1, load = "closed", rate_per_s = null } =
      Object.fromEntries(Object.entries(of.result).map(([field, one]) => [field, value(one, row)]));
    const figures = { ...found, ...(requests === null ? {} : { requests }), ...(errors === null ? {} : { request_errors: errors }) };
    if ("prefill_tok_per_s" in figures) figures.prefill_source = source || "ttft_derived";
    const depth = deep || 0;
    const isWhole = Boolean(prompt && answer);
    const workload = name
      ? { name, prompt_tokens: prompt, answer_tokens: answer }
      : {
          name: isWhole ? `${of.name}-${general(prompt)}-${general(answer)}` : of.name,
          prompt_tokens: depth && prompt ? depth + prompt : isWhole ? prompt : null,
          answer_tokens: isWhole ? answer : null,
        };
    return { workload, concurrency, validity: judged(figures, [...of.codes, ...codes]), depth_tokens: depth, load, rate_per_s, ...figures };
  };

  const rawOf = (row, of) =>
    of.raw.flatMap(({ when = true, ...table }) => {
      if (!holds(when, row)) return [];
      const told = Object.fromEntries(Object.entries(table).map(([name, one]) => [name, value(one, row)]));
      const figure = (name) => {
        const parts = Object.entries(below(told, name)).filter(([, one]) => truth(one));
        return summary(Object.fromEntries(parts.map(([part, one]) => [part, Array.isArray(one) ? one.filter(Boolean).map(significant) : significant(one)])));
      };
      const [rate, first] = [figure("tok_per_s"), figure("ttft_s")];
      const plain = Object.fromEntries(Object.entries(told).filter(([name, one]) => one && !name.includes(".")));
      return rate === null ? [] : [{ ...plain, tok_per_s: rate, ttft_s: first }];
    });

  function* rowsOf(report, of) {
    const path = of.rows.find((one) => report.has(one));
    if (!path) yield report.with({ report });
    else if (of.keyed) {
      const keys = Object.keys(report.inside(path)?.data ?? {}).filter((key) => !key.includes("."));
      const found = keys.map((key) => [key, report.inside(`${path}.${key}`)]);
      for (const [key, row] of found) if (row) yield row.with({ report, key });
    } else for (const row of report.each(path)) yield row.with({ report });
  }

  const objects = ({ items, kind, name, text }) =>
    items.map(({ place, data }) => {
      const found = new Fields(data, name, place, { isTable: kind !== "json", around: kind === "markdown" ? text : "" });
      if (!isObject(data)) throw found.refuse("", "should be an object");
      return found;
    });

  const STEPS = {
    metrics: (content, of) => {
      if (content.kind !== "csv") return objects(content);
      const found = {};
      for (const row of objects(content)) {
        const match = whole("metric").exec(row.get("Metric") ?? "");
        const metric = match ? match[1].toLowerCase().replaceAll(" ", "_") : "";
        if (!Object.hasOwn(of.units, metric)) continue;
        const { Value = null, ...cells } = Object.fromEntries(Object.keys(row.data).filter((name) => name && name !== "Metric").map((name) => [name, row.number(name)]));
        found[metric] = { unit: match[2] ?? null, avg: Value, ...cells };
      }
      return [new Fields(found, content.name)];
    },
    printed: (content) => {
      if (content.items.length) return objects(content);
      const found = [];
      let [told, first] = [{}, 1];
      const answer = () => found.push(new Fields(told, content.name, `line ${first}`));
      content.lines.forEach((line, index) => {
        if (!pattern("line").test(line)) return;
        const [name, ...rest] = line.trim().replace(/^[-*>• ]+/, "").split(":");
        const key = name.trim().replaceAll(" ", "_");
        if (key in told || key === "total_duration") {
          answer();
          [told, first] = [{}, index + 1];
        }
        Object.assign(told, printedNumber(key, rest.join(":").trim(), content.name, index + 1));
      });
      answer();
      return found;
    },
  };
  const printedNumber = (key, written, name, line) => {
    if (key.endsWith("_rate")) return {};
    if (key.endsWith("_count")) {
      const [number] = written.split(" ");
      if (/^\d{1,12}$/.test(number)) return { [key]: Number(number) };
    } else {
      const parts = [...written.matchAll(pattern("duration", "g"))];
      const isWritten = parts.slice(0, -1).every(([, number]) => !number.includes(".")) && parts.map(([part]) => part).join("") === written;
      if (parts.length && isWritten) return { [key]: parts.reduce((sum, [, number, unit]) => sum + Number(number) * rules().units[unit], 0) / rules().ns };
    }
    throw new Fields({}, name, `line ${line}`, { isTable: true }).refuse(key.replaceAll("_", " "), `'${cut(written, 40)}' is not what Ollama prints`);
  };

  const lookAtUnits = (report, { units }) => {
    for (const [field, unit] of Object.entries(units)) {
      const told = report.text(`${field}.unit`);
      if (told !== null && told.toLowerCase() !== unit) throw report.refuse(`${field}.unit`, `should be '${unit}', not '${cut(told, 40)}'`);
    }
  };
  const refuseUnknown = (head, content, { columns, ignored }) => {
    const unknown = Object.keys(head.data).find((name) => !columns.includes(name) && !ignored.includes(name));
    if (unknown === undefined) return;
    const line = linesOf(content.text).findIndex((one) => one.trim()) + 1;
    throw new Refused(`${content.name}:${line}: no column of tokrig's: '${cut(unknown, 60)}'`, "docs/cli.md lists the columns that are read");
  };

  /** The configurations of a file with their figures. */
  const read = (content, of) => {
    const groups = new Map();
    const gathered = new Map();
    const reports = of.made_by ? STEPS[of.made_by](content, of) : objects(content);
    reports.forEach((report, number) => {
      lookAtUnits(report, of);
      if (of.columns.length && !number) refuseUnknown(report, content, of);
      for (const row of rowsOf(report, of)) {
        if (!holds(of.only, row)) continue;
        const facts = Object.fromEntries(Object.entries(of.facts).map(([name, one]) => [name, value(one, row)]));
        const { started_at: began = null, ...same } = facts;
        const apart = of.measured ? Object.entries(row.data).filter(([name]) => !of.measured.includes(name)) : [];
        const key = JSON.stringify([of.rows.length ? number : 0, same, apart]);
        if (!groups.has(key)) groups.set(key, { ...foundOf(of, facts), results: [], raw: [], leftOut: new Set(), started_at: null });
        const found = groups.get(key);
        if (began && !(found.started_at <= began && found.started_at)) found.started_at = began;
        const [skipped, ...told] = [of.skip, ...of.left_out].map((one) => value(one, row));
        const unread = of.columns.length ? Object.entries(row.data).filter(([name, cell]) => cell && !of.columns.includes(name)) : [];
        [skipped, ...told, ...unread.map(([name]) => `the column ${name}`)].filter(Boolean).forEach((text) => found.leftOut.add(text));
        if (skipped) continue;
        if (Object.keys(of.gathered).length) gathered.set(key, [...(gathered.get(key) ?? []), row]);
        else if (of.result) found.results.push(resultOf(row, of));
        found.raw.push(...rawOf(row, of));
      }
    });
    for (const [key, rows] of gathered) {
      const lists = Object.entries(of.gathered).map(([name, one]) => [name, rows.map((row) => value(one, row)).filter(Boolean)]);
      groups.get(key).results.push(resultOf(new Fields({ ...Object.fromEntries(lists), answers: rows.length }, content.name), of));
    }
    return [...groups.values()];
  };

  // Model, engine, machine (models.py, machine.py, rig.py)

  const quantOf = (text) => {
    const [base, ...more] = text.replace(/^\(guessed\) /, "").replace(/^all /, "").split(" - ");
    return base.trim() + (rules().quants[more.join(" - ")] ?? "");
  };
  const withoutPacking = (text) => text.replace(pattern("packed"), "");
  const splitAtSize = (name) => {
    const match = pattern("size").exec(name);
    if (!match?.index) return [name, null];
    const size = match[0].replaceAll("X", "x");
    return [name.slice(0, match.index).replace(/[-_. ]+$/, ""), size.slice(0, -1) + size.at(-1).toUpperCase() + name.slice(match.index + match[0].length)];
  };
  const withoutQuant = (name) => {
    let stem = name.replace(/\.gguf$/i, "").replace(pattern("split"), "");
    const last = [...stem.matchAll(pattern("quant", "g"))].at(-1);
    if (last?.index > 0) stem = stem.slice(0, last.index);
    const line = stem.replace(/[-_. ]+$/, "").trim().replace(/[/\\]+$/, "").split(/[/\\]/).at(-1);
    return cut(line.replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, " ").split(/\s+/).filter(Boolean).join("-"), 120) || "unnamed";
  };
  /** What a bare name tells of a model. */
  const named = (name) => {
    const last = name.split("/").length === 2 ? name.split("/")[1] : name;
    const isFile = last.toLowerCase().endsWith(".gguf");
    const found = pattern("quant").exec(last.replaceAll(":", "-"));
    const [family, variant] = splitAtSize(withoutQuant((isFile ? last : withoutPacking(last)).replaceAll(":", "-")));
    const packed = pattern("packed").exec(last);
    const label = found || !packed ? null : packed[0].replace(/^[-_.]+/, "").split("-")[0];
    return { family, variant, quant: found ? found[1].toUpperCase() : label, format: isFile ? "gguf" : null, file: isFile ? last.split("/").at(-1) : null, identity_from: isFile ? "file_name" : "endpoint" };
  };
  const modelOf = (name, { quant = null, parameters = null } = {}) => {
    if (!isKnown(name)) return null;
    const told = quant ? quantOf(quant) : null;
    const found = named(name);
    return { ...found, quant: told || found.quant, quant_stated: told && found.quant !== told ? found.quant : null, parameters: parameters || null };
  };
  const llamaModel = ({ described, file, size, parameters }) => {
    const match = whole("described").exec(described ?? "");
    if (!match) return modelOf(file || described, { parameters });
    const { arch, size: told, quant: named } = match.groups;
    const quant = quantOf(named);
    const found = modelOf(file, { quant, parameters }) ?? {
      family: arch, variant: told.startsWith("?") ? null : told, quant, format: "gguf", parameters: parameters || null, identity_from: "endpoint",
    };
    const bits = size && parameters ? Number(((8 * size) / parameters).toFixed(4)) : null;
    return { ...found, architecture: arch, bits_per_weight: bits };
  };
  const modelFrom = (told) => {
    if ("family" in told) return told.family ? told : null;
    return "described" in told ? llamaModel(told) : modelOf(told.name, told);
  };

  const withoutMarks = (name) => name.replace(/\((R|TM|C)\)|®|™/gi, " ").trim();
  const cardWords = ({ name, vram_bytes: vram }) => {
    const words = withoutMarks(name).replace(/^(NVIDIA|AMD|Intel)\s+(?!GPU\b)/, "");
    return vram === null ? words : `${words.replace(/[\s-]+\d+\s*GB\b/g, "")} ${rounded(vram / rules().gib)}gb`;
  };
  const cpuWords = (model) =>
    model
      ? withoutMarks(model).replace(/\bCPU\b|@.*/g, " ").replace(/\b(\d+|Dual|Quad|Six|Eight)-Core\b.*/gi, "").replace(/\s(w\/|with)\s.*/g, "").replace(/\b\d+x\s/g, "").replace(/^\d+th Gen\s+/, "").trim()
      : "unknown-cpu";
  const soldGb = (bytes) => {
    const { sold, hidden } = rules().rig;
    const size = bytes / rules().gib;
    const next = sold.find((one) => size <= one);
    return next && size >= next * (1 - hidden) ? next : next ? Math.max(1, rounded(size)) : rounded(size);
  };
  const rigId = ({ cpu, gpus, memory }) => {
    const cards = gpus.filter(({ vram_bytes: vram }) => vram === null || vram > rules().rig.small).map(cardWords);
    const parts = [];
    if (cards.length) {
      const alike = [...grouped(cards, (words) => words)];
      parts.push(alike.map(([words, { length }]) => (length > 1 ? `${length}x ${words}` : words)).join(" and "));
    } else {
      parts.push(cpuWords(cpu.model));
      if (cpu.cores || cpu.threads) parts.push(cpu.cores ? `${cpu.cores}c` : `${cpu.threads}t`);
      if (memory.total_bytes) parts.push(`${soldGb(memory.total_bytes)}gb`);
    }
    return `stated-${slug(parts.join(" "))}`.slice(0, 80).replace(/[-.]+$/, "");
  };
  const vendorOf = (name) => rules().vendors.find(([, words]) => words.some((word) => `${name.toLowerCase()} `.includes(word)))?.[0] ?? "other";
  const rigFrom = ({ gpu = null, gpus: number = 1, vram_gb: vram = null, unified = null, cpu = null, cores = null, threads = null, memory_bytes: memory = null, os = null, kernel = null }) => {
    const names = typeof gpu === "string" ? Array(Math.min(number || 0, 64)).fill(gpu) : (gpu ?? []);
    const cards = names.map((name) => ({ name, vendor: vendorOf(name), vram_bytes: vram ? Math.floor(vram * rules().gib) : null, unified_memory: unified }));
    const isNamed = Boolean(cpu || cards.length);
    const rig = {
      id: tokrig.recordRules.names.unknown_rig,
      facts_from: isNamed ? "file" : "nobody",
      cpu: { model: cpu, cores: cores || null, threads: threads || null },
      memory: { total_bytes: memory ? Math.floor(memory) : null },
      gpus: cards,
      os,
      kernel,
    };
    return isNamed ? { ...rig, id: rigId(rig) } : rig;
  };
  const foundOf = (of, facts) => ({
    model: modelFrom(below(facts, "model")),
    backend: {
      name: of.name,
      engine: facts.engine || rules().unknown_engine,
      build: facts.build ?? null,
      api: facts.api ?? null,
      asked: Object.fromEntries(Object.entries(below(facts, "asked")).filter(([, one]) => one !== null)),
      resolved: below(facts, "resolved"),
    },
    rig: rigFrom(below(facts, "rig")),
    mode: facts.offload ? { name: facts.offload, offload: facts.offload } : {},
    version: facts.version ?? null,
    complete: facts.complete ?? true,
  });

  // Records (imports.py)

  const formatOf = (content) => {
    const { formats, likely } = rules();
    const first = content.items.length ? objects(content)[0] : null;
    const has = content.kind === "text" ? (word) => content.text.includes(word) : (field) => first.has(field);
    const like = formats.map(({ kinds, signatures }) =>
      !kinds.includes(content.kind) || (content.kind !== "text" && !first) ? 0 : Math.max(0, ...signatures.map((fields) => fields.filter(has).length / fields.length)),
    );
    const sure = formats[like.indexOf(1)];
    if (sure) return sure;
    const best = Math.max(...like);
    const { title, files } = formats[like.indexOf(best)];
    let hint = `known are tokrig's records and ${formats.map((one) => one.title).join(", ")}`;
    if (best >= likely) hint = `most like ${title} (${files}), but fields are missing`;
    else if (content.kind === "csv") hint = "a table of your own needs columns called like tokrig's: docs/cli.md lists them";
    throw new Refused(`${content.name}: of no tool that tokrig knows`, hint);
  };

  /** One record holds each cell once: what was measured again is another record. */
  const apart = (found) => {
    const rounds = [];
    const seen = new Map();
    for (const [kind, one] of [...found.results.map((each) => ["results", each]), ...found.raw.map((each) => ["raw", each])]) {
      const cell = JSON.stringify(kind === "raw" ? [one.test, one.concurrency ?? 1] : [one.workload.name, one.concurrency, one.depth_tokens, one.load, one.rate_per_s]);
      const before = seen.get(cell) ?? seen.set(cell, []).get(cell);
      const text = JSON.stringify(one);
      if (before.includes(text)) continue;
      before.push(text);
      rounds[before.length - 1] ??= { ...found, results: [], raw: [] };
      rounds[before.length - 1][kind].push(one);
    }
    return rounds;
  };

  const recordOf = (of, found, sha256, name, number, model) => ({
    schema: tokrig.recordRules.version,
    id: `import-${of.name}-${sha256.slice(0, 12)}${number ? `-${number}` : ""}`,
    status: found.complete ? "complete" : "interrupted",
    validity: found.raw.length ? judgedRaw(found.raw, of.codes, found.complete) : judgedRun(found.results, found.complete),
    provenance: {
      kind: "imported",
      source: [of.title, found.version].filter(Boolean).join(" "),
      source_sha256: sha256,
      stated: model ? ["model"] : [],
      methodology: rules().methodology,
      started_at: found.started_at,
      finished_at: null,
    },
    model: found.model ?? model,
    rig: found.rig,
    backend: found.backend,
    mode: found.mode,
    results: found.results,
    raw: found.raw,
    notes: [...found.leftOut].map((one) => `not taken from the file: ${one}`).join("\n") || null,
  });

  /** The records in a text of another tool's, as ``tokrig import`` makes them, before they are held
   * against the schema. ``model`` names the model of a file that does not. Refusals are thrown. */
  const recordsOf = (text, name, sha256, model = null) => {
    const content = contentOf(text, name);
    const of = formatOf(content);
    const found = read(content, of).flatMap(apart);
    if (!found.length) throw new Refused(`${name}: no figures in it`, `was ${of.title} stopped before its first result?`);
    if (!model && found.some((one) => !one.model)) {
      throw Object.assign(new Refused(`${name}: does not say which model it is of`, "name it, as its file is called or on its hub"), { lacksModel: true });
    }
    return found.map((one, at) => recordOf(of, one, sha256, name, found.length > 1 ? at + 1 : 0, one.model ? null : named(model)));
  };

  tokrig.otherTools = { recordsOf };
}
