// The bar above the tables: search, filters, order, columns, downloads.
"use strict";

{
  const { make, data, view } = tokrig;
  const { isLatency, CONCURRENCIES, DEFAULTS, facts, sizes } = view;
  const { checkbox, chips, opener, pick, range } = tokrig.picked;
  const form = document.getElementById("filters");
  const tools = document.getElementById("tools");

  const LABELS = {
    card: "Card", quant: "Quant", engine: "Engine", build: "Build", api: "API", family: "Family",
    hardware: "Machine", mode: "Mode", settings: "Settings", level: "Level",
  };
  const COMMON = ["card", "quant"];
  const ORDERS = [
    ["By family, largest first", { group: "family", sort: "-parameters" }],
    ["Newest first", { group: "none", sort: "-date" }],
    ["Largest model first", { group: "none", sort: "-parameters" }],
    ["Fastest first", { group: "none", sort: "-gen" }],
    ["Shortest wait first", { group: "none", sort: "ttft" }],
  ];
  const synced = [];

  // Of each of these one value

  const numbers = CONCURRENCIES.map((n) => [String(n), String(n)]);
  const one = {
    shape: ["Shape", [...(isLatency ? [] : [["all shapes", ""]]), ...[...data.shapes].sort(tokrig.words.byShape).map((shape) => [shape, shape])]],
    concurrency: ["Concurrency", isLatency ? numbers : [...numbers, ["all", "all"]]],
    validity: ["Validity", [["valid, unverified", "shown"], ...["valid", "unverified", "invalid", "all"].map((word) => [word, word])]],
  };

  function select(name, label, choices, value, act) {
    const element = make("select", { name }, ...choices.map(([word, key]) => make("option", { value: key }, word)));
    element.addEventListener("change", () => act(element.value));
    synced.push(() => {
      element.value = value();
      // A word that nobody knows shows nothing, and says so.
      if (element.selectedIndex < 0) {
        element.append(make("option", { value: value() }, `${value()} (unknown)`));
        element.value = value();
      }
    });
    return make("label", {}, make("span", {}, label), element);
  }

  function single(name) {
    const label = select(name, ...one[name], () => view.state[name], (value) => view.go({ [name]: value }));
    synced.push(() => label.lastChild.classList.toggle("changed", view.state[name] !== DEFAULTS[name]));
    return label;
  }

  function several(name) {
    const made = pick(name, LABELS[name]);
    synced.push(made.sync);
    document.body.append(made.list);
    return made.element;
  }

  function ranged(name) {
    const made = range(name);
    synced.push(made.sync);
    return made.element;
  }

  /** Prompts of about one length at a time: there is a choice where a shape has several. */
  function prompts() {
    const element = make("select", { name: "prompt" });
    element.addEventListener("change", () => view.go({ prompt: element.value }));
    const label = make("label", {}, make("span", {}, "Prompts"), element);
    const text = ([length, count]) => `${length ? `about ${length.toLocaleString("en")} tokens` : "of unknown length"} (${count})`;
    synced.push(() => {
      const classes = tokrig.lines.promptClasses();
      if (view.state.prompt && !classes.some(([length]) => String(length) === view.state.prompt)) {
        classes.push([Number(view.state.prompt) || view.state.prompt, 0]);
      }
      element.replaceChildren(...classes.map((found) => make("option", { value: String(found[0]) }, text(found))));
      element.value = view.state.prompt || String(classes[0]?.[0] ?? "");
      label.hidden = classes.length < 2;
    });
    return label;
  }

  // Order: those that have names, else the columns that are there

  function order() {
    const element = make("select", { name: "order" });
    element.addEventListener("change", () => {
      const [, change] = ORDERS[element.value] ?? [];
      view.go(change ?? { sort: element.value });
    });
    let of = null; // the columns that there are orders of
    function fill() {
      if (of === view.state.columns) return;
      of = view.state.columns;
      const named = ORDERS.map(([label], number) => make("option", { value: String(number) }, label));
      const columns = view.headings().flatMap(([name, label]) => {
        if (!tokrig.columns.all[name].key) return [];
        const [up, down] = name === "date" ? ["oldest first", "newest first"] : view.isNumber(name) ? ["lowest first", "highest first"] : ["A to Z", "Z to A"];
        return [make("option", { value: name }, `${label}, ${up}`), make("option", { value: `-${name}` }, `${label}, ${down}`)];
      });
      const own = isLatency ? [] : [make("optgroup", { label: "Orders" }, ...named)];
      element.replaceChildren(...own, make("optgroup", { label: "By column" }, ...columns));
    }
    synced.push(() => {
      fill();
      const { sort, group } = view.state;
      const at = isLatency ? -1 : ORDERS.findIndex(([, is]) => is.sort === sort && is.group === group);
      element.value = at < 0 ? sort : String(at);
      element.classList.toggle("changed", sort !== DEFAULTS.sort || group !== DEFAULTS.group);
    });
    return make("label", {}, make("span", {}, "Order"), element);
  }

  function families() {
    const box = make("input", { type: "checkbox", name: "group" });
    box.addEventListener("change", () => view.go({ group: box.checked ? "family" : "none" }));
    synced.push(() => (box.checked = view.state.group === "family"));
    return make("label", { class: "check" }, box, make("span", {}, "Group by family"));
  }

  function search() {
    const input = make("input", { type: "search", name: "q", placeholder: "Search all rows", "aria-label": "Search all rows", autocomplete: "off", spellcheck: false });
    input.addEventListener("input", () => view.soon({ q: input.value.slice(0, 200) }));
    synced.push(() => {
      if (document.activeElement !== input) input.value = view.state.q;
    });
    return input;
  }

  // What is less often asked, under one button that says how much of it is set

  function more(panel) {
    const button = make("button", { type: "button", name: "more", "aria-expanded": "false", "aria-controls": "more" }, "");
    button.addEventListener("click", () => {
      const isOpen = form.classList.toggle("open");
      panel.hidden = !isOpen;
      button.setAttribute("aria-expanded", String(isOpen));
    });
    synced.push(() => {
      const names = [...Object.keys(facts), ...Object.keys(sizes), "concurrency", "validity"];
      const set = names.filter((name) => !COMMON.includes(name) && view.state[name] !== DEFAULTS[name]).length;
      button.textContent = set ? `More filters (${set})` : "More filters";
      button.classList.toggle("changed", set > 0);
    });
    return button;
  }

  function columns() {
    const fill = (list) => {
      const chosen = () => view.state.columns.split(",").filter(Boolean);
      const toggle = (name, isOn) => {
        const now = isOn ? [...chosen(), name] : chosen().filter((column) => column !== name);
        view.go({ columns: view.columnNames().filter((column) => now.includes(column)).join(",") }, false);
      };
      const fixed = ["variant", "gen"]; // without these a line says nothing
      const boxes = view.columnNames().filter((name) => !fixed.includes(name)).map((name) =>
        checkbox("column", name, view.labelOf(name), chosen().includes(name), toggle));
      list.replaceChildren(make("div", { class: "choices" }, ...boxes));
    };
    const { button, list } = opener("columns", "Columns", fill);
    document.body.append(list);
    return button;
  }

  function download(kind, type) {
    const button = make("button", { type: "button", "aria-label": `Download these rows as ${kind.toUpperCase()}` }, kind.toUpperCase());
    button.addEventListener("click", () => {
      const rows = tokrig.lines.lines().flatMap((line) => line.rows);
      tokrig.download.save(`tokrig-rows.${kind}`, type, tokrig.download[kind](rows));
    });
    return button;
  }

  function draw() {
    const panel = make("div", { id: "more", class: "panel", hidden: true });
    const rest = Object.keys(LABELS).filter((name) => !COMMON.includes(name));
    panel.append(
      ...(isLatency ? [] : [single("concurrency")]), single("validity"),
      ...rest.map(several), ranged("vram"), ranged("params"), families(),
    );
    const reset = make("button", { type: "button", class: "quiet", name: "reset" }, "Reset");
    reset.addEventListener("click", () => view.go({ ...DEFAULTS }));
    synced.push(() => (reset.disabled = Object.entries(DEFAULTS).every(([name, usual]) => view.state[name] === usual)));
    const common = make("div", { class: "common" }, single("shape"));
    if (isLatency) common.append(single("concurrency"), prompts());
    common.append(...COMMON.map(several), order());
    const chosen = make("div", { class: "chips" });
    synced.push(() => chosen.replaceChildren(...chips(LABELS)));
    form.append(search(), common, more(panel), reset, panel, chosen);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    tools.append(...(isLatency ? [] : [columns()]), make("span", { class: "muted" }, "Download"), download("csv", "text/csv"), download("json", "application/json"));
    tools.hidden = false;
  }

  tokrig.controls = { draw, sync: () => synced.forEach((sync) => sync()) };
}
