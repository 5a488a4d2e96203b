// What runs on my machine: three controls and their answer, with the state in the address. The
// figures come from assets/rows.js and assets/fit.js; the latter is loaded when first asked for.
"use strict";

{
  const { make, url, data } = tokrig;
  const { NULL, count, gigabytes, isKnown, mark, parameters, rate, span, time } = tokrig.words;
  const { rows, runs } = data;
  const outline = document.getElementById("finder-form");
  outline.after(outline.content.cloneNode(true));
  const form = document.getElementById("finder");
  const box = document.getElementById("answer");
  const head = document.getElementById("answer-head");
  const NAMES = ["machine", "use", "fast"];
  const USUAL = { use: "chat", fast: "20" };
  const MOST_FAST = 1e6; // tok/s; no machine comes near
  const MOST_MODELS = 20; // drawn at once, of a section
  const OWN = "own";
  const FOLDED = [
    ["slower", "Run, but slower"],
    ["unrated", "Fit, and nobody can say how fast"],
    ["no", "Do not fit"],
    ["unknown", "Of unknown size"],
  ];

  const optionsOf = (select) => [...select.options].map((one) => one.value).filter((word) => word && word !== OWN);
  const machines = optionsOf(form.elements.machine);
  const uses = optionsOf(form.elements.use);
  const speeds = optionsOf(form.elements.fast);
  const labelOf = (select, word) => [...select.options].find((one) => one.value === word)?.textContent ?? word;

  // State, in the address

  let state = read();

  function read() {
    const asked = new URLSearchParams(location.search);
    return Object.fromEntries(NAMES.map((name) => [name, (asked.get(name) ?? USUAL[name] ?? "").trim()]));
  }

  function go(change) {
    state = { ...state, ...change };
    const query = new URLSearchParams(location.search);
    for (const name of NAMES) {
      const isUsual = !state.machine || !state[name] || state[name] === USUAL[name];
      if (isUsual) query.delete(name);
      else query.set(name, state[name]);
    }
    // Commas stay readable; everything else is encoded.
    const text = query.toString().replaceAll("%2C", ",");
    history.pushState(null, "", location.pathname + (text ? `?${text}` : "") + location.hash);
    show();
  }

  /** Tokens a second that were asked for, by number or by name; null for what is neither. */
  function speedOf(text) {
    const named = [...form.elements.fast.options].find((one) => one.dataset.name === text.toLowerCase());
    const value = Number(named ? named.value : text.replace(",", "."));
    return text !== "" && value > 0 && value <= MOST_FAST ? value : null;
  }

  // One line: a model in a quant

  const link = (target, label) => make("a", { href: url(target) }, label);
  const small = (text) => (text ? [make("span", { class: "spread" }, text)] : []);
  const rigOf = (row) => data.rigs[runs.rig[rows.run[row]]];

  /** ``7.5 s``, ``29 s``, ``2 min 05 s``: as long as one waits, no finer. */
  const roughly = (s) => (s < 10 ? `${s.toFixed(1)} s` : s < 60 ? `${s.toFixed(0)} s` : time(s));

  function marks(row) {
    const run = rows.run[row];
    const [kind, level] = data.kinds[runs.kind[run]];
    const mode = data.modes[runs.mode[run]];
    const found = [];
    if (mode[1] !== "baseline") found.push(make("span", { class: "badge", title: "not the engine's usual way" }, mode[0]));
    if (rows.valid[row] === 2) found.push(mark("unchecked", "unverified"));
    if (runs.errata[run]) found.push(mark("erratum", "erratum"));
    if (kind !== "measured") found.push(mark("transcribed", kind));
    else if (level === "quick") found.push(mark("quick", "quick"));
    return found;
  }

  function speed(line) {
    const cell = make("td", { class: "num gen" });
    if (line.rate === null) return (cell.append(NULL), cell);
    if (line.row === null) {
      const within = line.low === null ? "" : `9 of 10 in ${span(line.low, line.high)}`;
      cell.append(make("span", {}, `≈ ${rate(line.rate)}`), ...small(within));
      return cell;
    }
    cell.append(link(`runs/${runs.id[rows.run[line.row]]}.html`, rate(line.rate)));
    const kind = rows.spread[line.row] === 2 ? "95 %" : "range";
    if (rows.spread[line.row]) cell.append(...small(`${span(line.low, line.high)} ${kind}`));
    if (line.others) {
      const [low, high, number] = line.others;
      cell.append(...small(`${span(low, high)} in ${count(number, "result")}`));
    }
    return cell;
  }

  /** How it is known, and where from. */
  function basis(line, asked) {
    if (line.how === "no") return ["does not fit", `${gigabytes(line.missing)} too much`];
    if (line.how === "unknown") return [asked.bytes === null ? "memory not known" : "size not known", ""];
    if (line.how === "fits") return ["fits", "speed not known"];
    if (line.how === "expected") {
      const machines = tokrig.fit.shares[asked.kind === "size" || asked.kind === "card" ? "gpu" : "cpu"][1][line.of];
      const from = {
        here: "from its other uses here",
        elsewhere: `from ${count(machines, "other machine")}`,
        like: "from models like it",
      };
      return ["expected", from[line.basis]];
    }
    const [label, , badges] = rigOf(line.row);
    const limits = badges.filter((badge) => !badge.startsWith("driver"));
    const where = asked.kind === "none" ? "measured without a card" : "measured on this size";
    const on = [line.how === "size" ? label : "", ...limits].filter(Boolean).join(", ");
    return [line.how === "size" ? where : "measured here", on];
  }

  function quality(line) {
    const own = line.row === null ? undefined : data.quality[rows.run[line.row]];
    const found = own ?? qualities().get(line.of);
    return found && isKnown(found[0]) ? `${(100 * found[0]).toFixed(1)} %` : NULL;
  }

  let ofModels = null;
  /** Of each model, the quality that its newest run tells. */
  function qualities() {
    if (!ofModels) {
      ofModels = new Map();
      for (const [run, found] of Object.entries(data.quality)) {
        const of = tokrig.fit.of[run];
        if (!ofModels.has(of)) ofModels.set(of, found);
      }
    }
    return ofModels;
  }

  function rowOf(line, asked, others) {
    const { models } = tokrig.fit;
    const model = data.models[models.model[line.of]];
    const [how, from] = basis(line, asked);
    const ttft = line.row === null ? null : rows.ttft_s[line.row];
    const whole = line.rate ? roughly((ttft ?? 0) + 1000 / line.rate) : NULL;
    const name = make("th", { scope: "row", class: "model" });
    if (others !== null) {
      name.append(link(`models/${model[2]}.html`, model[3]));
      if (isKnown(model[4])) name.append(" ", make("span", { class: "muted" }, `${model[6] ? "≈ " : ""}${parameters(model[4])}`));
    } else name.append(make("span", { class: "unseen" }, model[3]));
    if (others?.length) name.append(" ", unfold(others, asked));
    const found = line.row === null ? [] : marks(line.row);
    if (found.length) name.append(make("span", { class: "marks" }, ...found));
    const engine = line.row === null ? "" : data.backends[runs.backend[rows.run[line.row]]][0];
    const use = Math.max(0, uses.indexOf(state.use));
    const about = line.seen ? "" : models.cache[use][line.of] === null ? "≥ " : "≈ ";
    const memory = isKnown(line.memory) ? `${about}${gigabytes(line.memory)}` : NULL;
    const cell = (kind, text, ...more) => make("td", { class: text === NULL || text === "" ? `${kind} none` : kind }, text, ...more);
    return make(
      "tr", { class: others === null ? "other" : null },
      name,
      cell("quant", data.quants[models.quant[line.of]][0]),
      cell("num file", gigabytes(models.bytes[line.of])),
      cell("num memory", memory),
      speed(line),
      cell("num ttft", time(ttft)),
      cell("num whole", whole !== NULL && line.row === null ? `≈ ${whole}` : whole),
      cell("num same", quality(line)),
      cell("engine", engine),
      make("td", { class: `how ${line.how}` }, how, ...small(from)),
    );
  }

  /** A button that shows the other quants of a model under it. */
  function unfold(others, asked) {
    const button = make("button", { type: "button", class: "quiet more", "aria-expanded": "false" }, `+ ${count(others.length, "quant")}`);
    button.addEventListener("click", () => {
      const line = button.closest("tr");
      const isOpen = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!isOpen));
      if (!isOpen) return line.after(...others.map((other) => rowOf(other, asked, null)));
      for (const _ of others) line.nextElementSibling.remove();
    });
    return button;
  }

  // A section: the largest models first, the rest of them on request

  function tableOf(models, asked, title) {
    const body = make("tbody");
    const draw = (list) => body.append(...list.map(([line, ...others]) => rowOf(line, asked, others)));
    draw(models.slice(0, MOST_MODELS));
    const table = make("table", { class: "fits" }, make("caption", { class: "unseen" }, title), head.content.cloneNode(true), body);
    const parts = [table];
    if (models.length > MOST_MODELS) {
      const button = make("button", { type: "button", class: "quiet" }, `All ${count(models.length, "model")}`);
      button.addEventListener("click", () => {
        const last = body.lastElementChild;
        draw(models.slice(MOST_MODELS));
        button.remove();
        last.nextElementSibling.querySelector("a")?.focus();
      });
      parts.push(button);
    }
    return parts;
  }

  function folded([section, title], models, asked) {
    const details = make("details", {}, make("summary", {}, `${title}: ${count(models.length, "model")}`));
    details.addEventListener("toggle", () => details.append(...tableOf(models, asked, title)), { once: true });
    return details;
  }

  function draw(machine, use, fast) {
    const asked = tokrig.fit.machines[machine];
    const found = tokrig.answer(data, tokrig.fit, machine, use, fast);
    const [, label, shape, context] = tokrig.fit.uses[use];
    const title = `${count(found.fast.length, "model")} at ${rate(fast)} tok/s or more`;
    const parts = [];
    if (found.fast.length) parts.push(...tableOf(found.fast, asked, title));
    for (const one of FOLDED) if (found[one[0]].length) parts.push(folded(one, found[one[0]], asked));
    const measured = asked.rigs.length ? `${count(asked.rigs.length, "machine")} with records` : "no machine with records";
    const isExpected = [...found.fast, ...found.slower].some(([line]) => line.how === "expected");
    const room = asked.bytes ? gigabytes(asked.bytes) : "its memory";
    const note = `${label}: speeds of the shape ${shape}, ${measured}. Weights, ${context / 1024}k tokens of context and the engine have to fit into ${room}.${isExpected ? " An expected speed has no TTFT: reading a prompt is bound by arithmetic, which few records tell." : ""}`;
    const nothing = found.fast.length ? title : `No model is known to reach ${rate(fast)} tok/s here`;
    return [make("p", { class: "status", role: "status" }, make("strong", {}, nothing), `. ${note}`), ...parts];
  }

  // What was asked for and is not known

  function said(text, ...links) {
    return make("p", { class: "note told", role: "status" }, text, ...links);
  }

  function unknownMachine() {
    const pieces = state.machine.toLowerCase().split(/[^a-z0-9]+/).filter((piece) => piece.length > 1);
    const near = machines.map((word) => [pieces.filter((piece) => word.includes(piece)).length, word]);
    const best = near.filter(([hits]) => hits).sort(([a], [b]) => b - a).slice(0, 6).map(([, word]) => word);
    const known = best.length ? best : machines.slice(0, 8);
    const links = known.flatMap((word, place) => {
      const to = make("a", { href: `?machine=${encodeURIComponent(word)}` }, labelOf(form.elements.machine, word));
      return place ? [", ", to] : [to];
    });
    const asked = state.machine.length > 60 ? `${state.machine.slice(0, 60)}…` : state.machine;
    return said(`Nobody has measured “${asked}”. Known are, among others: `, ...links, ".");
  }

  function doubts(use, fast) {
    const found = [];
    if (use < 0) found.push(`“${state.use.slice(0, 60)}” is no use known here (${uses.join(", ")}): this is for ${USUAL.use}.`);
    if (fast === null) found.push(`“${state.fast.slice(0, 60)}” is no number of tok/s above 0 and up to ${rate(MOST_FAST)}: this is for ${USUAL.fast}.`);
    return found.map((text) => said(text));
  }

  function syncForm() {
    const { machine, use, fast, own } = form.elements;
    machine.value = machines.includes(state.machine) ? state.machine : "";
    use.value = uses.includes(state.use) ? state.use : USUAL.use;
    const value = speedOf(state.fast);
    const isListed = value === null || speeds.includes(String(value));
    fast.value = value === null ? USUAL.fast : isListed ? String(value) : OWN;
    own.parentElement.hidden = isListed;
    if (!isListed) own.value = String(value);
  }

  let waiting = null;
  function fitted() {
    if (tokrig.fit) return Promise.resolve();
    waiting ??= new Promise((done, failed) => {
      document.head.append(make("script", { src: url("assets/fit.js"), onload: done, onerror: failed }));
    });
    return waiting;
  }

  function show() {
    syncForm();
    box.hidden = !state.machine;
    if (!state.machine) return box.replaceChildren();
    const machine = machines.indexOf(state.machine);
    if (machine < 0) return box.replaceChildren(unknownMachine());
    const use = uses.indexOf(state.use);
    const fast = speedOf(state.fast);
    const put = () => box.replaceChildren(...doubts(use, fast), ...draw(machine, Math.max(0, use), fast ?? Number(USUAL.fast)));
    if (tokrig.fit) return put();
    box.replaceChildren(make("p", { class: "status", role: "status" }, "Looking…"));
    fitted().then(show, () => {
      waiting = null;
      box.replaceChildren(said("assets/fit.js, which this answer is made from, could not be loaded: is it beside this page?"));
    });
  }

  for (const name of ["machine", "use"]) form.elements[name].addEventListener("change", (event) => go({ [name]: event.target.value }));
  form.elements.fast.addEventListener("change", (event) => {
    if (event.target.value !== OWN) return go({ fast: event.target.value });
    form.elements.own.parentElement.hidden = false;
    form.elements.own.focus();
  });
  form.elements.own.addEventListener("change", (event) => go({ fast: event.target.value }));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("popstate", () => {
    state = read();
    show();
  });
  show();
}
