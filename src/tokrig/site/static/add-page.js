// The page "add your machine": commands for one's own card, and of each dropped record the pull
// request that would publish it.
"use strict";

{
  const { make, dropped, records } = tokrig;
  const place = document.getElementById("requests");

  // One card, one size at a time: what is for others is hidden

  const choice = (label, id, name, usual) => {
    const parts = [...document.querySelectorAll(`[data-${name}]`)];
    if (!parts.length) return;
    const options = parts.map(({ dataset }) => make("option", { value: dataset[name] }, dataset.title));
    const select = make("select", {}, ...options);
    if (parts.some(({ dataset }) => dataset[name] === usual)) select.value = usual;
    const show = () => parts.forEach((part) => (part.hidden = part.dataset[name] !== select.value));
    select.addEventListener("change", show);
    document.getElementById(id).replaceChildren(make("label", { class: "chooser" }, `${label} `, select));
    show();
  };
  choice("Your card", "card", "api", "vulkan");
  choice("Your machine has", "size", "size", "12");

  // The nearest published record (submission.nearest)

  const MOST_COMPARED = 24;
  const subjects = new Map();
  tokrig.run = (subject) => subjects.set(subject.id, subject);

  const nearest = async ({ id, run, subject }) => {
    await records.load("assets/rows.js");
    const { models, families, quants, rigs, runs } = tokrig.data;
    const candidates = runs.id
      .map((other, number) => {
        const [family, variant] = models[runs.model[number]];
        const likeness = [variant === run.model[0], quants[runs.quant[number]][0] === run.quant[0], rigs[runs.rig[number]][1] === run.rig[1]];
        return { other, isKin: families[family][0] === run.family[0], likeness: likeness.reduce((sum, one) => 2 * sum + one, 0) };
      })
      .filter(({ other, isKin }) => isKin && other !== id)
      .sort((a, b) => b.likeness - a.likeness)
      .slice(0, MOST_COMPARED);
    await Promise.all(candidates.map(({ other }) => records.load(`runs/${other}.js`)));
    const found = candidates.map(({ other }) => tokrig.compare({ ...subjects.get(other), noise: {} }, { ...subject, id }));
    found.sort((a, b) => (a.class < b.class ? -1 : a.class > b.class ? 1 : a.differing.length - b.differing.length || (a.a < b.a ? -1 : 1)));
    return found[0] ?? null;
  };

  // What is shown of each

  const copied = (label, text) => {
    const command = make("div", { class: "command" }, make(text.includes("\n") ? "pre" : "p", {}, make("code", {}, text)));
    tokrig.addCopyButton(command);
    return make("div", { class: "copied" }, make("h4", {}, label), command);
  };

  const problems = (entry, isPublished) => {
    const found = entry.private.map(([field, text]) => `${field} looks private: ${text.slice(0, 80)}. Take it out of the record before you send it.`);
    if (entry.verdict.word === "invalid") found.push(`The record says that it is invalid (${entry.verdict.codes.join(", ").replaceAll("_", " ")}). It would not be taken: measure again on a quiet machine.`);
    if (entry.methodology !== tokrig.recordRules.methodology) found.push(`It was measured by methodology ${entry.methodology ?? "unknown"}, this page is of ${tokrig.recordRules.methodology}: figures of two methodologies are not compared.`);
    if (isPublished) found.push("A record of this id is published already.");
    return found;
  };

  const request = async (entry) => {
    await Promise.all(["assets/record-rules.js", "assets/record-words.js"].map(records.load));
    const pair = await nearest(entry);
    const text = tokrig.recordWords.pullRequest(entry.pull, pair);
    const wrong = problems(entry, tokrig.data.runs.id.includes(entry.id));
    return make(
      "section", { class: "request", "aria-label": entry.pull.title },
      make("h3", {}, make("bdi", {}, entry.pull.title)),
      make("p", {}, `Its form, its ids and its keys are those of a record. Whether its figures follow from its samples, `, make("code", {}, `tokrig check ${entry.id}`), " tells; it also knows your name and your machine's, which this page does not."),
      wrong.length ? make("ul", { class: "note warning" }, ...wrong.map((one) => make("li", {}, make("bdi", {}, one)))) : "",
      copied("Branch", entry.pull.branch),
      copied("File, in the repository's content folder", entry.pull.place),
      copied("Title", entry.pull.title),
      copied("Text", text),
    );
  };

  let turn = 0;
  const show = async () => {
    const mine = ++turn;
    const made = [];
    for (const entry of dropped.all()) made.push(await request(entry));
    if (mine === turn) place.replaceChildren(...made);
  };
  document.addEventListener("tokrig-dropped", show);
  show();
}
