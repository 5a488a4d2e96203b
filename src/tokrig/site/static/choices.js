// What a reader chose on a page: kept in its address, all that is not as usual.
"use strict";

{
  const { make } = tokrig;

  /** The choices by name, as the address has them. `show` is called after every change of them, and
   * when a reader goes back. */
  tokrig.choices = (usual, show) => {
    const read = () => {
      const query = new URLSearchParams(location.search);
      return Object.fromEntries(Object.entries(usual).map(([name, value]) => [name, query.get(name) ?? value]));
    };
    const state = read();
    const query = (changes) => {
      const all = Object.entries({ ...state, ...changes });
      return `?${new URLSearchParams(all.filter(([name, value]) => value !== usual[name]))}`;
    };
    const go = (changes) => {
      history.replaceState(null, "", query(changes).replace(/^\?$/, location.pathname));
      Object.assign(state, changes);
      return show();
    };
    addEventListener("popstate", () => {
      Object.assign(state, read());
      show();
    });

    /** A labelled choice between [text, value] pairs. */
    const select = (name, label, options, changes = (value) => ({ [name]: value })) => {
      const made = make("select", { name }, ...options.map(([text, value]) => make("option", { value }, text)));
      made.addEventListener("change", () => go(changes(made.value)));
      return make("label", {}, make("span", {}, label), made);
    };
    const search = (name, label, placeholder) => {
      const made = make("input", { name, type: "search", placeholder });
      made.addEventListener("input", () => go({ [name]: made.value }));
      return make("label", {}, make("span", {}, label), made);
    };

    /** The controls show what is chosen; what an address asks for and nobody knows, as such. */
    const sync = (form) => {
      form.hidden = false;
      for (const control of form.elements) {
        const value = state[control.name] ?? control.value;
        if (control.value === value) continue;
        control.value = value;
        if (control.value === value) continue;
        control.append(make("option", { value }, `${value} (unknown)`));
        control.value = value;
      }
    };
    return { state, query, go, select, search, sync };
  };

  /** New content of a place: who stood on a control of it stands on that of the same name again. */
  tokrig.renew = (place, ...children) => {
    const name = place.contains(document.activeElement) && document.activeElement.name;
    place.replaceChildren(...children);
    if (name) place.querySelector(`[name="${CSS.escape(name)}"]`)?.focus();
  };

  for (const form of document.querySelectorAll("form.filters")) form.addEventListener("submit", (event) => event.preventDefault());
}
