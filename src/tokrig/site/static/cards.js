// Rows of cards and machines, for pages that hold them beside each other: what an address means,
// and all rows of it. rows.js and cells.js are the data; their docstrings say what each number is.
"use strict";

{
  const { cells, data, make, url } = tokrig;
  const ENDS = ["run", "shape", "concurrency", "valid", "gen", "low", "high", "spread", "prefill_tok_per_s", "ttft_s"];
  const rows = {};
  for (const name of ENDS) rows[name] = data.rows[name].concat(cells.deep[name]);
  const PLAIN = data.rows.run.length;
  const shapes = data.shapes.concat(cells.shapes);
  for (let row = PLAIN; row < rows.run.length; row += 1) rows.shape[row] += data.shapes.length;
  for (const name of ["starts", "texts", "prompt", "place"]) rows[name] = cells.rows[name].concat(cells.deep[name]);
  rows.joules = data.rows["energy.j_per_output_token"] ?? [];

  const [LABEL, ADDRESS, ALIASES, GB, BYTES, KIND, RIGS, MEMORY, BANDWIDTH, POWER] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
  const cards = cells.cards.map((card, number) => ({
    number,
    label: card[LABEL],
    address: card[ADDRESS],
    aliases: card[ALIASES],
    gb: card[GB],
    bytes: card[BYTES],
    kind: card[KIND],
    rigs: card[RIGS],
    memory: card[MEMORY],
    bandwidth: card[BANDWIDTH],
    power: card[POWER],
  }));
  const ofCard = cards.map(() => []);
  for (let row = 0; row < rows.run.length; row += 1) {
    if (rows.place[row] >= 0) ofCard[cells.runs.card[rows.run[row]]].push(row);
  }

  /** What is meant by a word of an address: a card, or one machine. More than one where the word
   * is not enough, as for a card that exists with 10 and with 12 GB; none where nobody knows it. */
  const find = (text) => {
    const word = text.toLowerCase();
    const card = cards.find(({ address }) => address === word);
    if (card) return [{ ...card, rig: null }];
    const ofRig = cards.find(({ rigs }) => rigs.includes(word));
    if (ofRig) return [{ ...ofRig, rig: word, address: word, label: ofRig.rigs.length > 1 ? `${ofRig.label} (${word})` : ofRig.label }];
    return cards.filter(({ aliases }) => aliases.includes(word)).map((one) => ({ ...one, rig: null }));
  };

  const rigNumbers = new Map(data.rigs.map((rig, number) => [rig[1], number]));
  /** The rows of a card, or of one machine, that may be set beside others. */
  const rowsOf = ({ number, rig }) => {
    if (rig === null) return ofCard[number];
    const wanted = rigNumbers.get(rig);
    return ofCard[number].filter((row) => data.runs.rig[rows.run[row]] === wanted);
  };

  /** A figure with what the rules of statistics ask of it; starts of others than decode rates are
   * loaded when they are asked for. */
  const side = (row, metric) => ({
    metric: {
      median: rows[metric][row],
      ci95: metric === "gen" && rows.spread[row] === 2 ? [rows.low[row], rows.high[row]] : null,
      starts: (metric === "gen" ? cells.starts : tokrig[`starts_${metric}`])?.[row] ?? [],
    },
    starts: rows.starts[row],
  });

  const run = (row) => rows.run[row];
  const words = {
    model: (row) => data.models[data.runs.model[run(row)]][3],
    quant: (row) => data.quants[data.runs.quant[run(row)]][0],
    mode: (row) => (data.modes[data.runs.mode[run(row)]][1] === "baseline" ? "" : data.modes[data.runs.mode[run(row)]][0]),
    backend: (row) => data.backends[data.runs.backend[run(row)]][0],
    engine: (row) => data.engines[data.runs.engine[run(row)]][0],
    build: (row) => data.builds[data.runs.build[run(row)]][0],
    api: (row) => data.apis[data.runs.api[run(row)]][0],
    shape: (row) => `${shapes[rows.shape[row]]} × ${rows.concurrency[row]}`,
    settings: (row) => data.settings[data.runs.settings[run(row)]][0],
    date: (row) => data.runs.date[run(row)],
    id: (row) => data.runs.id[run(row)],
  };
  const isUsual = (row) => words.settings(row) === "the engine's own";
  const highest = cards.map(() => 0);
  cells.runs.card.forEach((card, number) => {
    highest[card] = Math.max(highest[card], cells.runs.limit[number] ?? 0);
  });
  /** What was set where it is not as usual: ``KV q8_0, 250 W``. */
  const unusual = (row) => {
    const limit = cells.runs.limit[run(row)];
    const told = isUsual(row) ? [] : [words.settings(row)];
    if (limit && limit < highest[cells.runs.card[run(row)]]) told.push(`${Math.round(limit)} W`);
    return told.join(", ");
  };

  const said = (text) => make("bdi", {}, text);
  const link = (path, ...children) => make("a", { href: url(path) }, ...children);
  /** Where two rows stand beside each other, the first as the reference. */
  const compareLink = (...pair) => {
    const picks = pair.map((row) => `${words.id(row)}~${rows.concurrency[row]}~${shapes[rows.shape[row]].replaceAll(",", "%2C")}`);
    return `compare.html?rows=${picks.map(encodeURIComponent).join(",")}`;
  };

  tokrig.cards = { PLAIN, cards, compareLink, find, isUsual, link, rows, rowsOf, said, shapes, side, unusual, words };
}
