// Before the first paint: the theme that was chosen here earlier or that the address asks for, else
// the system's; and whether only a part is to be shown (share.js).
"use strict";
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("tokrig-theme");
  } catch {
    // Storage may be forbidden: then the system's theme it is.
  }
  const asked = new URLSearchParams(location.search);
  chosen = asked.get("theme") ?? chosen;
  if (asked.has("embed")) document.documentElement.dataset.embed = "";
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
