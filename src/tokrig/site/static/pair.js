// Two cards chosen by name: the second choice leads to versus.html?a=…&b=….
"use strict";

for (const form of document.querySelectorAll("form.pair")) {
  const { make } = tokrig;
  const options = [...form.querySelectorAll("option")];
  const status = make("p", { class: "status", role: "status" });
  const [a, b] = [["a", "4090"], ["b", "3090"]].map(([name, example]) =>
    make("input", { name, type: "search", list: "cards", autocomplete: "off", placeholder: `type to search, e.g. ${example}` }),
  );
  form.append(
    make("label", {}, make("span", {}, "Compare"), a),
    make("label", {}, make("span", {}, "with"), b),
    make("button", {}, "Side by side"),
    status,
  );
  form.hidden = options.length < 2;

  /** The address of what is written: a card's whole name, or words that only one card has. */
  const find = (text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const whole = options.filter((one) => one.value.toLowerCase() === text.trim().toLowerCase());
    const some = options.filter((one) => words.every((word) => one.value.toLowerCase().includes(word)));
    const found = whole.length ? whole : words.length ? some : [];
    return { found, address: found.length === 1 ? found[0].dataset.address : null };
  };

  const go = () => {
    const [one, other] = [find(a.value), find(b.value)];
    const asked = [[a, one], [b, other]].filter(([input, { address }]) => input.value.trim() && !address);
    status.textContent = asked
      .map(([input, { found }]) =>
        found.length
          ? `“${input.value}” is ${found.length} cards: ${found.slice(0, 4).map(({ value }) => value).join("; ")}${found.length > 4 ? "; …" : ""}.`
          : `No card here is called “${input.value}”.`,
      )
      .join(" ");
    if (!one.address || !other.address) return;
    const query = new URLSearchParams({ a: one.address, b: other.address });
    location.assign(`${form.dataset.action}?${query}`);
  };
  a.addEventListener("change", go);
  b.addEventListener("change", go);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go();
    if (!a.value.trim() || !b.value.trim()) status.textContent = "Choose two cards.";
  });
}
