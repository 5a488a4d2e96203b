// The curves page: one view at a time, the runs that are picked, all state in the address.
"use strict";

{
  const { make, url, data } = tokrig;
  const { count } = tokrig.words;
  const { figure, swatch, views } = tokrig.curves;
  const MOST = 6; // lines, as many as there are colours
  const USUAL = 4;
  const MOST_LISTED = 24;
  const FIRST = document.querySelector(".tabs [data-view]:not([data-curves='0'])") ?? document.querySelector(".tabs [data-view]");
  const STATE = { view: FIRST.dataset.view, q: "", model: "", card: "", quant: "", draw: "", measure: "kl", price: "", watts: "", currency: "" };
  const KEPT = ["price", "watts", "currency"];
  const USUAL_PRICE = "0.30";
  const sections = new Map([...document.querySelectorAll("section.view")].map((one) => [one.id, one]));
  const prepared = new Map(); // curves by view, once its script is there
  let state = read();
  let panels = [];
  let unknownView = "";

  // State

  const remembered = () => {
    try {
      const found = JSON.parse(localStorage.getItem("tokrig-cost") ?? "{}");
      return typeof found === "object" && found !== null ? found : {};
    } catch {
      return {};
    }
  };
  function read() {
    const asked = new URLSearchParams(location.search);
    const found = Object.fromEntries(Object.entries(STATE).map(([name, usual]) => [name, asked.get(name) ?? usual]));
    if (!asked.has("view") && sections.has(location.hash.slice(1))) found.view = location.hash.slice(1);
    return found;
  }
  function address(change = {}) {
    const changed = Object.entries({ ...state, ...change }).filter(([name, value]) => value !== STATE[name] || name === "view");
    return `${location.pathname}?${changed.map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("%2C", ",").replaceAll("%7E", "~")}`).join("&")}`;
  }
  function go(change, step = true) {
    state = { ...state, ...change };
    unknownView = "";
    history[step ? "pushState" : "replaceState"](null, "", address());
    show();
  }

  /** What a reader wrote as an amount: ``0.30``, ``0,30``; what is wrong with it else. */
  function amount(text, what) {
    const said = text.trim();
    if (!said) return { value: null, fault: "" };
    const value = /^\d*[.,]?\d+$/.test(said) || /^-?\d+[.,]?\d*$/.test(said) ? Number(said.replace(",", ".")) : NaN;
    if (Number.isNaN(value)) return { value: null, fault: `“${said.slice(0, 40)}” is no ${what}: write it as 0.30 or 0,30.` };
    if (value <= 0) return { value: null, fault: `The ${what} has to be above 0.` };
    if (value > 1e6) return { value: null, fault: `${said.slice(0, 40)} is more than any ${what}.` };
    return { value, fault: "" };
  }
  function reader() {
    const kept = remembered();
    const text = (name) => state[name] || String(kept[name] ?? "");
    const [price, watts] = [amount(text("price") || USUAL_PRICE, "price of a kWh"), amount(text("watts"), "number of watts")];
    return { price: price.value, watts: watts.value, currency: (text("currency") || "€").slice(0, 4), measure: state.measure, faults: [price.fault, watts.fault].filter(Boolean), texts: { price: text("price") || USUAL_PRICE, watts: text("watts"), currency: text("currency") || "€" } };
  }

  // Words of a run

  const model = (run) => data.models[data.runs.model[run]];
  const quant = (run) => data.quants[data.runs.quant[run]];
  const rig = (run) => data.rigs[data.runs.rig[run]];
  const isDropped = (curve) => curve.run >= (data.published ?? Infinity);
  /** Of a group of a model's quants there is no one quant, nor one engine. */
  function parts(curve) {
    if (curve.runs) return [model(curve.run)[3], rig(curve.run)[0]];
    const mode = data.modes[data.runs.mode[curve.run]][0];
    const told = [isDropped(curve) ? "your file" : "", model(curve.run)[3], quant(curve.run)[0], rig(curve.run)[0], data.backends[data.runs.backend[curve.run]][0]];
    return [...told, mode === "baseline" ? "" : mode, data.runs.apart[curve.run]].filter(Boolean);
  }
  const nameOf = (curve) => parts(curve).join(" · ");
  const PICKS = {
    model: (curve) => [model(curve.run)[3], model(curve.run)[2]],
    card: (curve) => [rig(curve.run)[0], rig(curve.run)[1]],
    quant: (curve) => quant(curve.run),
  };
  /** The words of a pick; a group of a model's quants has several. */
  const wordsOf = (curve, name) => (name === "quant" && curve.runs ? curve.runs.map(quant) : [PICKS[name](curve)]);
  const has = (curve, name, wanted) => wordsOf(curve, name).some((word) => word[1] === wanted);

  function found(curves) {
    const faults = [];
    let left = curves;
    for (const name of Object.keys(PICKS)) {
      if (!state[name]) continue;
      const of = left.filter((curve) => has(curve, name, state[name]));
      if (of.length) left = of;
      else faults.push(curves.some((curve) => has(curve, name, state[name])) ? `Nothing here has that ${name} with the other choices: ${name} is left out.` : `No ${name} “${state[name].slice(0, 60)}” has such a curve: all are shown.`);
    }
    const wanted = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    if (wanted.length) {
      left = left.filter((curve) => {
        curve.hay ??= `${nameOf(curve)} ${curve.of} ${(curve.quant ?? []).join(" ")}`.toLowerCase();
        return wanted.every((word) => curve.hay.includes(word));
      });
    }
    return { left, faults };
  }

  function picked(curves, left) {
    if (state.draw === "none") return { chosen: [], faults: [] };
    const keys = state.draw.split(",").filter(Boolean);
    if (!keys.length) return { chosen: left.slice(0, USUAL), faults: [] };
    const by = new Map(curves.map((curve) => [curve.key, curve]));
    const lost = keys.filter((key) => !by.has(key));
    const chosen = [...new Set(keys)].filter((key) => by.has(key)).slice(0, MOST).map((key) => by.get(key));
    return { chosen: chosen.length ? chosen : left.slice(0, USUAL), faults: lost.map((key) => `“${key.slice(0, 60)}” has no such curve.`) };
  }

  // Controls

  const field = (label, control) => make("label", {}, label, control);
  function chooser(name, label, curves) {
    const select = make("select", { name });
    select.append(make("option", { value: "" }, "all"));
    const options = new Map(curves.flatMap((curve) => wordsOf(curve, name)).map(([text, word]) => [word, text]));
    for (const [value, text] of [...options].sort((a, b) => (a[1] < b[1] ? -1 : 1))) select.append(make("option", { value }, text));
    select.addEventListener("change", () => go({ [name]: select.value, draw: "" }));
    return field(label, select);
  }
  function typed(name, label, properties) {
    const input = make("input", { name, autocomplete: "off", ...properties });
    input.addEventListener("input", () => {
      if (KEPT.includes(name)) {
        try {
          localStorage.setItem("tokrig-cost", JSON.stringify({ ...remembered(), [name]: input.value }));
        } catch {
          // In the address alone, then.
        }
      }
      go({ [name]: input.value, ...(name === "q" ? { draw: "" } : {}) }, false);
    });
    return field(label, input);
  }
  function controls(name, curves) {
    const form = make("form", { class: "filters", "aria-label": "What is drawn" });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.append(typed("q", "Search", { type: "search", placeholder: "gemma 4090 q4" }), chooser("model", "Model", curves), chooser("card", "Machine", curves), chooser("quant", "Quant", curves));
    if (name === "quality") {
      const select = make("select", { name: "measure" }, make("option", { value: "kl" }, "KL divergence"), make("option", { value: "top1" }, "same token"));
      select.addEventListener("change", () => go({ measure: select.value }));
      form.append(field("Quality as", select));
    }
    if (name === "cost") form.append(typed("price", "Price of a kWh", { inputmode: "decimal", size: "6" }), typed("currency", "in", { size: "3", maxlength: "4" }), typed("watts", "Watts, where not measured", { inputmode: "decimal", size: "6" }));
    return form;
  }

  // A view

  function frame(name) {
    const section = sections.get(name);
    const live = section.querySelector(".live");
    if (live.childElementCount) return live;
    const curves = prepared.get(name);
    const table = make("details", { class: "figures", open: name !== "sustained" }, make("summary", {}, "The exact figures"), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The exact figures" }));
    table.addEventListener("toggle", () => table.open && figures(name));
    live.append(controls(name, curves), make("p", { class: "status", role: "status" }), make("ul", { class: "lines drawn" }), make("details", { class: "others" }, make("summary"), make("ul", { class: "lines" })), make("div", { class: "panels" }), table);
    const still = section.querySelector(".still");
    if (still) {
      const closed = make("details", { class: "picture" }, make("summary", {}, "A still picture of the most complete ones"));
      still.replaceWith(closed);
      closed.append(still);
    }
    live.hidden = false;
    return live;
  }

  function lineOf(curve, number, chosen, isDrawn) {
    const box = make("input", { type: "checkbox", checked: isDrawn, disabled: !isDrawn && chosen.length >= MOST });
    box.addEventListener("change", () => {
      const keys = chosen.map((one) => one.key).filter((key) => key !== curve.key);
      go({ draw: (box.checked ? [...keys, curve.key] : keys).join(",") || "none" });
      sections.get(state.view).querySelector(`[data-key="${CSS.escape(curve.key)}"] input`)?.focus();
    });
    const [first, ...rest] = parts(curve).filter((part) => part !== "your file"); // its mark says it
    const label = make("label", {}, box, isDrawn ? swatch(number) : make("span", { class: "swatch" }), make("span", {}, make("strong", {}, first), ` ${rest.join(" · ")} `, make("span", { class: "muted" }, curve.of)));
    const line = make("li", { "data-key": curve.key }, label);
    if (isDropped(curve)) line.append(make("a", { class: "mark", href: url("add.html#yours"), title: tokrig.definitions["mark.your file"] }, "your file"));
    else if (!curve.runs) line.append(make("a", { href: url(`runs/${data.runs.id[curve.run]}.html`), "aria-label": `The run: ${nameOf(curve)}` }, "run"));
    const note = isDrawn && views[state.view].note?.(curve);
    if (note) line.append(make("span", { class: "said" }, note));
    return line;
  }

  let current = { chosen: [], reader: null };
  function figures(name) {
    const view = views[name];
    const body = make("tbody");
    for (const curve of current.chosen) {
      const named = make("th", { scope: "rowgroup", colspan: String(view.columns.length) }, `${nameOf(curve)} · ${curve.of}`);
      body.append(make("tr", { class: "of" }, named));
      for (const cells of view.rows(curve, current.reader)) body.append(make("tr", {}, ...cells.map((cell) => make("td", { class: "num" }, cell))));
    }
    const head = make("tr", {}, ...view.columns.map((column) => make("th", { scope: "col", class: "num" }, column)));
    const table = make("table", {}, make("caption", { class: "unseen" }, "The exact figures of what is drawn"), make("thead", {}, head), body);
    sections.get(name).querySelector(".figures .scroll").replaceChildren(table);
  }

  function draw(name) {
    const curves = prepared.get(name);
    const live = frame(name);
    const mine = reader();
    const { left, faults } = found(curves);
    const { chosen, faults: lost } = picked(curves, left);
    for (const control of live.querySelectorAll("select, input[name]")) {
      const value = KEPT.includes(control.name) ? mine.texts[control.name] : state[control.name];
      if (control !== document.activeElement) control.value = value;
      if (control.tagName === "SELECT") {
        if (control.selectedIndex < 0) control.value = control.name === "measure" ? "kl" : "";
        control.classList.toggle("changed", control.name !== "measure" && control.value !== "");
      }
    }
    const unknown = unknownView ? [`No view is called “${unknownView}”: this is ${sections.get(name).querySelector("h2").textContent.toLowerCase()}.`] : [];
    const others = left.filter((curve) => !chosen.includes(curve));
    const more = others.length - MOST_LISTED;
    const lines = chosen.map((curve, number) => ({ curve, number }));
    const specs = views[name].panels(mine);
    const drawn = specs.map((spec) => [spec, lines.map(({ curve, number }) => ({ number, name: nameOf(curve), of: curve.of, ...spec.line(curve) })).filter((line) => line.points.length)]).filter(([, of]) => of.length);
    const without = name === "cost" && lines.length && !drawn.length ? ["None of these tells its energy: give the watts that your machine draws."] : [];
    const nothing = left.length ? [] : ["Nothing matches: search for less."];
    live.querySelector(".status").textContent = [`${count(chosen.length, "line")} of ${count(left.length, "curve")}, ${MOST} at most.`, ...unknown, ...faults, ...lost, ...nothing, ...(name === "cost" ? mine.faults : []), ...without].join(" ");
    live.querySelector(".drawn").replaceChildren(...chosen.map((curve, number) => lineOf(curve, number, chosen, true)));
    const choice = live.querySelector(".others");
    choice.hidden = !others.length;
    choice.firstChild.textContent = `Draw others (${others.length.toLocaleString("en")})`;
    choice.lastChild.replaceChildren(...others.slice(0, MOST_LISTED).map((curve) => lineOf(curve, 0, chosen, false)), ...(more > 0 ? [make("li", { class: "muted" }, `${more.toLocaleString("en")} more: search narrows them.`)] : []));
    for (const panel of panels) panel.close();
    panels = drawn.map(([spec, of]) => figure(spec, of));
    live.querySelector(".panels").replaceChildren(...panels.map((panel) => panel.element));
    for (const panel of panels) panel.draw();
    current = { chosen, reader: mine };
    live.querySelector(".figures").hidden = !chosen.length;
    if (live.querySelector(".figures").open) figures(name);
  }

  function show() {
    const name = sections.has(state.view) && views[state.view] ? state.view : STATE.view;
    if (name !== state.view) unknownView = state.view.slice(0, 60);
    for (const [id, section] of sections) section.hidden = id !== name;
    for (const tab of document.querySelectorAll(".tabs a")) {
      const view = tab.dataset.view;
      tab.href = address({ view, draw: "" });
      if (view === name) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    state = { ...state, view: name };
    const section = sections.get(name);
    if (prepared.has(name)) {
      if (prepared.get(name).length) draw(name);
      return;
    }
    if (section.dataset.loading) return;
    section.dataset.loading = "yes";
    const script = make("script", { src: url(`assets/curves-${name}.js`) });
    script.addEventListener("load", () => {
      prepared.set(name, [...tokrig.dropped.curves(name), ...tokrig[`curves_${name}`]]);
      show();
    });
    script.addEventListener("error", () => section.append(make("p", { class: "note" }, `assets/curves-${name}.js cannot be loaded: this copy of the site is not whole.`)));
    document.body.append(script);
  }

  document.querySelector(".tabs").addEventListener("click", (event) => {
    const tab = event.target.closest("a");
    if (!tab || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    go({ view: tab.dataset.view, draw: "" });
  });
  addEventListener("popstate", () => {
    state = read();
    unknownView = "";
    show();
  });
  const again = () => panels.forEach((panel) => panel.draw());
  new MutationObserver(again).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (width !== innerWidth) again();
    width = innerWidth;
  });
  document.documentElement.classList.add("one-view");
  show();
}
