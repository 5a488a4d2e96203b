// Rows to compare, sought by words: the table's data is loaded when the field is first used.
"use strict";

{
  const { make, comparing } = tokrig;
  const MOST_SHOWN = 12;
  const place = document.getElementById("picker");
  const input = make("input", { type: "search", id: "pick-words", autocomplete: "off", placeholder: "words of model, quant, hardware, engine" });
  const found = make("ul", { class: "found", "aria-label": "Rows found" });
  const status = make("p", { class: "status", role: "status" });
  let lines = null;
  let loading = null;

  /** One line for each run and concurrency that has a valid result, as the first page has them. */
  function read({ data }) {
    const { runs, rows } = data;
    const seen = new Set();
    const all = [];
    for (let row = 0; row < rows.run.length; row += 1) {
      const run = rows.run[row];
      const pick = `${runs.id[run]}~${rows.concurrency[row]}`;
      if (!rows.valid[row] || seen.has(pick)) continue;
      seen.add(pick);
      const mode = data.modes[runs.mode[run]];
      const words = [
        data.models[runs.model[run]][3],
        data.quants[runs.quant[run]][0],
        data.rigs[runs.rig[run]][0],
        data.backends[runs.backend[run]][0],
        mode[1] === "baseline" ? "" : mode[0],
        rows.concurrency[row] > 1 ? `${rows.concurrency[row]} at once` : "",
        runs.apart[run],
      ];
      const text = words.filter(Boolean).join(" · ");
      all.push({ pick, text, sought: text.toLowerCase() });
    }
    return all;
  }

  const load = () => {
    loading ??= new Promise((done) => {
      const script = make("script", { src: tokrig.url("assets/rows.js") });
      script.addEventListener("load", () => {
        lines = read(tokrig);
        done();
      });
      script.addEventListener("error", () => {
        status.textContent = "The rows of this site could not be loaded.";
      });
      document.head.append(script);
    });
    return loading;
  };

  function matching() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return [];
    const taken = comparing.list();
    return lines.filter(({ pick, sought }) => !taken.includes(pick) && words.every((word) => sought.includes(word)));
  }

  function add({ pick }) {
    if (!comparing.add(pick)) {
      status.textContent = `${comparing.most} rows at most: remove one first.`;
      return;
    }
    draw();
    input.focus();
  }

  function draw() {
    const all = matching();
    const items = all.slice(0, MOST_SHOWN).map((line) => {
      const button = make("button", { type: "button", class: "quiet" }, make("bdi", {}, line.text));
      button.addEventListener("click", () => add(line));
      return make("li", {}, button);
    });
    found.replaceChildren(...items);
    const more = all.length > MOST_SHOWN ? `, ${MOST_SHOWN} of them shown: more words tell more` : "";
    status.textContent = input.value.trim() ? `${tokrig.words.count(all.length, "row")} to add${more}.` : "";
  }

  input.addEventListener("focus", load);
  input.addEventListener("input", () => load().then(draw));
  const form = make("form", { class: "picker", "aria-label": "Rows by words" }, make("label", {}, make("span", {}, "Add a row"), input), status, found);
  // Enter adds what stands first.
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load().then(() => {
      const [first] = matching();
      if (first) add(first);
    });
  });
  place.append(form);
}
