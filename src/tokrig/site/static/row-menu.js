// What can be taken away of one row: each row has a button, all of them one menu.
"use strict";

{
  const { make, share } = tokrig;
  const list = make("div", { id: "row-menu", popover: "auto", class: "row-menu entries", role: "dialog" });
  let button = null;

  /** The text of a cell as people read it: its parts with spaces between them. */
  const textOf = (cell) => {
    const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    const parts = [];
    while (walk.nextNode()) parts.push(walk.currentNode.textContent.trim());
    return parts.filter(Boolean).join(" ").replace(/[\s\p{Cc}]+/gu, " ");
  };
  const cellsOf = (row) => [...row.cells].filter((cell) => !cell.matches(".pick")).map(textOf);

  /** The row as a table of Markdown, under what it is of. */
  const rowText = (row, run) => {
    const table = share.asMarkdown([cellsOf(row.closest("table").tHead.rows[0]), cellsOf(row)]);
    return run ? `${share.line(`**[${share.inMarkdown(run.name)}](${run.link})** on ${share.inMarkdown(run.place)}`)}\n\n${table}` : table;
  };

  /** ``run~concurrency`` has the lines of all its shapes, ``run~concurrency~shape`` one. */
  const linesOf = (run, [concurrency, shape]) =>
    Object.entries(run.lines)
      .filter(([key]) => (shape === undefined ? key.startsWith(`${concurrency}~`) : key === `${concurrency}~${shape}`))
      .map(([, text]) => text);

  async function open() {
    button = this;
    const row = button.closest("tr");
    const [id, ...at] = row.querySelector("input[data-pick]").dataset.pick.split("~");
    await tokrig.runs.load(id);
    if (button !== this || !button.isConnected) return; // another one was pressed meanwhile
    const run = tokrig.runs.runs.get(id); // of a file of one's own nothing is published
    const badge = run && { path: `badges/runs/${id}.svg`, text: `tokrig: ${run.title}` };
    const given = run ? share.entriesOf({ ...run, lines: linesOf(run, at), badge }) : [];
    share.fill(list, [["Copy the row as Markdown", () => rowText(row, run)], ...given]);
    list.setAttribute("aria-label", button.getAttribute("aria-label"));
    list.showPopover();
    const room = document.documentElement.clientWidth - list.offsetWidth - 8;
    const spot = button.getBoundingClientRect();
    const below = spot.bottom + 4 + list.offsetHeight <= innerHeight;
    list.style.left = `${Math.max(8, Math.min(spot.left, room)) + scrollX}px`;
    list.style.top = `${(below ? spot.bottom + 4 : Math.max(8, spot.top - 4 - list.offsetHeight)) + scrollY}px`;
    list.querySelector("button").focus({ preventScroll: true });
  }
  list.addEventListener("beforetoggle", (event) => {
    if (event.newState === "closed" && list.contains(document.activeElement)) button.focus({ preventScroll: true });
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const all = [...list.querySelectorAll("button")];
    all.at((all.indexOf(document.activeElement) + step) % all.length).focus();
  });
  document.querySelector("main").append(list);

  tokrig.rowMenu = (name) => {
    const made = make("button", { type: "button", class: "row-share", "aria-label": `Share ${name}`, "aria-haspopup": "dialog" });
    made.addEventListener("click", open);
    return made;
  };
  for (const cell of document.querySelectorAll("td.pick[data-pick]")) cell.append(tokrig.rowMenu(cell.dataset.name));
}
