// A button beside each command, which copies it; without this script, the command is plain text.
"use strict";
{
  const told = tokrig.make("p", { class: "unseen", role: "status" });
  document.querySelector("main").append(told);

  const addButton = (command) => {
    if (command.querySelector("button")) return;
    const code = command.querySelector("code");
    const button = tokrig.make("button", { type: "button", "aria-label": `Copy ${code.textContent}` }, "Copy");
    button.addEventListener("click", async () => {
      const done = await tokrig.share.copy(code);
      button.textContent = done ? "Copied" : "Selected";
      told.textContent = done ? "Copied" : "Selected: press Ctrl-C to copy";
      setTimeout(() => {
        button.textContent = "Copy";
        told.textContent = "";
      }, 2000);
    });
    command.append(button);
  };

  tokrig.addCopyButton = addButton;

  // Of folded ones there may be tens of thousands: those get theirs when they are opened.
  for (const command of document.querySelectorAll(".command")) {
    if (!command.closest("td")) addButton(command);
  }
  document.addEventListener(
    "toggle",
    ({ target }) => {
      if (target.open && target.closest("td")) target.querySelectorAll(".command").forEach(addButton);
    },
    true,
  );
}
