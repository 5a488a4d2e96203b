// On every page: theme, definitions of dotted labels, rows picked to compare.
"use strict";

window.tokrig = window.tokrig || {};

/** A new element: properties, then children (text or elements). Data is only ever text. */
tokrig.make = (tag, properties = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

/** The address of a file of the site, seen from this page. */
tokrig.url = (path) => `${document.body.dataset.root}/${path}`;

// Storage for this visit, and memory alone where storage is forbidden.
tokrig.kept = {
  memory: {},
  get(name) {
    try {
      return sessionStorage.getItem(name) ?? this.memory[name] ?? "";
    } catch {
      return this.memory[name] ?? "";
    }
  },
  set(name, value) {
    this.memory[name] = value;
    try {
      sessionStorage.setItem(name, value);
    } catch {
      // Kept in memory until the page is left.
    }
  },
};

// What only makes sense with this script.
for (const element of document.querySelectorAll(".scripted")) element.hidden = false;

// Theme

{
  const button = document.getElementById("theme");
  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const label = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
  };
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("tokrig-theme", theme);
    } catch {
      // Not kept, then.
    }
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  label();
  button.hidden = false;
}

// Definitions: shown beside the label under mouse, keyboard focus or finger; Escape hides them.

{
  const tip = document.getElementById("tip");
  let owner = null;
  const hide = () => {
    if (!owner) return;
    owner.removeAttribute("aria-describedby");
    owner = null;
    tip.hidePopover();
  };
  const show = (label) => {
    const definition = (tokrig.definitions || {})[label.dataset.term];
    if (!definition || owner === label) return;
    hide();
    owner = label;
    tip.textContent = definition;
    label.setAttribute("aria-describedby", "tip");
    tip.showPopover();
    const at = label.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const room = document.documentElement.clientWidth - size.width - 8;
    const below = at.bottom + 6 + size.height <= innerHeight;
    tip.style.left = `${Math.max(8, Math.min(at.left, room))}px`;
    tip.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - 6 - size.height)}px`;
  };
  const labelOf = (event) => event.target.closest?.("[data-term]");
  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return; // a finger does not hover
    const label = labelOf(event);
    if (label) show(label);
    else if (!event.target.closest?.("#tip") && owner !== document.activeElement) hide();
  });
  document.addEventListener("focusin", (event) => {
    const label = labelOf(event);
    if (label) show(label);
    else hide();
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  // The first tap on a link shows the definition, the second follows it.
  let touched = null;
  document.addEventListener("pointerdown", (event) => {
    touched = event.pointerType === "touch" && labelOf(event) !== owner ? labelOf(event) : null;
  });
  document.addEventListener("click", (event) => {
    const label = labelOf(event);
    if (label && label === touched && label.tagName === "A") {
      event.preventDefault();
      show(label);
    }
    touched = null;
  });
}

// Picks: "<run id>~<concurrency>" or "<run id>~<concurrency>~<shape>", six at most.

tokrig.picks = {
  most: 6,
  list() {
    return tokrig.kept.get("tokrig-picks").split(",").filter(Boolean);
  },
  has(pick) {
    return this.list().includes(pick);
  },
  add(pick) {
    if (!this.has(pick)) this.set([...this.list(), pick].slice(-this.most));
  },
  remove(pick) {
    this.set(this.list().filter((one) => one !== pick));
  },
  set(picks) {
    tokrig.kept.set("tokrig-picks", picks.join(","));
    this.show();
  },
  show() {
    const picks = this.list();
    const tray = document.getElementById("tray");
    for (const box of document.querySelectorAll("input[data-pick]")) {
      box.checked = picks.includes(box.dataset.pick);
    }
    tray.hidden = picks.length === 0 || Boolean(document.querySelector("[data-no-tray]"));
    const ready = picks.length > 1;
    const rows = picks.map(encodeURIComponent).join(",");
    const clear = tokrig.make("button", { type: "button", class: "quiet" }, "Clear");
    clear.addEventListener("click", () => this.set([]));
    tray.replaceChildren(
      tokrig.make("span", {}, `${picks.length} picked`),
      ready
        ? tokrig.make("a", { class: "button", href: `${tokrig.url("compare.html")}?rows=${rows}` }, "Compare")
        : tokrig.make("span", { class: "muted" }, "pick one more to compare"),
      clear,
    );
  },
};

document.addEventListener("change", (event) => {
  const pick = event.target.dataset?.pick;
  if (pick) event.target.checked ? tokrig.picks.add(pick) : tokrig.picks.remove(pick);
});
// Boxes stand in cells that are empty without this script.
for (const cell of document.querySelectorAll("td[data-pick]")) {
  const { pick, name } = cell.dataset;
  cell.append(tokrig.make("input", { type: "checkbox", "data-pick": pick, "aria-label": `Compare ${name}` }));
}
tokrig.picks.show();
addEventListener("pageshow", () => tokrig.picks.show());
