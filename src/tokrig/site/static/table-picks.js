// Controls of the tables: lists to choose several of, and sizes from the least to the most.
"use strict";

{
  const { make, data, view } = tokrig;
  const { parameters } = tokrig.words;
  const { facts, numbered, sizes } = view;

  const VENDORS = { nvidia: "NVIDIA", amd: "AMD", intel: "Intel", apple: "Apple" };
  /** What belongs together, to be chosen at once: the cards of a vendor, the quants of so many bits. */
  const together = {
    card: (number) => (data.rigs[number][7] ?? []).map((vendor) => VENDORS[vendor]).filter(Boolean),
    quant(number) {
      const bits = /(?:Q|FP|F|INT|W|BF)(\d{1,2})(?!\d)/i.exec(data.quants[number][0]);
      return bits ? [`${bits[1]}-bit`] : [];
    },
  };

  /** What there is of one fact, by its words: label, what it belongs to, how many runs have it. */
  function optionsOf(name, passes) {
    const [numbers, all] = numbered[name];
    const counts = all.map(() => null); // of what no run has
    numbers.forEach((number, run) => (counts[number] += Number(passes[run])));
    const found = new Map();
    all.forEach(([label, word], number) => {
      if (counts[number] === null) return;
      if (!found.has(word)) found.set(word, { label, word, groups: together[name]?.(number) ?? [], count: 0 });
      found.get(word).count += counts[number];
    });
    return [...found.values()].sort((a, b) => tokrig.lines.collator.compare(a.label, b.label));
  }

  /** A button, and the list that it opens: ``fill`` makes it anew each time. The browser closes it
   * by Escape or by a click beside it; the focus goes back to the button. */
  function opener(name, label, fill) {
    const id = `pick-${name}`;
    const button = make("button", { type: "button", name, popovertarget: id, class: "opener" }, label);
    const list = make("div", { id, popover: "auto", class: "picker", role: "dialog", "aria-label": label });
    list.addEventListener("beforetoggle", (event) => {
      if (event.newState === "open") {
        fill(list);
        return;
      }
      if (list.contains(document.activeElement)) button.focus();
      list.replaceChildren();
    });
    list.addEventListener("toggle", (event) => {
      if (event.newState !== "open") return;
      place(list, button);
      list.querySelector("input")?.focus();
    });
    list.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
      const stops = [...list.querySelectorAll("input")].filter((input) => input.checkVisibility());
      const next = stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
      stops.at(next % stops.length)?.focus();
      event.preventDefault();
    });
    return { button, list };
  }

  /** Under its button, in the page, so that it scrolls with it. */
  function place(list, button) {
    const at = button.getBoundingClientRect();
    const room = document.documentElement.clientWidth - list.offsetWidth - 8;
    list.style.left = `${Math.max(8, Math.min(at.left, room)) + scrollX}px`;
    list.style.top = `${at.bottom + 4 + scrollY}px`;
  }

  function checkbox(name, value, label, isChecked, act, count = null) {
    const box = make("input", { type: "checkbox", name, value, checked: isChecked });
    box.addEventListener("change", () => act(value, box.checked));
    const counted = count === null ? [] : [make("span", { class: "count" }, String(count))];
    return make("label", count === 0 && !isChecked ? { class: "nothing" } : {}, box, make("span", {}, label), ...counted);
  }

  /** A fact of which several values can be chosen. */
  function pick(name, label) {
    const choose = (words) => view.go({ [name]: [...new Set(words)].join(",") });
    function fill(list) {
      const options = optionsOf(name, tokrig.lines.passing(name));
      const toggle = (word, isOn) => {
        const others = view.chosen(name).filter((one) => one !== word);
        choose(isOn ? [...others, word] : others);
      };
      const labels = options.map(({ label: text, word, count }) =>
        checkbox(name, word, text, view.chosen(name).includes(word), toggle, count));
      const search = make("input", { type: "search", placeholder: "Search", "aria-label": `Search in ${label}`, class: "find" });
      search.addEventListener("input", () => {
        const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
        labels.forEach((element, number) => {
          const text = options[number].label.toLowerCase();
          element.hidden = !wanted.every((word) => text.includes(word));
        });
      });
      search.addEventListener("keydown", (event) => {
        const left = labels.filter((element) => !element.hidden);
        if (event.key === "Enter" && left.length === 1) left[0].querySelector("input").click();
      });
      const named = [...new Set(options.flatMap((one) => one.groups))].sort(tokrig.lines.collator.compare);
      const all = named.map((group) => {
        const members = options.filter((one) => one.groups.includes(group)).map((one) => one.word);
        const button = make("button", { type: "button", class: "quiet" }, `all ${group}`);
        button.addEventListener("click", () => choose([...view.chosen(name), ...members]));
        return button;
      });
      const none = make("button", { type: "button", class: "quiet" }, "none");
      none.addEventListener("click", () => choose([]));
      list.replaceChildren(
        ...(options.length > 8 ? [search] : []),
        make("div", { class: "several" }, ...(named.length > 1 ? all : []), none),
        make("div", { class: "choices" }, ...labels),
      );
    }
    const { button, list } = opener(name, label, fill);
    /** What the button and the open list say follows what is chosen. */
    function sync() {
      const words = view.chosen(name);
      button.textContent = words.length ? `${label} (${words.length})` : label;
      button.classList.toggle("changed", words.length > 0);
      for (const box of list.querySelectorAll(`input[name="${name}"]`)) box.checked = words.includes(box.value);
    }
    return { element: button, list, sync };
  }

  // Sizes

  const STEPS = [0.1, 0.3, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 27, 30, 32, 36, 40, 50, 60, 70, 80, 100, 120, 150, 200, 240, 300, 400, 500, 700, 1000, 2000];
  const RANGES = {
    vram: { label: "VRAM of the card", text: (gb) => (gb ? `${gb} GB` : "no GPU") },
    params: { label: "Parameters", text: (billions) => parameters(billions * 1e9) },
  };

  /** ``≤ 12 GB``, ``8–24 GB``, ``any``. */
  function rangeText(name) {
    const range = view.range(name);
    if (!range) return `${view.state[name]} (unknown)`;
    const [low, high] = range;
    const { text } = RANGES[name];
    if (low > -Infinity && high < Infinity) return low === high ? text(low) : tokrig.columns.joined(low, high, text);
    if (low > -Infinity) return `≥ ${text(low)}`;
    return high < Infinity ? `≤ ${text(high)}` : "any";
  }

  function stopsOf(name) {
    const [numbers, all] = sizes[name];
    const found = new Set([...new Set(numbers)].map((number) => all[number]));
    found.delete(null);
    const there = [...found].sort((a, b) => a - b);
    if (name === "vram" || !there.length) return there;
    const [least, most] = [there[0], there.at(-1)];
    const first = STEPS.findLastIndex((step) => step <= least);
    const last = STEPS.findIndex((step) => step >= most);
    return STEPS.slice(Math.max(0, first), last < 0 ? undefined : last + 1);
  }

  /** Two thumbs on one line; the outermost stops set no limit. */
  function range(name) {
    const { label } = RANGES[name];
    const stops = stopsOf(name);
    const end = stops.length - 1;
    const thumb = (which) =>
      make("input", { type: "range", name: `${name}-${which}`, min: "0", max: String(Math.max(end, 0)), step: "1", "aria-label": `${label}, at ${which}` });
    const [low, high] = [thumb("least"), thumb("most")];
    const said = make("output", {});
    const element = make("div", { class: "range", role: "group", "aria-label": label },
      make("span", { class: "label" }, label, " ", said), make("span", { class: "track" }, low, high));
    element.hidden = end < 1;
    function asked(moved) {
      const places = [Number(low.value), Number(high.value)];
      if (places[0] > places[1]) (moved === low ? high : low).value = moved.value;
      const [from, to] = [Number(low.value), Number(high.value)];
      const words = `${from ? stops[from] : ""}-${to < end ? stops[to] : ""}`;
      return { [name]: words === "-" ? "" : words };
    }
    for (const input of [low, high]) {
      input.addEventListener("input", () => view.soon(asked(input)));
    }
    function sync() {
      const [from, to] = view.range(name) ?? [-Infinity, Infinity];
      const first = stops.findIndex((stop) => stop >= from);
      low.value = String(from === -Infinity ? 0 : first < 0 ? end : first);
      high.value = String(to === Infinity ? end : Math.max(0, stops.findLastIndex((stop) => stop <= to)));
      said.textContent = rangeText(name);
      low.setAttribute("aria-valuetext", low.value === "0" ? "any" : RANGES[name].text(stops[low.value]));
      high.setAttribute("aria-valuetext", high.value === String(end) ? "any" : RANGES[name].text(stops[high.value]));
      element.style.setProperty("--from", end > 0 ? low.value / end : 0);
      element.style.setProperty("--to", end > 0 ? high.value / end : 1);
    }
    return { element, sync };
  }

  // What is chosen, to be taken back one by one

  function chips(labels) {
    const chip = (name, label, without) => {
      const button = make("button", { type: "button", class: "chip", "aria-label": `Remove ${label}` }, label, make("span", { "aria-hidden": "true" }, " ×"));
      button.addEventListener("click", () => view.go({ [name]: without }));
      return button;
    };
    const found = [];
    for (const name of Object.keys(facts)) {
      const words = view.chosen(name);
      if (!words.length) continue;
      const [, all] = numbered[name];
      const there = new Map(all.map(([label, word]) => [word, label]));
      for (const word of words) {
        const label = there.get(word) ?? `${labels[name] ?? name} ${word} (unknown)`;
        found.push(chip(name, label, words.filter((one) => one !== word).join(",")));
      }
    }
    for (const name of Object.keys(sizes)) {
      if (view.state[name]) found.push(chip(name, `${RANGES[name].label} ${rangeText(name)}`, ""));
    }
    return found;
  }

  tokrig.picked = { checkbox, chips, opener, pick, range };
}
