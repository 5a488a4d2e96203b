// Finds columns of the data by their name, unit or meaning.
"use strict";
{
  const form = document.getElementById("find");
  const field = tokrig.make("input", { type: "search", name: "find", autocomplete: "off" });
  form.append(tokrig.make("label", {}, "Find a column ", field));
  form.hidden = false;
  const groups = [...document.querySelectorAll(".columns tbody")];
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    const parts = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const group of groups) {
      const rows = [...group.querySelectorAll("tr:not(.group)")];
      for (const row of rows) row.hidden = !parts.every((part) => row.textContent.toLowerCase().includes(part));
      const left = rows.filter((row) => !row.hidden).length;
      group.hidden = left === 0;
      shown += left;
    }
    const found = shown ? tokrig.words.count(shown, "column") : "No column is called or explained so.";
    document.getElementById("found").textContent = parts.length ? found : "";
  });
}
