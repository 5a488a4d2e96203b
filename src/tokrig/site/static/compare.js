// Whether two runs can be compared, and their ratios: the rules of tokrig.compare in the browser.
// tokrig.compare(a, b) answers as Python's comparison(a, b).as_dict(); tables of variables and
// words of classes come with the page, so that they exist once.
"use strict";

window.tokrig = window.tokrig || {};

{
  const { rules } = tokrig;
  const NO_RATIO = { value: null, low: null, high: null, verdict: "none", basis: "none", settle: "" };
  const known = (value) => value !== null && value !== undefined;

  // Differences (query/variables.py)

  const stateOf = (entry, { rare }) => {
    if (rare && !known(entry.a) && !known(entry.b)) return "same";
    if (!known(entry.a) || !known(entry.b)) return "unknown";
    return entry.a === entry.b ? "same" : "differs";
  };

  /** Whether what is not known is the same all the same, because what decides it is known. */
  const isDecided = ({ name, keys }, state, untold, changed) => {
    const same = (...names) => names.every((one) => state(one) === "same");
    const under = (prefixes) => (key) => prefixes.some((prefix) => key.startsWith(prefix));
    if (rules.of_the_file.includes(name)) return same("model.sha256");
    if (!keys.every((key) => untold.has(key) || state(key) === "same")) return false;
    if (!same("provenance.kind", "provenance.methodology")) return false;
    if (keys.every(under(["rig."]))) return !["machine", "GPU"].includes(name);
    return (
      same("backend.managed", ...rules.started_by) &&
      state("backend.argv") !== "unknown" &&
      !changed.includes("command line") &&
      keys.some(under(["backend.resolved.", "mode.", "model."]))
    );
  };

  const differences = (a, b) => {
    const states = new Map();
    const found = { same: [], differs: [], unknown: [] };
    const untold = new Set();
    for (const variable of rules.variables) {
      const { name, keys } = variable;
      for (const key of keys) {
        const entry = { key, variable: name, a: a.keys[key] ?? null, b: b.keys[key] ?? null };
        states.set(key, stateOf(entry, variable));
        found[states.get(key)].push(entry);
        if (!known(entry.a) && !known(entry.b)) untold.add(key);
      }
      const ofKeys = keys.map((key) => states.get(key));
      states.set(name, ["differs", "unknown", "same"].find((state) => ofKeys.includes(state)));
    }
    const state = (name) => states.get(name);
    const onCpu = a.keys["backend.api"] === "cpu" && b.keys["backend.api"] === "cpu";
    const ofGpus = ({ keys }) => keys.every((key) => key.startsWith("rig.gpus."));
    const counted = rules.variables.filter((one) => one.counts && !(onCpu && ofGpus(one)));
    const explained = (names) => names.some((name) => state(name) === "differs");
    const changed = counted
      .filter((one) => state(one.name) === "differs" && !explained(one.follows))
      .map(({ name }) => name);
    const open = counted.filter(
      (one) => state(one.name) === "unknown" && !explained([...one.follows, ...one.covers]),
    );
    const isUnread = (one) => isDecided(one, state, untold, changed);
    return {
      state,
      changed,
      assumed: open.filter((one) => !isUnread(one)).map(({ name }) => name),
      unread: open.filter(isUnread).map(({ name }) => name),
      differing: found.differs,
      unknown: found.unknown,
      onCpu,
      noGpu: [a, b].some((one) => one.keys["backend.api"] === "cpu") || a.keys["rig.gpus.name"] === "none",
    };
  };

  // The spread between starts (query/spread.py)

  const usable = (...values) => values.every((value) => value > 1e-12 && value < 1e12);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const enough = (starts) => known(starts) && starts >= rules.starts_needed;

  /** Chance of a value farther from zero than t under Student's t distribution. */
  const beyond = (t, freedom) => {
    const angle = Math.atan(t / Math.sqrt(freedom));
    const cosine = Math.cos(angle);
    const odd = freedom % 2;
    let term = odd ? cosine : 1;
    let total = freedom > 1 ? term : 0;
    for (let power = odd ? 2 : 1; power < freedom - 2; power += 2) {
      term *= (cosine * cosine * power) / (power + 1);
      total += term;
    }
    const within = Math.sin(angle) * total;
    return 1 - (odd ? (2 / Math.PI) * (angle + within) : within);
  };

  const criticals = new Map();
  const critical = (freedom, tests) => {
    const key = `${freedom} ${tests}`;
    if (!criticals.has(key)) {
      const chance = rules.level / tests;
      let [low, high] = [0, 2];
      while (beyond(high, freedom) > chance) high *= 2;
      for (let step = 0; step < 50; step += 1) {
        const middle = (low + high) / 2;
        if (beyond(middle, freedom) > chance) low = middle;
        else high = middle;
      }
      criticals.set(key, (low + high) / 2);
    }
    return criticals.get(key);
  };

  const errorOf = ({ deviation, count }) => deviation ** 2 / count;

  const ofStarts = ({ metric, starts }) => {
    if (!enough(Math.min(metric.starts.length, starts ?? 0))) return null;
    const logs = metric.starts.map(Math.log);
    const mean = sum(logs) / logs.length;
    const square = sum(logs.map((one) => (one - mean) ** 2)) / (logs.length - 1);
    return { mean, deviation: Math.sqrt(square), count: logs.length };
  };

  const ofInterval = ({ metric, starts }) => {
    if (!metric.ci95 || !known(starts) || metric.ci95[0] > metric.ci95[1]) return null;
    const error = Math.log(metric.ci95[1] / metric.ci95[0]) / 2 / rules.normal_95;
    return { mean: Math.log(metric.median), deviation: error * Math.sqrt(starts), count: starts };
  };

  const ratioInterval = (mine, other, tests) => {
    const error = errorOf(mine) + errorOf(other);
    const centre = mine.mean - other.mean;
    if (error === 0) return [Math.exp(centre), Math.exp(centre)];
    const freedom =
      error ** 2 / sum([mine, other].map((one) => errorOf(one) ** 2 / (one.count - 1)));
    const half = critical(Math.floor(freedom + 1e-9), tests) * Math.sqrt(error);
    return [Math.exp(centre - half), Math.exp(centre + half)];
  };

  const more = (mine, other, value, least, tests) => {
    const seen = Math.abs(Math.log(value));
    const apart = Math.expm1(seen) > least;
    const room = Math.log1p(Math.max(rules.widest, least)) - seen;
    const both = Math.sqrt(mine.deviation ** 2 + other.deviation ** 2);
    for (let count = Math.max(mine.count, other.count) + 1; count <= rules.most_starts; count += 1) {
      const quantile = critical(2 * count - 2, tests);
      const error = both / Math.sqrt(count);
      if (apart ? (quantile + rules.power_80) * error <= seen : quantile * error <= room) {
        return `about ${count} starts on each side`;
      }
    }
    return "more than 100 starts on each side";
  };

  // Ratios (query/ratios.py)

  const spreads = (of, reference) => {
    for (const [basis, spread] of [["starts", ofStarts], ["intervals", ofInterval]]) {
      const [mine, other] = [spread(of), spread(reference)];
      if (mine && other) return [basis, mine, other];
    }
    return null;
  };

  const tooFew = (a, b) =>
    `engine starts: A ${a ?? "unknown"}, B ${b ?? "unknown"}; ` +
    `${rules.starts_needed} are needed on each side`;
  const NO_INTERVAL = "the figures of the single starts are not in the record: measure it again";

  const judged = (value, low, high, least, higherIsBetter) => {
    const apart = low > 1 || high < 1;
    if (Math.max(value, 1 / value) - 1 > least && apart) {
      return value > 1 === higherIsBetter ? "faster" : "slower";
    }
    const within = Math.max(high, 1 / low) - 1 <= Math.max(rules.widest, least);
    return within ? "not_distinguishable" : "inconclusive";
  };

  const ratio = (of, reference, higherIsBetter, tests, least) => {
    if (!of || !reference) return NO_RATIO;
    const value = of.metric.median / reference.metric.median;
    const open = { ...NO_RATIO, value, verdict: "inconclusive" };
    if (!enough(of.starts) || !enough(reference.starts)) {
      return { ...open, settle: tooFew(reference.starts, of.starts) };
    }
    const found = spreads(of, reference);
    if (!found) return { ...open, settle: NO_INTERVAL };
    const [basis, mine, other] = found;
    let [low, high] = ratioInterval(mine, other, tests);
    if (basis === "intervals") {
      low = of.metric.ci95[0] / reference.metric.ci95[1];
      high = of.metric.ci95[1] / reference.metric.ci95[0];
    }
    [low, high] = [Math.min(low, value), Math.max(high, value)];
    const verdict = judged(value, low, high, least, higherIsBetter);
    const settle = verdict === "inconclusive" ? more(mine, other, value, least, tests) : "";
    return { value, low, high, verdict, basis, settle };
  };

  // Matches and pairs (query/pairs.py)

  const side = ({ figures, starts }, metric) => figures[metric] && { metric: figures[metric], starts };

  const sameTexts = (a, b, found) => {
    if (known(a.hash) && known(b.hash)) return a.hash === b.hash ? "same" : "differs";
    const oneSource = a.hash === b.hash && found.state("provenance.source") === "same";
    return oneSource ? "same" : "unknown";
  };

  const ofOneLength = (a, b) =>
    !known(a) ||
    !known(b) ||
    Math.abs(a - b) <= Math.max(rules.length_tokens, rules.length_share * Math.min(a, b));

  const match = (a, b, found) => {
    const texts = sameTexts(a, b, found);
    const oneLength = ofOneLength(a.prompt_tokens, b.prompt_tokens);
    let comparable = oneLength ? "yes" : "other_length";
    if (texts === "differs") comparable = "other_shape";
    if ([a, b].some(({ verdict }) => verdict === "invalid")) comparable = "invalid";
    return { a, b, comparable, same_shape: oneLength ? texts : "differs" };
  };

  const matches = (a, b, found) => {
    const chosen = found.state("concurrency") === "differs";
    const key = (cell) => JSON.stringify([cell.shape, chosen ? null : cell.concurrency]);
    const others = new Map(b.cells.map((cell) => [key(cell), cell]));
    return a.cells
      .filter((cell) => others.has(key(cell)))
      .map((cell) => match(cell, others.get(key(cell)), found));
  };

  const isRated = ({ a, b, comparable }, metric) =>
    comparable === "yes" && (metric !== "prefill_tok_per_s" || a.prefill_source === b.prefill_source);

  const isDecidedBy = (one, metric) => {
    const sides = [side(one.b, metric), side(one.a, metric)];
    return isRated(one, metric) && sides.every((found) => found && ofStarts(found));
  };

  const leastEffect = (name, noise) =>
    Math.max(rules.smallest_effect, ...noise.map((one) => one[name] ?? 0));

  const leastEffects = (a, b, alike) => {
    const noise = alike ? [] : [a.noise, b.noise];
    return new Map(rules.metrics.map(({ name }) => [name, leastEffect(name, noise)]));
  };

  const pairs = (together, least, rated) => {
    const metrics = rules.metrics;
    const tests = sum(together.map((one) => metrics.filter(({ name }) => isDecidedBy(one, name)).length));
    const figure = (one, { name, higher_is_better }) => ({
      metric: name,
      a: one.a.figures[name],
      b: one.b.figures[name],
      ratio:
        rated && isRated(one, name)
          ? ratio(side(one.b, name), side(one.a, name), higher_is_better, Math.max(tests, 1), least.get(name))
          : NO_RATIO,
    });
    return together.map((one) => ({
      shape: one.a.shape,
      concurrency: [one.a.concurrency, one.b.concurrency],
      verdicts: [one.a.verdict, one.b.verdict],
      codes: [one.a.codes, one.b.codes],
      comparable: one.comparable,
      same_shape: one.same_shape,
      figures: metrics.map((metric) => figure(one, metric)),
    }));
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
      const unverified = group.some((one) => one.verdicts.includes("unverified"));
      const verdict = unverified ? "unverified" : "valid";
      return rules.metrics.flatMap(({ name: metric }, place) => {
        const values = group.map((one) => one.figures[place].ratio.value);
        if (!values.every(known)) return [];
        return [{ concurrency, metric, value: geometricMean(values), shapes: group.length, verdict }];
      });
    });
  };

  // The class (query/classes.py)

  const HASH = "model.sha256";
  const UNSURE = "the prompts are not known to be the same";

  const lacks = (state, what) =>
    `the ${what} ${state === "differs" ? "differs" : "is not known for both"}`;

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

  const essential = (found) => {
    const missing = rules.essential.find((name) => identity(found, name) === "unknown");
    return missing ? lacks("unknown", missing) : null;
  };

  const notA = (found, compared) => {
    const { changed, assumed } = found;
    if (changed.length > 1) return `${changed.length} changed variables: ${changed.join(", ")}`;
    const missing = essential(found);
    if (missing) return missing;
    return assumed.length ? `not known for both: ${assumed.join(", ")}` : unsureShape(compared);
  };

  const notB = (found, compared) => {
    const device = found.onCpu ? "machine" : "GPU";
    for (const name of [device, "engine", "build", "API", HASH]) {
      const state = found.state(name);
      if (state === "same") continue;
      return name === "machine" ? "no GPU did the work" : lacks(state, name === HASH ? "model hash" : name);
    }
    if (!found.onCpu && found.noGpu) return "no GPU did the work";
    const isSetting = (name) => !rules.of_the_machine.includes(name);
    const settings = found.changed.filter(isSetting);
    if (settings.length) return otherWork(found) || `other settings: ${settings.join(", ")}`;
    const missing = found.assumed.filter(isSetting);
    return missing.length ? `not known for both: ${missing.join(", ")}` : unsureShape(compared);
  };

  const notC = (found) => {
    const name = ["model", "quant"].find((one) => identity(found, one) !== "same");
    return name ? lacks(identity(found, name), name) : otherWork(found);
  };

  const nothing = (together) => {
    if (!together.length) return "no shape in common";
    const has = (comparable) => together.some((one) => one.comparable === comparable);
    if (has("other_shape")) return "other workload texts under the same shape name";
    if (has("other_length")) return "prompts of another length under the same shape name";
    return "no shape with a valid result on both sides";
  };

  const methodology = (found) => {
    const state = found.state("methodology");
    const oneSource = state === "unknown" && found.state("provenance.source") === "same";
    return state === "same" || oneSource ? null : lacks(state, "methodology");
  };

  const hardwareOf = (found) => {
    const states = [found.state("machine"), found.onCpu ? "same" : found.state("GPU")];
    return ["differs", "unknown", "same"].find((state) => states.includes(state));
  };

  const classify = (found, together) => {
    const compared = together.filter((one) => one.comparable === "yes");
    if (!compared.length) return ["D", nothing(together)];
    const other = methodology(found);
    if (other) return ["D", other];
    const hardware = hardwareOf(found);
    const here = hardware === "same";
    const whyNotA = here ? notA(found, compared) : lacks(hardware, "machine");
    if (whyNotA === null) {
      const [changed] = found.changed;
      const what = changed ? `one changed variable: ${changed}` : "nothing changed";
      return ["A", `same machine, ${what}`];
    }
    const whyNotB = notB(found, compared);
    if (whyNotB === null) {
      return ["B", found.onCpu ? "same machine, build, model hash and shape" : rules.classes.B];
    }
    if (here && (found.changed.length > 1 || essential(found))) return ["D", `same machine, but ${whyNotA}`];
    const whyNotC = notC(found);
    if (whyNotC !== null) {
      return ["D", here ? `same machine, but ${whyNotA}` : `${rules.where[hardware]}, and ${whyNotC}`];
    }
    return here
      ? ["C", `same model and quant; no A: ${whyNotA}`]
      : ["C", `same model and quant, ${rules.where[hardware]}; no B: ${whyNotB}`];
  };

  const label = ({ a, b }) =>
    `${a.shape} × ${[...new Set([a.concurrency, b.concurrency])].join(" / ")}`;

  const notes = (a, b, [grade, reason], found, together) => {
    const said = [];
    if ("BC".includes(grade) && found.changed.length) {
      said.push(`changed: ${found.changed.join(", ")}`);
    }
    const unsure = unsureShape(together.filter((one) => one.comparable === "yes"));
    if (unsure && !reason.includes(unsure)) said.push(unsure);
    if ("AB".includes(grade) && found.unread.length) {
      said.push(`read on neither side, decided by what is the same: ${found.unread.join(", ")}`);
    }
    if ([a, b].some((one) => one.keys["backend.api_confirmed"] === "no")) {
      said.push("an API label is not confirmed by its engine");
    }
    for (const [comparable, words] of rules.left_out) {
      const leftOut = together.filter((one) => one.comparable === comparable).map(label);
      if (leftOut.length) said.push(`${words}: ${leftOut.join(", ")}`);
    }
    return said;
  };

  // What pages need that hold many rows against each other at once: the same statistics.
  tokrig.statistics = { geometricMean, leastEffect, ofOneLength, ofStarts, ratio };

  /** Run b against the reference a; both as Python's Subject.as_dict(). */
  tokrig.compare = (a, b) => {
    const found = differences(a, b);
    const together = matches(a, b, found);
    const verdict = classify(found, together);
    const alike = verdict[0] === "A" && !found.changed.length;
    const shown = pairs(together, leastEffects(a, b, alike), verdict[0] !== "D");
    return {
      a: a.id,
      b: b.id,
      class: verdict[0],
      reason: verdict[1],
      notes: notes(a, b, verdict, found, together),
      changed: found.changed,
      differing: found.differing,
      unknown: found.unknown,
      pairs: shown,
      means: means(a, b, shown),
    };
  };
}
