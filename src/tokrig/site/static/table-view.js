// What the tables of all results show: facts of a run as words, and the state of the page, which
// stands in its address. Data comes from assets/rows.js (see site/table.py).
"use strict";

{
  const { data } = tokrig;
  const { runs, rows } = data;
  const table = document.getElementById("results");
  const isLatency = table.dataset.page === "latency";
  const VERDICTS = ["invalid", "valid", "unverified"]; // as rows.valid numbers them

  const modelOf = (run) => data.models[runs.model[run]];
  const rigOf = (run) => data.rigs[runs.rig[run]];
  const kindOf = (run) => data.kinds[runs.kind[run]];
  /** Files of one's own bring no word for their card. */
  const cardWord = (rig) => rig[6] ?? rig[3].toLowerCase().replace(/[^\p{L}\p{N}.]+/gu, "-");
  const level = ([kind, ofRun]) => {
    const word = (kind === "measured" && ofRun) || kind;
    return [word, word];
  };

  // What of a run several values can be chosen of: numbers of all runs, and by number the label and
  // the word for the address. There are far fewer of these than runs.
  const numbered = {
    card: [runs.rig, data.rigs.map((rig) => [rig[3], cardWord(rig)])],
    quant: [runs.quant, data.quants],
    family: [runs.model, data.models.map(([family]) => data.families[family])],
    engine: [runs.engine, data.engines],
    build: [runs.build, data.builds],
    api: [runs.api, data.apis],
    hardware: [runs.rig, data.rigs],
    mode: [runs.mode, data.modes],
    settings: [runs.settings, data.settings],
    level: [runs.kind, data.kinds.map(level)],
    backend: [runs.backend, data.backends],
  };
  /** The same of one run. */
  const facts = Object.fromEntries(Object.entries(numbered).map(([name, [numbers, all]]) => [name, (run) => all[numbers[run]]]));

  // What of a run is a size, of which a least and a most can be chosen: likewise, in GB and in
  // billions.
  const sizes = {
    vram: [runs.rig, data.rigs.map((rig) => rig[4])],
    params: [runs.model, data.models.map((model) => model[4] && model[4] / 1e9)],
  };

  const accepted = (line) => {
    const shares = line.rows.map((row) => data.accepted[row]).filter((share) => share !== undefined);
    if (!shares.length) return "";
    const [low, high] = [Math.min(...shares), Math.max(...shares)];
    return `${low === high ? low : `${low}–${high}`} % accepted`;
  };
  /** What is switched on beside the baseline, and what it brought: query/labels.py's ``how``. */
  const how = (line) => {
    const mode = facts.mode(line.run)[0];
    return mode === "baseline" ? "" : [mode, accepted(line)].filter(Boolean).join(", ");
  };

  // Prompts of about one length: a wait is compared with waits for as much to read.

  const waits = isLatency ? tokrig.waits : null;
  /** The power of two that the prompt is nearest to; 0 where its length is not known. */
  const promptClasses = waits?.prompt.map((tokens) => (tokens ? 2 ** Math.round(Math.log2(tokens)) : 0)) ?? [];
  const promptClass = (row) => promptClasses[row] ?? 0;

  // State

  const CONCURRENCIES = [...new Set(rows.concurrency)].sort((a, b) => a - b);
  const lowest = String(CONCURRENCIES.includes(1) || !CONCURRENCIES.length ? 1 : CONCURRENCIES[0]);
  const none = (names) => Object.fromEntries(Object.keys(names).map((name) => [name, ""]));
  const COLUMNS = [...table.tHead.querySelectorAll("[data-sort]")].map((head) => head.dataset.sort).join(",");
  const DEFAULTS = {
    q: "", shape: isLatency ? (data.shapes[0] ?? "") : "", concurrency: lowest, prompt: "",
    ...none(facts), ...none(sizes),
    validity: "shown", sort: isLatency ? "ttft" : "-parameters", group: isLatency ? "none" : "family",
    columns: COLUMNS, closed: "", page: "1",
  };

  const view = {
    table, isLatency, VERDICTS, CONCURRENCIES, DEFAULTS, facts, numbered, sizes, how, modelOf, rigOf, kindOf, waits, promptClass,
    state: null,

    /** Words chosen of one fact. */
    chosen: (name) => view.state[name].split(",").filter(Boolean),

    /** A range as numbers, without limits where it says none; null where nobody can read it. */
    range(name) {
      const found = /^(\d*\.?\d*)-(\d*\.?\d*)$/.exec(view.state[name] || "-");
      return found && [found[1] ? Number(found[1]) : -Infinity, found[2] ? Number(found[2]) : Infinity];
    },

    read() {
      const asked = new URLSearchParams(location.search);
      const found = {};
      for (const [name, usual] of Object.entries(DEFAULTS)) found[name] = asked.get(name) ?? usual;
      found.card = found.card.split(",").map(wholeWord).join(",");
      // Waits of several shapes or loads stand in no one order.
      if (isLatency && !found.shape) found.shape = DEFAULTS.shape;
      if (isLatency && found.concurrency === "all") found.concurrency = DEFAULTS.concurrency;
      view.state = found;
    },

    address() {
      const changed = Object.entries(view.state).filter(([name, value]) => value !== DEFAULTS[name]);
      // Parameters of others on the page stay; commas stay readable; everything else is encoded.
      const others = [...new URLSearchParams(location.search)].filter(([name]) => !(name in DEFAULTS));
      const encode = (value) => encodeURIComponent(value).replaceAll("%2C", ",");
      const query = [...others, ...changed].map(([name, value]) => `${encode(name)}=${encode(value)}`);
      return location.pathname + (query.length ? `?${query.join("&")}` : "") + location.hash;
    },

    /** Take over what changed and show it. A ``step`` is one the back button returns from. */
    go(change, step = true) {
      view.state = { ...view.state, page: "1", ...change };
      if (step) history.pushState(null, "", view.address());
      else history.replaceState(null, "", view.address());
      view.show();
    },

    /** Show at once; the address follows when nothing more has come for a moment, as browsers
     * refuse to be told many a second. */
    soon(change) {
      view.state = { ...view.state, page: "1", ...change };
      clearTimeout(later);
      later = setTimeout(() => history.replaceState(null, "", view.address()), 300);
      view.show();
    },
  };
  let later = 0;

  /** ``rtx-4090`` for ``geforce-rtx-4090``: people leave the brand out. */
  function wholeWord(word) {
    const cards = [...new Set(data.rigs.map(cardWord))];
    const ending = cards.filter((card) => card.endsWith(`-${word}`));
    return word && !cards.includes(word) && ending.length === 1 ? ending[0] : word;
  }

  view.read();
  tokrig.view = view;
}
