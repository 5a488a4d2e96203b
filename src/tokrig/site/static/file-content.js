// The content of another tool's file as plain data: JSON, JSON lines, CSV, Markdown tables, SQL, text.
// The rules of exchange/document.py, with its sentences; patterns and limits come with them.
"use strict";

{
  const { Refused } = tokrig.records;
  const rules = () => tokrig.importRules;
  const pattern = (name, more = "") => new RegExp(rules().patterns[name][0], rules().patterns[name][1] + more);
  const whole = (name) => new RegExp(`^(?:${rules().patterns[name][0]})$`, rules().patterns[name][1]);

  const tooLarge = (name) =>
    new Refused(`${name}: larger than ${rules().most.bytes / 2 ** 20} MiB`, "write it without the texts of prompts and answers, or without its requests");

  const isGzip = (bytes) => bytes[0] === 0x1f && bytes[1] === 0x8b;

  const unpacked = async (bytes, name) => {
    const parts = [];
    let size = 0;
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
    for (;;) {
      const { done, value } = await reader.read().catch(() => {
        throw new Refused(`${name}: a gzip file that is damaged or does not end`, "copy it once more");
      });
      if (done) return new Blob(parts).arrayBuffer();
      size += value.length;
      if (size > rules().most.bytes) {
        await reader.cancel();
        throw tooLarge(name);
      }
      parts.push(value);
    }
  };

  /** The text in the bytes of a file. Refusals are thrown. */
  const textOf = async (bytes, name) => {
    const plain = isGzip(bytes) ? new Uint8Array(await unpacked(bytes, name)) : bytes;
    const [first, second] = plain;
    const encoding = first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : "utf-8";
    let text;
    try {
      text = new TextDecoder(encoding, { fatal: true }).decode(plain);
    } catch {
      throw new Refused(`${name}: not UTF-8 text`, "save it as UTF-8; is it a results file?");
    }
    if (!text.trim()) throw new Refused(`${name}: is empty`, "was the benchmark stopped before its end?");
    if (text.includes("\0")) throw new Refused(`${name}: no text file`, "name a file of results");
    return text;
  };

  // JSON, and JSON lines. What JSON.parse takes silently is told: keys that stand there twice.

  const DEEPEST = 900;
  const WORDS = { true: true, false: false, null: null, NaN, Infinity, "-Infinity": -Infinity };
  const ESCAPES = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", '"': '"', "\\": "\\", "/": "/" };
  const SPACE = /[ \t\r\n]*/y;
  const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
  const PLAIN = /[^"\\\u0000-\u001f]*/y;
  const WORD = /true|false|null|NaN|-?Infinity/y;

  class Json {
    constructor(text, name) {
      Object.assign(this, { text, name, at: 0 });
    }
    refused(at, why) {
      const line = this.text.slice(0, at).split("\n").length;
      const isHalf = !this.text.slice(at).trim() || why.startsWith("Unterminated");
      return new Refused(`${this.name}:${line}: ${isHalf ? "ends too early" : "not JSON"}: ${why}`, "was the file cut off, or edited?");
    }
    match(sticky) {
      sticky.lastIndex = this.at;
      const found = sticky.exec(this.text);
      if (found) this.at = sticky.lastIndex;
      return found && found[0];
    }
    next() {
      this.match(SPACE);
      return this.text[this.at];
    }
    value(depth) {
      if (depth > DEEPEST) throw new Refused(`${this.name}: nested too deeply`);
      const sign = this.next();
      if (sign === "{") return this.object(depth);
      if (sign === "[") return this.list(depth);
      if (sign === '"') return this.string();
      const word = this.match(WORD);
      if (word) return WORDS[word];
      const number = this.match(NUMBER);
      if (!number) throw this.refused(this.at, "Expecting value");
      if (number.length > 4000) throw new Refused(`${this.name}: holds a number of thousands of digits`);
      return Number(number);
    }
    string() {
      const begin = this.at++;
      let found = "";
      for (;;) {
        found += this.match(PLAIN);
        const sign = this.text[this.at];
        if (sign === undefined) throw this.refused(begin, "Unterminated string starting at");
        if (sign === '"') {
          this.at += 1;
          return found;
        }
        if (sign !== "\\") throw this.refused(this.at, "Invalid control character at");
        const [escape, digits] = [this.text[this.at + 1], this.text.slice(this.at + 2, this.at + 6)];
        if (escape === undefined) throw this.refused(begin, "Unterminated string starting at");
        if (escape === "u") {
          if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw this.refused(this.at + 1, "Invalid \\uXXXX escape");
          found += String.fromCharCode(parseInt(digits, 16));
          this.at += 6;
        } else {
          if (!(escape in ESCAPES)) throw this.refused(this.at, "Invalid \\escape");
          found += ESCAPES[escape];
          this.at += 2;
        }
      }
    }
    list(depth) {
      const found = [];
      this.at += 1;
      if (this.next() === "]") {
        this.at += 1;
        return found;
      }
      for (;;) {
        found.push(this.value(depth + 1));
        if (this.ends("]")) return found;
      }
    }
    ends(sign) {
      const next = this.next();
      if (next !== sign && next !== ",") throw this.refused(this.at, "Expecting ',' delimiter");
      this.at += 1;
      return next === sign;
    }
    object(depth) {
      const found = Object.create(null); // keys may be called __proto__
      let twin = null;
      this.at += 1;
      if (this.next() === "}") {
        this.at += 1;
        return found;
      }
      for (;;) {
        if (this.next() !== '"') throw this.refused(this.at, "Expecting property name enclosed in double quotes");
        const key = this.string();
        if (this.next() !== ":") throw this.refused(this.at, "Expecting ':' delimiter");
        this.at += 1;
        if (key in found) twin ??= key;
        found[key] = this.value(depth + 1);
        if (!this.ends("}")) continue;
        if (twin !== null) throw new Twins(twin);
        return found;
      }
    }
  }
  class Twins extends Error {}

  const bounded = (items, name) => {
    if (items.length > rules().most.rows) throw new Refused(`${name}: more than ${tokrig.words.count(rules().most.rows, "row")}`, "split it");
    return items;
  };
  const lineAt = (text, at) => text.slice(0, at).split("\n").length;

  const jsonItems = (text, name) => {
    const json = new Json(text, name);
    const values = [];
    while (json.next() !== undefined) {
      const at = json.at;
      try {
        values.push([at, json.value(0)]);
      } catch (problem) {
        if (!(problem instanceof Twins)) throw problem;
        throw new Refused(`${name}:${lineAt(text, at)}: the key '${problem.message.slice(0, 60)}' stands there twice`, "keep one of them");
      }
      bounded(values, name);
    }
    const [[, only]] = values;
    if (values.length > 1) {
      let [line, before] = [1, 0];
      return values.map(([at, data]) => {
        line += text.slice(before, at).split("\n").length - 1;
        before = at;
        return { place: `line ${line}`, data };
      });
    }
    return Array.isArray(only) ? bounded(only, name).map((data, number) => ({ place: `[${number}]`, data })) : [{ place: "", data: only }];
  };

  // Tables

  const row = (columns, cells) => Object.assign(Object.create(null), Object.fromEntries(columns.map((column, at) => [column, cells[at]])));
  const linesOf = (text) => {
    const lines = text.split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/);
    if (!lines.at(-1)) lines.pop();
    return lines;
  };

  /** The records of a text of cells; each with the line on which it ends. */
  function* cells(text, between, quote, isStrict = true) {
    let [found, cell, line, isQuoted, wasQuoted] = [[], "", 1, false, false];
    const special = new RegExp(`[${between === "\t" ? "\\t" : between}${quote}\\r\\n]`, "g");
    for (let at = 0; at < text.length; at++) {
      const sign = text[at];
      if (isQuoted) {
        const end = text.indexOf(quote, at);
        if (end < 0) throw [line, "unexpected end of data"];
        cell += text.slice(at, end);
        line += text.slice(at, end).split("\n").length - 1;
        at = end;
        if (text[end + 1] === quote) {
          cell += quote;
          at += 1;
        } else {
          [isQuoted, wasQuoted] = [false, true];
        }
      } else if (sign === between) {
        found.push(cell);
        [cell, wasQuoted] = ["", false];
      } else if (sign === "\n" || sign === "\r") {
        if (sign === "\r" && text[at + 1] === "\n") at += 1;
        if (cell || wasQuoted || found.length) found.push(cell);
        yield [found, line];
        [found, cell, wasQuoted] = [[], "", false];
        line += 1;
      } else if (wasQuoted && isStrict) {
        throw [line, `'${between === "\t" ? "\\t" : between}' expected after '${quote}'`];
      } else if (sign === quote && !cell && !wasQuoted) {
        isQuoted = true;
      } else if (isStrict || sign !== " " || cell) {
        special.lastIndex = at + 1;
        const end = special.exec(text)?.index ?? text.length;
        cell += text.slice(at, end);
        at = end - 1;
      }
    }
    if (isQuoted) throw [line, "unexpected end of data"];
    if (cell || wasQuoted || found.length) yield [[...found, cell], line];
  }

  const csvItems = (text, name) => {
    const header = linesOf(text).find((line) => line.trim());
    const many = (sign) => header.split(sign).length - 1;
    const between = [",", ";", "\t"].reduce((best, sign) => (many(sign) > many(best) ? sign : best));
    if (!many(between) || header.length > 100000) return [];
    const found = [];
    let columns = null;
    try {
      for (const [values, line] of cells(text, between, '"')) {
        const trimmed = values.map((value) => value.trim());
        if (!trimmed.some(Boolean)) columns = null;
        else if (!columns) {
          columns = trimmed;
          const twin = columns.find((column, at) => column && columns.indexOf(column) < at);
          if (twin) throw new Refused(`${name}:${line}: the column '${twin.slice(0, 60)}' stands there twice`, "keep one of them");
        } else if (values.length !== columns.length) {
          if (!found.length) return []; // prose with commas in it
          throw new Refused(`${name}:${line}: ${values.length} values under ${columns.length} columns`, "put values that hold the separator in quotes");
        } else found.push({ place: `line ${line}`, data: row(columns, trimmed) });
        bounded(found, name);
      }
    } catch (problem) {
      if (!Array.isArray(problem)) throw problem;
      if (!found.length) return [];
      throw new Refused(`${name}:${problem[0]}: ${problem[1]}`);
    }
    return found;
  };

  const inMarkdown = (line) => line.trim().replace(/^\|+|\|+$/g, "").split("|").map((cell) => cell.trim().replace(/^[`*]+|[`*]+$/g, ""));
  const markdownItems = (lines) => {
    const rule = whole("rule");
    const found = [];
    let columns = null;
    lines.forEach((line, number) => {
      if (!line.includes("|")) columns = null;
      else if (rule.test(line.trim())) columns = number ? inMarkdown(lines[number - 1]) : null;
      else if (columns) {
        const values = inMarkdown(line);
        if (values.length === columns.length) found.push({ place: `line ${number + 1}`, data: row(columns, values) });
      }
    });
    return found;
  };

  const sqlItems = (lines, name) =>
    lines.flatMap((line, number) => {
      const match = new RegExp(`^${pattern("insert").source}`, "i").exec(line.trim());
      if (!match) return [];
      const columns = match[1].split(",").map((column) => column.trim());
      let values;
      try {
        [[values]] = cells(match[2], ",", "'", false);
      } catch {
        values = [];
      }
      if (values.length !== columns.length) throw new Refused(`${name}:${number + 1}: ${values.length} values for ${columns.length} columns`);
      return [{ place: `line ${number + 1}`, data: row(columns, values) }];
    });

  const parsed = (text, name) => {
    if (/^\s*[{[]/.test(text)) return ["json", jsonItems(text, name)];
    const lines = linesOf(text);
    if (/^\s*INSERT\s+INTO\s/im.test(text)) return ["sql", bounded(sqlItems(lines, name), name)];
    if (pattern("printed").test(text)) return ["text", []];
    const rule = whole("rule");
    if (lines.some((line) => line.includes("|") && rule.test(line.trim()))) return ["markdown", bounded(markdownItems(lines), name)];
    const found = csvItems(text, name);
    return found.length ? ["csv", found] : ["text", []];
  };

  /** A file's content: its kind, its objects in their order with their places, its text. */
  const contentOf = (text, name) => {
    const [kind, items] = parsed(text, name);
    return { kind, items, lines: kind === "text" ? linesOf(text) : [], text, name };
  };

  tokrig.fileContent = { contentOf, linesOf, textOf, tooLarge, whole };
}
