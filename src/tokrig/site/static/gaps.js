// The gaps map: machines across, models down by family. Only what is filtered and unfolded is drawn.
"use strict";

if (tokrig.gaps && document.getElementById("gaps-map")) {
  const { make, url } = tokrig;
  const { states, families, machines, models, cells, texts } = tokrig.gaps;
  const MOST_CELLS = 1200; // more than that, and families are folded
  const map = document.getElementById("gaps-map");
  const form = document.getElementById("filters");
  const status = document.getElementById("status");

  const memories = [...new Map(machines.map(([, , , gb, text]) => [gb, text]))].sort(([a], [b]) => a - b);
  const LISTS = [
    ["family", "Family", "all families", families.map(([name, word]) => [name, word])],
    ["machine", "Machine", "all machines", machines.map(([title, id]) => [title, id])],
    ["memory", "Card's memory", "any memory", memories.map(([gb, text]) => [text, String(gb)])],
    ["state", "State", "all states", states.map(([word, label]) => [label, word])],
  ];
  const chosen = { model: "", family: "", machine: "", memory: "", state: "" };

  /** What the address asks for, as far as it is there. */
  const read = () => {
    const asked = new URLSearchParams(location.search);
    for (const [name, , , options] of LISTS) {
      const value = asked.get(name) ?? "";
      chosen[name] = options.some(([, word]) => word === value) ? value : "";
    }
    chosen.model = (asked.get("model") ?? "").slice(0, 100);
    for (const name of Object.keys(chosen)) {
      form.elements[name].value = chosen[name];
      form.elements[name].classList.toggle("changed", Boolean(chosen[name]));
    }
  };

  const write = () => {
    const asked = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value));
    history.replaceState(null, "", asked.size ? `?${asked}` : location.pathname);
  };

  const cell = (model, machine) => {
    const [at, run = 0, why = 0, command = 0, besides = 0] = cells[model][machine];
    const [kind, label] = states[at];
    const word = make("span", { class: `state ${kind}` }, label);
    const also = besides ? [" ", make("span", { class: "muted" }, texts[besides])] : [];
    const td = make("td", { "data-rig": machines[machine][0] });
    if (kind === "measured") {
      td.append(make("a", { href: url(`runs/${run}.html`) }, word), ...also);
      return td;
    }
    const details = make("details", {}, make("summary", {}, word, ...also));
    details.fill = () => {
      details.fill = null;
      if (why) details.append(make("p", {}, texts[why]));
      if (run) details.append(make("p", {}, make("a", { href: url(`runs/${run}.html`) }, "The run")));
      if (command) details.append(make("p", { class: "command" }, make("code", {}, texts[command])));
    };
    td.append(details);
    return td;
  };

  const table = (family, rows, columns) => {
    const head = columns.map((at) => {
      const [title, id, hasPage] = machines[at];
      return make("th", { scope: "col" }, hasPage ? make("a", { href: url(`rigs/${id}.html`) }, title) : title);
    });
    const lines = rows.map((model) => {
      const [name, address] = models[model];
      const label = address ? make("a", { href: url(`models/${address}.html`) }, name) : name;
      const shown = columns.map((at) => (isShown(model, at) ? cell(model, at) : make("td", { class: "other" })));
      return make("tr", {}, make("th", { scope: "row" }, label), ...shown);
    });
    return make("table", { class: "gaps" },
      make("caption", { class: "unseen" }, `${family}: models and machines`),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Model"), ...head)),
      make("tbody", {}, ...lines));
  };

  const isShown = (model, machine) => !chosen.state || states[cells[model][machine][0]][0] === chosen.state;

  const draw = () => {
    const typed = chosen.model.toLowerCase();
    let columns = [...machines.keys()].filter((at) => {
      const [, id, , gb] = machines[at];
      return (!chosen.machine || id === chosen.machine) && (!chosen.memory || String(gb) === chosen.memory);
    });
    const rows = [...models.keys()].filter((model) => {
      const [name, , family] = models[model];
      return name.toLowerCase().includes(typed) && (!chosen.family || families[family][1] === chosen.family) &&
        columns.some((at) => isShown(model, at));
    });
    columns = columns.filter((at) => rows.some((model) => isShown(model, at)));
    const isOpen = rows.length * columns.length <= MOST_CELLS;
    const groups = new Map();
    for (const model of rows) {
      const family = models[model][2];
      if (!groups.has(family)) groups.set(family, []);
      groups.get(family).push(model);
    }
    map.style.setProperty("--rigs", columns.length);
    map.replaceChildren(...[...groups].map(([at, of]) => {
      const [name] = families[at];
      const details = make("details", { class: "family" },
        make("summary", {}, make("h3", {}, name), " ", make("span", { class: "count" }, tokrig.words.count(of.length, "model"))));
      details.fill = () => {
        details.fill = null;
        details.append(table(name, of, columns));
      };
      if (isOpen) details.fill();
      details.open = isOpen;
      return details;
    }));
    const { count } = tokrig.words;
    status.textContent = rows.length
      ? `${count(rows.length, "model")} on ${count(columns.length, "machine")}${isOpen ? "" : ": open a family, or filter"}`
      : "Nothing is so: choose less.";
  };

  // Before copy.js, which looks for commands in what was opened.
  document.addEventListener("toggle", ({ target }) => target.open && target.fill?.(), true);
  const search = make("input", { type: "search", name: "model", autocomplete: "off" });
  form.append(make("label", {}, "Model", search), ...LISTS.map(([name, label, all, options]) =>
    make("label", {}, label, make("select", { name },
      ...[[all, ""], ...options].map(([text, value]) => make("option", { value }, text))))));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    for (const name of Object.keys(chosen)) {
      chosen[name] = form.elements[name].value.trim();
      form.elements[name].classList.toggle("changed", Boolean(chosen[name]));
    }
    write();
    draw();
  });
  addEventListener("popstate", () => {
    read();
    draw();
  });
  read();
  draw();
}
