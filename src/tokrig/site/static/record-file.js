// Records in a file, read in the browser: nothing leaves it. Loaded where files may be dropped; what
// it needs beside itself (js-yaml, the schema, the tables of other tools' formats) comes when the
// first file does.
"use strict";

{
  const MOST_BYTES = 4 * 1024 * 1024; // the largest record has some 100 KB
  const MOST_OF_OTHERS = 64 * 1024 * 1024; // as tokrig import

  /** Why a file is not taken, in words for its owner, and what to do. */
  class Refused extends Error {
    constructor(message, hint = "") {
      super(message);
      this.hint = hint;
    }
  }

  const loading = new Map();
  /** Load a script of the site, once. */
  const load = (path) => {
    if (!loading.has(path)) {
      const script = tokrig.make("script", { src: tokrig.url(path) });
      script.async = false; // one may stand on another: they run in the order they were asked for
      const done = new Promise((good, bad) => {
        script.addEventListener("load", good);
        script.addEventListener("error", () => bad(new Refused(`${path} of this site cannot be loaded`, "load the page again")));
      });
      document.head.append(script);
      loading.set(path, done);
    }
    return loading.get(path);
  };

  // The schema: as much of JSON Schema as a record's has. What is absent gets its default.

  const shown = (value) => {
    if (value === null || typeof value === "boolean" || typeof value === "number") return String(value);
    if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 39)}…` : value);
    return Array.isArray(value) ? "a list" : "a mapping";
  };
  const wrong = (place, why) => new Refused(`${place || "the record"}: ${why}`, "tokrig check FILE names the line");
  const below = (place, name) => (place ? `${place}.${name}` : name);

  const NAMES = { integer: "a whole number", number: "a number", string: "text", boolean: "true or false", array: "a list", object: "a mapping", null: "nothing" };
  const TYPES = {
    integer: Number.isInteger,
    number: Number.isFinite,
    string: (value) => typeof value === "string",
    boolean: (value) => typeof value === "boolean",
    null: (value) => value === null,
    array: Array.isArray,
    object: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  };

  const checked = (value, schema, place) => {
    if (schema.$ref) return checked(value, tokrig.recordRules.schema.$defs[schema.$ref.split("/").pop()], place);
    if (schema.anyOf) return ofAny(value, schema.anyOf, place);
    const isOfType = !schema.type || TYPES[schema.type](value);
    if (!isOfType) throw wrong(place, `should be ${NAMES[schema.type]}, not ${shown(value)}`);
    if (schema.enum && !schema.enum.includes(value)) throw wrong(place, `should be one of ${schema.enum.join(", ")}, not ${shown(value)}`);
    if ("const" in schema && schema.const !== value) throw wrong(place, `should be ${shown(schema.const)}, not ${shown(value)}`);
    if (value < schema.minimum || value >= schema.exclusiveMaximum) throw wrong(place, `${shown(value)} is out of range`);
    if (schema.type === "array") return listed(value, schema, place);
    return schema.type === "object" ? mapped(value, schema, place) : value;
  };

  const ofAny = (value, choices, place) => {
    const problems = [];
    for (const choice of choices) {
      try {
        return checked(value, choice, place);
      } catch (problem) {
        if (choice.type !== "null") problems.push(problem);
      }
    }
    throw problems.length === 1 ? problems[0] : wrong(place, `${shown(value)} cannot stand here`);
  };

  const listed = (value, schema, place) => {
    const { minItems = 0, maxItems = Infinity, prefixItems = [], items = {} } = schema;
    if (value.length < minItems || value.length > maxItems) throw wrong(place, `has ${value.length} items`);
    return value.map((one, number) => checked(one, prefixItems[number] ?? items, `${place}[${number}]`));
  };

  const mapped = (value, schema, place) => {
    const properties = schema.properties ?? {};
    const absent = (schema.required ?? []).find((name) => !Object.hasOwn(value, name));
    if (absent) throw wrong(below(place, absent), "is missing");
    const entries = Object.entries(value).map(([name, one]) => {
      if (Object.hasOwn(properties, name)) return [name, checked(one, properties[name], below(place, name))];
      if (!schema.additionalProperties) throw wrong(below(place, name.slice(0, 60)), "is no key of a record");
      return [name, schema.additionalProperties === true ? one : checked(one, schema.additionalProperties, below(place, name.slice(0, 60)))];
    });
    const defaults = Object.entries(properties).filter(([name, one]) => "default" in one && !Object.hasOwn(value, name));
    // fromEntries: a key called __proto__ is a key like others.
    return Object.fromEntries([...entries, ...defaults.map(([name, one]) => [name, structuredClone(one.default)])]);
  };

  // Text → record

  const parsed = (text, name) => {
    const { jsyaml } = window;
    try {
      return jsyaml.load(text, { schema: jsyaml.CORE_SCHEMA, maxAliases: 0 });
    } catch (problem) {
      if (!(problem instanceof jsyaml.YAMLException)) throw new Refused(`${name}: cannot be read`, "is it a record of tokrig?");
      const line = problem.mark ? `:${problem.mark.line + 1}` : "";
      throw new Refused(`${name}${line}: ${problem.reason}`, "is it whole, and as tokrig run wrote it?");
    }
  };

  const upToDate = (data, name) => {
    const { version } = tokrig.recordRules;
    const hint = `a record is the YAML that tokrig run writes; it has a line “schema: ${version}”`;
    if (!TYPES.object(data)) throw new Refused(`${name}: holds no record`, hint);
    if (!Number.isInteger(data.schema)) throw new Refused(`${name}: no record of tokrig`, hint);
    if (data.schema > version) throw new Refused(`${name}: of a newer tokrig than this page`, "look at it on a page that was built since");
    if (data.schema < 1) throw new Refused(`${name}: “schema: ${data.schema}” is no version`, `a record has a line “schema: ${version}”`);
    return { ...data, schema: version }; // newer schemas only add
  };

  const whole = (data) => {
    const { schema, ids } = tokrig.recordRules;
    const record = checked(data, schema, "");
    const id = new RegExp(`^(?:${ids.pattern})$`);
    for (const [place, word] of [["id", record.id], ["rig.id", record.rig.id]]) {
      if (word.length > ids.longest || !id.test(word)) throw wrong(place, `${shown(word)} cannot be an id`);
    }
    return record;
  };

  /** The record in a text, whole: checked against the schema, with its defaults. */
  const recordOf = async (text, name) => {
    await Promise.all([load("assets/vendor/js-yaml/js-yaml.umd.min.js"), load("assets/record-rules.js")]);
    if (!text.trim()) throw new Refused(`${name}: is empty`, "was the run stopped before its first result?");
    if (text.includes("\0")) throw new Refused(`${name}: no text`, "drop the record, a .yaml file");
    return whole(upToDate(parsed(text, name), name));
  };

  /** The records in the bytes of another tool's file; ``model`` names what it measured where the file
   * does not. */
  const imported = async (bytes, name, model) => {
    const needed = ["record-rules", "record-words", "import-rules", "file-content", "other-tools"];
    await Promise.all(needed.map((script) => load(`assets/${script}.js`)));
    const text = await tokrig.fileContent.textOf(bytes, name);
    const found = tokrig.otherTools.recordsOf(text, name, await sha256(bytes), model);
    return found.map((data) => {
      try {
        return whole(data);
      } catch (problem) {
        throw new Refused(`${name}: cannot be a record: ${problem.message}`, "a field of the file holds what no measurement gives");
      }
    });
  };
  const sha256 = async (bytes) => {
    if (!crypto.subtle) return tokrig.recordWords.sha256(bytes); // pages on plain HTTP have none
    return [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].map((one) => one.toString(16).padStart(2, "0")).join("");
  };

  const bytesOf = async (file) => {
    if (file.size > MOST_OF_OTHERS) {
      throw new Refused(`${file.name}: ${tokrig.words.gigabytes(file.size)} is more than a file of results has`, "drop the .yaml of a run, or results without the texts of prompts and answers");
    }
    try {
      return new Uint8Array(await file.arrayBuffer());
    } catch {
      throw new Refused(`${file.name}: cannot be read`, "is it a file, and may it be read?");
    }
  };

  const IS_RECORD = /^\s*\{?\s*"?schema"?\s*:/m;
  const startsWith = (bytes, text) => String.fromCharCode(...bytes.subarray(0, text.length)) === text;

  /** What the samples in a file give, cell by cell (samples.js); null where it is no Parquet file. */
  const samplesOf = async (file, name) => {
    if (typeof file === "string" || !startsWith(new Uint8Array(await file.slice(0, 4).arrayBuffer().catch(() => new ArrayBuffer(0))), "PAR1")) return null;
    const bytes = await bytesOf(file);
    await load("assets/samples.js");
    return tokrig.samples.cellsOf(bytes, name);
  };

  /** The records in a file, tokrig's own or those that tokrig import would make of it. */
  const recordsOf = async (file, name, model = null) => {
    const bytes = typeof file === "string" ? new TextEncoder().encode(file) : await bytesOf(file);
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      return imported(bytes, name, model); // packed, or of another encoding
    }
    const isYaml = /\.ya?ml$/i.test(name) && !/^\s*[{[]/.test(text);
    if (!isYaml && !IS_RECORD.test(text.slice(0, 4096))) return imported(bytes, name, model);
    if (bytes.length > MOST_BYTES) throw new Refused(`${name}: ${tokrig.words.gigabytes(bytes.length)} is more than a record has`, "drop the .yaml of a run; samples stay where they are");
    return [await recordOf(text, name)];
  };

  tokrig.records = { Refused, load, recordOf, recordsOf, samplesOf };
}
