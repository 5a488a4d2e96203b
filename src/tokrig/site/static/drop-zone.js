// Where files are dropped, chosen or pasted, and the list of those that are here. Whoever loads this
// says with data-reload whether the page is to be drawn anew for them.
"use strict";

{
  const { dropped, make } = tokrig;
  const zone = document.getElementById("drop");
  const list = document.getElementById("dropped");
  const said = document.getElementById("drop-said");
  const { mark, rate } = tokrig.words;
  // A record; JSON, or a Markdown table; what Ollama prints; a table with a header.
  const LIKE_RESULTS = /^schema: *\d|^\s*[{[|]|^\W*eval rate:|^\w+([,;\t]\w+){3}.*\n/m;

  /** What others measured of the same model and quant on such a card: ``58–64``; of every shape where
   * none is named. */
  const others = (entry, shape, concurrency) => {
    const { data } = tokrig;
    const { runs, rows } = data;
    const [, , name] = entry.run.model;
    const alike = runs.id.map(
      (_, run) =>
        run < (data.published ?? Infinity) &&
        runs.id[run] !== entry.id &&
        data.models[runs.model[run]][3].toLowerCase() === name.toLowerCase() &&
        data.quants[runs.quant[run]][0] === entry.run.quant[0] &&
        data.rigs[runs.rig[run]][3] === entry.run.rig[3],
    );
    const found = rows.gen.filter(
      (gen, row) => gen !== null && rows.valid[row] && alike[rows.run[row]] && (!shape || data.shapes[rows.shape[row]] === shape) && rows.concurrency[row] === concurrency,
    );
    return { runs: alike.filter(Boolean).length, low: Math.min(...found), high: Math.max(...found), found: found.length };
  };

  /** An engine's own benchmark has no requests: it is said beside rows, and is none. */
  const ownBenchmark = (entry) => {
    const { raw } = entry.run;
    const told = `${raw.slice(0, 8).map(({ test, rate: found }) => `${test} ${rate(found)} tok/s`).join(", ")}${raw.length > 8 ? ` and ${raw.length - 8} more` : ""}`;
    const there = tokrig.data && others(entry, null, 1);
    const found = there?.found ? ` Through a server, one request at a time, this hardware decodes ${tokrig.words.span(there.low, there.high)} tok/s here.` : "";
    return `${told}: the engine's own benchmark, without server and requests, so it is no row of the table.${found}`;
  };

  const beside = (entry) => {
    const row = entry.run.rows.find(({ values }) => values.gen !== null);
    if (!row && entry.run.raw.length) return ownBenchmark(entry);
    if (!row) return "It has no decode rate.";
    const yours = `Your ${rate(row.values.gen)} tok/s in ${row.shape} × ${row.values.concurrency}`;
    if (!tokrig.data) return `${yours}.`;
    const there = others(entry, row.shape, row.values.concurrency);
    if (!there.found) return `${yours}; nobody else has measured this model and quant on such hardware.`;
    return `${yours}; others with this hardware ${tokrig.words.span(there.low, there.high)}.`;
  };

  const item = (entry) => {
    const many = dropped.all().filter(({ file }) => file === entry.file).length > 1;
    const remove = make("button", { type: "button", class: "quiet", "aria-label": `Remove ${entry.file}${many ? `: ${entry.pull.name}` : ""}` }, "Remove");
    remove.addEventListener("click", () => {
      dropped.remove(entry.id);
      changed("Removed.");
    });
    const codes = entry.verdict.codes.join(", ").replaceAll("_", " ");
    return make(
      "li", {},
      make("bdi", {}, entry.pull.name), " ",
      make("span", { class: "marks" }, mark("", "your file"), ...(entry.kind === "measured" ? [] : [mark("transcribed", entry.kind)])), " ", remove,
      make("span", { class: "spread" }, `${beside(entry)} ${entry.kind === "imported" ? `Of ${entry.source}` : "The file says"}: ${entry.verdict.word}${codes ? `, ${codes}` : ""}.`),
      ...(entry.notes ? [make("span", { class: "spread" }, make("bdi", {}, entry.notes))] : []),
    );
  };

  const samplesItem = (entry) => {
    const remove = make("button", { type: "button", class: "quiet", "aria-label": `Remove ${entry.file}` }, "Remove");
    remove.addEventListener("click", () => {
      dropped.removeSamples(entry.run);
      say("Removed.");
      draw();
    });
    const record = dropped.all().find(({ id }) => id === entry.run);
    const marks = ["your file", "samples"].map((word) => make("span", { class: "mark" }, word));
    const shown = tokrig.samples.rows(entry, record?.results ?? entry.published, record ? "your record" : "the published run");
    return make("li", {}, make("bdi", {}, entry.run), " ", make("span", { class: "marks" }, ...marks), " ", remove, ...shown);
  };

  const draw = async () => {
    const samples = dropped.samples();
    if (samples.length) await Promise.all(["record-rules", "samples"].map((one) => tokrig.records.load(`assets/${one}.js`)));
    const entries = dropped.all();
    list.replaceChildren(...entries.map(item), ...samples.map(samplesItem));
    list.hidden = !entries.length && !samples.length;
    document.dispatchEvent(new CustomEvent("tokrig-dropped"));
  };

  /** Tables are made of all rows at once: with other rows the page is made anew. */
  const changed = (words) => {
    if (zone.dataset.reload !== undefined) {
      tokrig.kept.set("tokrig-dropped-said", words);
      location.reload();
      return;
    }
    say(words);
    draw();
  };

  const say = (words, hint = "") => {
    said.replaceChildren(words, ...(hint ? [make("span", { class: "spread" }, hint)] : []));
    said.classList.toggle("refused", Boolean(hint));
  };

  /** A file that does not say which model it is of: its owner does. */
  const askModel = (file) => {
    const input = make("input", { name: "model", required: true, autocomplete: "off", placeholder: "gemma-3-4b-it-Q4_K_M.gguf", maxlength: "200" });
    const form = make("form", {}, make("label", {}, "Model ", input), make("button", {}, "Read it"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      take([file], input.value.trim());
    });
    said.append(form);
    input.focus();
  };

  const take = async (files, model = null) => {
    say("Reading…");
    const refused = [];
    const taken = [];
    for (const file of files) {
      try {
        taken.push(...(await dropped.add(file, model || null)));
      } catch (problem) {
        if (!(problem instanceof tokrig.records.Refused)) throw problem;
        refused.push(Object.assign(problem, { file }));
      }
    }
    if (refused.length) {
      say(refused.map(({ message }) => message).join(" · "), refused[0].hint || "tokrig check FILE tells more of a record, tokrig import FILE of another tool's file");
      const nameless = refused.find(({ lacksModel }) => lacksModel);
      if (nameless) askModel(nameless.file);
      if (taken.length) draw();
    } else if (taken.length) {
      const samples = taken.filter((one) => one.samples).length;
      const counts = [[taken.length - samples, "record"], [samples, "file"]].filter(([number]) => number).map(([number, thing]) => tokrig.words.count(number, thing));
      const read = `${counts.join(" and ")}${samples ? " of samples" : ""} read. Nothing was sent anywhere.`;
      if (samples < taken.length) return changed(read);
      say(read);
      draw();
    }
  };

  const chooser = make("input", { type: "file", multiple: true, hidden: true, accept: ".parquet,.yaml,.yml,.json,.jsonl,.csv,.md,.txt,.sql,.gz" });
  const choose = make("button", { type: "button" }, "Your own file…");
  choose.addEventListener("click", () => chooser.click());
  zone.prepend(chooser, choose, " ");
  chooser.addEventListener("change", () => take([...chooser.files]).then(() => (chooser.value = "")));
  document.addEventListener("dragover", (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    zone.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zone.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    zone.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    if (event.target.closest?.("input, textarea, [contenteditable]")) return;
    const files = [...event.clipboardData.files];
    const text = event.clipboardData.getData("text/plain");
    // What is pasted on a page may be anything: only what looks like results is taken for them.
    if (files.length) take(files);
    else if (LIKE_RESULTS.test(text)) take([text]);
  });

  zone.hidden = false;
  const before = tokrig.kept.get("tokrig-dropped-said");
  if (before) say(before);
  tokrig.kept.set("tokrig-dropped-said", "");
  draw();
}
