// Whether two runs can be compared, and their ratios: the rules of tokrig.query in the browser.
// tokrig.compare(a, b) answers as Python's comparison(a, b).as_dict(); tables of variables and
// words of classes come with the page, so that they exist once.
"use strict";

window.tokrig = window.tokrig || {};

{
  const rules = JSON.parse(document.getElementById("compare-rules").textContent);
  const NO_RATIO = { value: null, low: null, high: null, verdict: "none", basis: "none" };
  const known = (value) => value !== null && value !== undefined;

  // Differences (query/variables.py)

  const stateOf = (entry, { rare }) => {
    if (rare && !known(entry.a) && !known(entry.b)) return "same";
    if (!known(entry.a) || !known(entry.b)) return "unknown";
    return entry.a === entry.b ? "same" : "differs";
  };

  const differences = (a, b) => {
    const states = new Map();
    const found = { same: [], differs: [], unknown: [] };
    for (const variable of rules.variables) {
      const { name, keys } = variable;
      for (const key of keys) {
        const entry = { key, variable: name, a: a.keys[key] ?? null, b: b.keys[key] ?? null };
        states.set(key, stateOf(entry, variable));
        found[states.get(key)].push(entry);
      }
      const ofKeys = keys.map((key) => states.get(key));
      states.set(name, ["differs", "unknown", "same"].find((state) => ofKeys.includes(state)));
    }
    const state = (name) => states.get(name);
    const explained = ({ follows }) => follows.some((name) => state(name) === "differs");
    const counted = (wanted) =>
      rules.variables
        .filter((one) => one.counts && state(one.name) === wanted && !explained(one))
        .map(({ name }) => name);
    return {
      state,
      changed: counted("differs"),
      assumed: counted("unknown"),
      differing: found.differs,
      unknown: found.unknown,
    };
  };

  // Ratios (query/ratios.py)

  const rangeOf = ({ min, max, n }) =>
    known(min) && known(max) && known(n) && n >= 2 ? [min, max] : null;

  const spreads = (metric, reference) => {
    if (metric.ci95 && reference.ci95) return ["interval", metric.ci95, reference.ci95];
    const [mine, other] = [rangeOf(metric), rangeOf(reference)];
    if (mine && other) return ["range", mine, other];
    return ["medians", null, null];
  };

  const ratio = (metric, reference, higherIsBetter) => {
    if (!metric || !reference) return NO_RATIO;
    const value = metric.median / reference.median;
    const [basis, mine, other] = spreads(metric, reference);
    const interval = basis === "interval" ? [mine[0] / other[1], mine[1] / other[0]] : [null, null];
    const overlap = basis !== "medians" && mine[0] <= other[1] && other[0] <= mine[1];
    let verdict = value > 1 === higherIsBetter ? "faster" : "slower";
    if (overlap || Math.max(value, 1 / value) - 1 <= rules.smallest_effect) {
      verdict = basis === "medians" ? "tie" : "not_distinguishable";
    }
    return { value, low: interval[0], high: interval[1], verdict, basis };
  };

  // Pairs (query/pairs.py)

  const sameShape = (a, b, found) => {
    if (known(a.hash) && known(b.hash)) return a.hash === b.hash ? "same" : "differs";
    const oneSource = a.hash === b.hash && found.state("provenance.source") === "same";
    return oneSource ? "same" : "unknown";
  };

  const figure = ({ name: metric, higher_is_better }, a, b, comparable) => {
    const [mine, other] = [b.figures[metric], a.figures[metric]];
    const oneMetric = metric !== "prefill_tok_per_s" || a.prefill_source === b.prefill_source;
    const found =
      comparable === "yes" && oneMetric ? ratio(mine, other, higher_is_better) : NO_RATIO;
    return { metric, a: other, b: mine, ratio: found };
  };

  const pair = (a, b, found) => {
    const same_shape = sameShape(a, b, found);
    let comparable = same_shape === "differs" ? "other_shape" : "yes";
    if (!(a.valid && b.valid)) comparable = "invalid";
    return {
      shape: a.shape,
      concurrency: [a.concurrency, b.concurrency],
      comparable,
      same_shape,
      figures: rules.metrics.map((metric) => figure(metric, a, b, comparable)),
    };
  };

  const pairs = (a, b, found) => {
    const chosen = found.state("concurrency") === "differs";
    const key = (cell) => JSON.stringify([cell.shape, chosen ? null : cell.concurrency]);
    const others = new Map(b.cells.map((cell) => [key(cell), cell]));
    return a.cells
      .filter((cell) => others.has(key(cell)))
      .map((cell) => pair(cell, others.get(key(cell)), found));
  };

  const geometricMean = (values) =>
    Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);

  const means = (a, b, together) => {
    const groups = new Map();
    for (const one of together) {
      const key = one.concurrency.join();
      groups.set(key, [...(groups.get(key) || []), one]);
    }
    return [...groups.values()].flatMap((group) => {
      const { concurrency } = group[0];
      const whole = [a, b].every(
        ({ cells }, side) =>
          cells.filter((cell) => cell.concurrency === concurrency[side]).length === group.length,
      );
      const sure = group.every((one) => one.comparable === "yes" && one.same_shape === "same");
      if (group.length < 2 || !whole || !sure) return [];
      return rules.metrics.flatMap(({ name: metric }, place) => {
        const values = group.map((one) => one.figures[place].ratio.value);
        if (!values.every(known)) return [];
        return [{ concurrency, metric, value: geometricMean(values), shapes: group.length }];
      });
    });
  };

  // The class (query/classes.py)

  const HASH = "model.sha256";
  const UNSURE = "the prompts are not known to be the same";

  const lacks = (state, what) =>
    `the ${what} ${state === "differs" ? "differs" : "is not known of both"}`;

  const identity = (found, name) => {
    const byHash = ["model", "quant"].includes(name) && found.state(HASH) === "same";
    return byHash ? "same" : found.state(name);
  };

  const unsureShape = (compared) =>
    compared.some((one) => one.same_shape === "unknown") ? UNSURE : null;

  const otherWork = (found) => {
    const name = rules.other_work.find((one) => found.state(one) === "differs");
    return name ? lacks("differs", name) : null;
  };

  const notA = (found, compared) => {
    const { changed } = found;
    if (changed.length > 1) return `${changed.length} changed variables: ${changed.join(", ")}`;
    const missing = rules.essential.find((name) => identity(found, name) === "unknown");
    return missing ? lacks("unknown", missing) : unsureShape(compared);
  };

  const notB = (a, found, compared) => {
    for (const name of ["GPU", "engine", "build", "API", HASH]) {
      const state = found.state(name);
      if (state !== "same") return lacks(state, name === HASH ? "model hash" : name);
    }
    const noGpu = a.keys["rig.gpus.name"] === "none" || a.keys["backend.api"] === "cpu";
    return noGpu ? "no GPU did the work" : otherWork(found) || unsureShape(compared);
  };

  const notC = (found) => {
    const name = ["model", "quant"].find((one) => identity(found, one) !== "same");
    return name ? lacks(identity(found, name), name) : otherWork(found);
  };

  const nothing = (together) => {
    if (!together.length) return "no shape in common";
    return together.some((one) => one.comparable === "other_shape")
      ? "other workload texts under the same shape name"
      : "no shape with a valid result on both sides";
  };

  const classify = (a, found, together) => {
    const compared = together.filter((one) => one.comparable === "yes");
    if (!compared.length) return ["D", nothing(together)];
    const otherHardware = ["machine", "GPU"].some((name) => found.state(name) === "differs");
    const whyNotA = otherHardware ? "" : notA(found, compared);
    if (whyNotA === null) {
      const [changed] = found.changed;
      const what = changed ? `one changed variable: ${changed}` : "nothing changed";
      return ["A", `same machine, ${what}`];
    }
    const whyNotB = notB(a, found, compared);
    if (whyNotB === null) return ["B", rules.classes.B];
    if (!otherHardware) return ["D", `same machine, but ${whyNotA}`];
    const whyNotC = notC(found);
    if (whyNotC === null) return ["C", `${rules.classes.C}; no B: ${whyNotB}`];
    return ["D", `other hardware, and ${whyNotC}`];
  };

  const label = (one) => `${one.shape} × ${[...new Set(one.concurrency)].join(" / ")}`;

  const notes = (a, b, [grade, reason], found, together) => {
    const said = [];
    if ("BC".includes(grade) && found.changed.length) {
      said.push(`changed: ${found.changed.join(", ")}`);
    }
    const unsure = unsureShape(together.filter((one) => one.comparable === "yes"));
    if (unsure && !reason.includes(unsure)) said.push(unsure);
    if (grade === "A" && found.assumed.length) {
      said.push(`not known of both, taken as unchanged: ${found.assumed.join(", ")}`);
    }
    if ([a, b].some((side) => side.keys["backend.api_confirmed"] === "no")) {
      said.push("an API label is not confirmed by its engine");
    }
    for (const [comparable, words] of [
      ["invalid", "invalid results are not compared"],
      ["other_shape", "other workload texts under the same name are not compared"],
    ]) {
      const leftOut = together.filter((one) => one.comparable === comparable).map(label);
      if (leftOut.length) said.push(`${words}: ${leftOut.join(", ")}`);
    }
    return said;
  };

  /** Run b against the reference a; both as Python's Subject.as_dict(). */
  tokrig.compare = (a, b) => {
    const found = differences(a, b);
    const together = pairs(a, b, found);
    const verdict = classify(a, found, together);
    return {
      a: a.id,
      b: b.id,
      class: verdict[0],
      reason: verdict[1],
      notes: notes(a, b, verdict, found, together),
      changed: found.changed,
      differing: found.differing,
      unknown: found.unknown,
      pairs: together,
      means: means(a, b, together),
    };
  };
}
