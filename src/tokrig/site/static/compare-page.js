// The compare page: rows from the address, their runs from scripts, tables from both.
// compare.html?rows=<run id>~<concurrency>[~<shape>],…  The first row is the reference.
"use strict";

{
  const { make } = tokrig;
  const MOST = tokrig.picks.most;
  const { RUN_ID, load, narrowed, runs } = tokrig.runs;
  const { rules } = tokrig;
  const METRICS = rules.metrics.map(({ name }) => name);
  const place = document.getElementById("comparison");
  const status = document.getElementById("compare-status");

  // Rows picked

  const parse = (pick) => {
    const [id, concurrency, ...shape] = pick.split("~");
    const level = Number(concurrency);
    const fits = RUN_ID.test(id) && Number.isInteger(level) && level > 0;
    // Rows are kept apart by commas, and a load's name has one: "chat, sustained".
    const name = shape.join("~").replaceAll("%2C", ",");
    return { pick, id, concurrency: level, shape: name || null, fits };
  };

  const picked = () => {
    const rows = new URLSearchParams(location.search).get("rows") || "";
    return [...new Set(rows.split(",").filter(Boolean))].slice(0, MOST).map(parse);
  };

  const keep = (picks) => {
    const rows = picks.map(({ pick }) => encodeURIComponent(pick)).join(",");
    history.replaceState(null, "", rows ? `?rows=${rows}` : "?");
    // The button that was pressed is gone: the keyboard goes on from the top of what it changed.
    show().then(() => place.focus());
  };

  tokrig.dropped.subjects().forEach(tokrig.run);

  /** Why a pick cannot be shown, or "". */
  const missing = (pick) => {
    if (!pick.fits) return `“${pick.pick}” names no row: a row is a run, “~” and a concurrency.`;
    if (!runs.has(pick.id)) return `There is no run “${pick.id}” on this site.`;
    const what = pick.shape === null ? "" : ` of shape “${pick.shape}”`;
    if (!narrowed(pick).cells.length) {
      return `Run “${pick.id}” has no result${what} at concurrency ${pick.concurrency}.`;
    }
    return "";
  };

  // Figures as text

  const decimals = (value, digits) =>
    value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const rate = (value) => decimals(value, value >= 1000 ? 0 : value >= 10 ? 1 : 2);
  const seconds = (value) => {
    if (value < 0.01) return `${decimals(value * 1e3, 2)} ms`;
    if (value < 1) return `${decimals(value * 1e3, 0)} ms`;
    return `${decimals(value, 2)} s`;
  };
  const textOf = (metric) => (metric.endsWith("_s") && !metric.endsWith("_per_s") ? seconds : rate);

  const spread = (metric, text) => {
    if (metric.ci95) return `95 %: ${metric.ci95.map(text).join("–")}`;
    return metric.min !== null && metric.max !== null && metric.n > 1
      ? `range ${text(metric.min)}–${text(metric.max)}`
      : "";
  };

  const times = (value) => `×${value.toFixed(2)}`;
  const NOT_COMPARED = {
    invalid: "not compared",
    other_shape: "another shape of the same name",
    other_length: "prompts of another length",
  };

  const ratioText = ({ value, low, high, verdict }) => {
    if (verdict === "none") return "no ratio";
    const interval = low === null ? "" : ` (${low.toFixed(2)}–${high.toFixed(2)})`;
    return `${times(value)}${interval} ${verdict.replaceAll("_", " ")}`;
  };

  // Parts of the page

  // Texts of records may run from right to left: each is kept to itself.
  const said = (text) => make("bdi", {}, text);
  const note = (text) => make("span", { class: "muted" }, text);
  const button = (text, label, act) => {
    const made = make("button", { type: "button", class: "quiet", "aria-label": label }, text);
    made.addEventListener("click", act);
    return made;
  };

  /** A wide table. Heads are texts, or elements that stand for a whole cell. */
  const table = (caption, name, heads, ...bodies) => {
    const cells = heads.map((one) => (one.tagName ? one : make("th", { scope: "col" }, one)));
    return make(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      make(
        "table",
        { class: name },
        make("caption", { class: "unseen" }, caption),
        make("thead", {}, make("tr", {}, ...cells)),
        ...bodies.filter((rows) => rows.length).map((rows) => make("tbody", {}, ...rows)),
      ),
    );
  };

  const section = (id, title, ...children) =>
    make("section", { "aria-labelledby": id }, make("h2", { id }, title), ...children);

  const numeric = (text) => make("th", { scope: "col", class: "num" }, text);
  const head = (index) => (index ? `Row ${index + 1}` : "Row 1, reference");

  const pickedTable = (picks) =>
    section(
      "picked",
      "Rows",
      table(
        "The rows that are compared",
        "picked",
        ["Row", "Run", "On", numeric("Concurrency"), "Shape", "Figures", "Change"],
        picks.map((pick, index) => {
          const run = runs.get(pick.id);
          const others = picks.filter((one) => one !== pick);
          const link = make("a", { href: tokrig.url(`runs/${pick.id}.html`) }, said(run.name));
          const swap = () => keep([pick, ...others]);
          const drop = () => {
            tokrig.picks.remove(pick.pick);
            keep(others);
          };
          return make(
            "tr",
            {},
            make("th", { scope: "row" }, head(index)),
            make("td", {}, link),
            make("td", { "data-label": "on" }, said(tokrig.words.unbroken(run.place))),
            make("td", { class: "num", "data-label": "concurrency" }, String(pick.concurrency)),
            make("td", { "data-label": "shape" }, said(pick.shape ?? "all")),
            make("td", { "data-label": "figures" }, run.level),
            make(
              "td",
              {},
              ...(index ? [button("Make reference", `Make row ${index + 1} the reference`, swap), " "] : []),
              button("Remove", `Remove row ${index + 1}`, drop),
            ),
          );
        }),
      ),
    );

  /** The notes of a comparison, and what its figures want before one may be called faster. */
  const told = ({ notes, pairs }) => {
    const ratios = pairs.flatMap(({ figures }) => figures.map(({ ratio }) => ratio));
    const wanting = ratios.filter(({ low, settle }) => low === null && settle);
    return [...notes, ...new Set(wanting.map(({ settle }) => `inconclusive: ${settle}`))];
  };

  const verdicts = (comparisons) =>
    section(
      "comparable",
      "Comparable?",
      make(
        "div",
        { class: "cards" },
        ...comparisons.map((one, index) =>
          make(
            "section",
            { class: "card verdict", "aria-labelledby": `pair-${index}` },
            make("h3", { id: `pair-${index}` }, `Row ${index + 2} against row 1`),
            make("p", { class: `grade grade-${one.class.toLowerCase()}` }, `Class ${one.class}`),
            make("p", { class: "reason" }, said(one.reason)),
            make("ul", { class: "notes muted" }, ...told(one).map((text) => make("li", {}, said(text)))),
          ),
        ),
      ),
    );

  const term = (metric) =>
    make(
      "a",
      { class: "term", href: tokrig.url(`methodology.html#${metric}`), "data-term": metric },
      rules.labels[metric],
    );

  /** One figure of a row: value, spread, and against the reference the ratio. */
  const figureCell = (cell, metric, pair) => {
    const found = cell?.figures[metric];
    if (!found) return make("td", { class: "num muted" }, "–");
    const lines = [make("div", {}, textOf(metric)(found.median))];
    if (cell.verdict !== "valid") {
      const kind = cell.verdict === "invalid" ? "invalid" : "unchecked";
      lines.push(make("div", {}, tokrig.words.mark(kind, cell.verdict), " ", note(cell.codes.join(", ").replaceAll("_", " "))));
    }
    const range = spread(found, textOf(metric));
    if (range) lines.push(make("div", { class: "muted" }, range));
    if (pair?.comparable === "yes") {
      const figure = pair.figures.find((one) => one.metric === metric);
      if (figure.a) lines.push(make("div", {}, ratioText(figure.ratio)));
      // What is wanting is the same for all figures of two runs, and stands above them.
      if (figure.ratio.low !== null && figure.ratio.settle) {
        lines.push(make("div", { class: "muted" }, figure.ratio.settle));
      }
    } else if (pair) {
      lines.push(make("div", { class: "muted" }, NOT_COMPARED[pair.comparable]));
    }
    return make("td", { class: "num" }, ...lines);
  };

  const groupRow = (title, subjects) =>
    make(
      "tr",
      { class: "group" },
      make("th", { scope: "rowgroup", colspan: String(subjects.length + 1) }, title),
    );

  const shapeRows = (shape, subjects, comparisons) => {
    const metrics = METRICS.filter((metric) =>
      subjects.some((one) => one.cells.some((cell) => cell.shape === shape && cell.figures[metric])),
    );
    const pairOf = (index) =>
      index ? comparisons[index - 1].pairs.find((pair) => pair.shape === shape) : null;
    const rows = metrics.map((metric) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, term(metric)),
        ...subjects.map((one, index) =>
          figureCell(one.cells.find((cell) => cell.shape === shape), metric, pairOf(index)),
        ),
      ),
    );
    return [groupRow(said(shape), subjects), ...rows];
  };

  const meanRows = (subjects, comparisons) => {
    const metrics = METRICS.filter((metric) =>
      comparisons.some((one) => one.means.some((mean) => mean.metric === metric)),
    );
    const rows = metrics.map((metric) => {
      const meanOf = (one) => one.means.find((mean) => mean.metric === metric);
      const cells = comparisons.map((one) => {
        const mean = meanOf(one);
        if (!mean) return "–";
        return times(mean.value) + (mean.verdict === "valid" ? "" : " unverified");
      });
      return make(
        "tr",
        {},
        make("th", { scope: "row" }, term(metric)),
        ...["", ...cells].map((text) => make("td", { class: "num" }, text)),
      );
    });
    return rows.length ? [groupRow("all shapes, geometric mean of ratios", subjects), ...rows] : [];
  };

  const figures = (subjects, comparisons) => {
    const shapes = new Set(subjects.flatMap((one) => one.cells.map((cell) => cell.shape)));
    return section(
      "figures",
      "Figures",
      table(
        "Figures by shape, with ratios to the reference",
        "figures",
        ["Figure", ...subjects.map((one, index) => numeric(head(index)))],
        ...[...shapes].sort(tokrig.words.byShape).map((shape) => shapeRows(shape, subjects, comparisons)),
        meanRows(subjects, comparisons),
      ),
    );
  };

  /** Entries of all comparisons by key, each key once, in the order of the rules. */
  const keysOf = (comparisons, list) => {
    const entries = comparisons.flatMap((one) => one[list]);
    const keys = rules.variables.flatMap((one) => one.keys.map((key) => [key, one]));
    return keys.filter(([key]) => entries.some((entry) => entry.key === key));
  };

  const differing = (subjects, comparisons) => {
    const changed = new Set(comparisons.flatMap((one) => one.changed));
    const standing = ({ name, counts }) => {
      if (changed.has(name)) return "";
      return note(counts ? ", follows" : ", not counted");
    };
    const valueCell = (key, value) => {
      const same = value === subjects[0].keys[key];
      return make("td", { class: `value ${same ? "muted" : ""}` }, said(value ?? "not known"));
    };
    const keys = keysOf(comparisons, "differing");
    const rows = keys.map(([key, variable]) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, make("code", {}, key)),
        make("td", {}, variable.name, standing(variable)),
        ...subjects.map((one) => valueCell(key, one.keys[key])),
      ),
    );
    const columns = ["Key", "Variable", ...subjects.map((one, index) => head(index))];
    return section(
      "differing",
      "What differs",
      keys.length
        ? table("Keys that differ from the reference", "keys", columns, rows)
        : make("p", {}, "No key that is known."),
    );
  };

  const unknown = (subjects, comparisons) => {
    const keys = keysOf(comparisons, "unknown");
    if (!keys.length) return "";
    const rowsWithout = (key) =>
      subjects.flatMap((one, index) => (one.keys[key] === undefined ? [index + 1] : [])).join(", ");
    const items = keys.map(([key]) =>
      make("li", {}, make("code", {}, key), note(` not known of row ${rowsWithout(key)}`)),
    );
    return make(
      "details",
      {},
      make("summary", {}, `Keys not known of every row: ${keys.length}`),
      make("ul", {}, ...items),
    );
  };

  const problems = (picks, words) =>
    make(
      "ul",
      { class: "note warning" },
      ...picks.map((pick, index) => {
        const drop = () => keep(picked().filter((one) => one.pick !== pick.pick));
        return make("li", {}, said(words[index]), " ", button("Remove", `Remove ${pick.pick}`, drop));
      }),
    );

  /** The rows as lines for a forum, and where they stand beside each other. */
  const sharing = (subjects) => {
    const lines = (one) => one.cells.map((cell) => one.lines?.[`${cell.concurrency}~${cell.shape}`]);
    const all = [...new Set(subjects.flatMap(lines))].filter(Boolean);
    const link = tokrig.share.address(`compare.html${location.search}`);
    return tokrig.share.menu("Share these rows", () => [
      link && ["Copy a link to this comparison", () => link],
      all.length && ["Copy a line for each row", () => all.map((one) => `- ${tokrig.share.line(one)}`).join("\n")],
    ]);
  };

  // All of it

  const draw = (picks) => {
    const bad = picks.filter(missing);
    const good = picks.filter((pick) => !missing(pick));
    const subjects = good.map(narrowed);
    const comparisons = subjects.slice(1).map((one) => tokrig.compare(subjects[0], one));
    const parts = bad.length ? [problems(bad, bad.map(missing))] : [];
    if (good.length) parts.push(pickedTable(good), sharing(subjects));
    if (comparisons.length) {
      parts.push(verdicts(comparisons), figures(subjects, comparisons));
      parts.push(differing(subjects, comparisons), unknown(subjects, comparisons));
    }
    place.replaceChildren(...parts);
    const grades = comparisons.map((one, index) => `row ${index + 2}: class ${one.class}`);
    status.textContent = comparisons.length
      ? `${good.length} rows compared; ${grades.join(", ")}.`
      : good.length
        ? "One row: add another to compare them."
        : "Add two to six rows here, or pick them in the tables of results.";
  };

  const show = async () => {
    const picks = picked();
    status.textContent = picks.length ? "Loading the runs…" : "";
    await Promise.all(picks.filter(({ fits }) => fits).map(({ id }) => load(id)));
    draw(picks);
  };

  // For the picker: the rows there are, and whether there was room for one more.
  tokrig.comparing = {
    most: MOST,
    list: () => picked().map(({ pick }) => pick),
    add(pick) {
      const picks = picked();
      if (picks.length >= MOST) return false;
      const rows = [...picks, parse(pick)].map((one) => encodeURIComponent(one.pick)).join(",");
      history.replaceState(null, "", `?rows=${rows}`);
      tokrig.picks.add(pick);
      show();
      return true;
    },
  };

  addEventListener("popstate", show);
  show();
}
