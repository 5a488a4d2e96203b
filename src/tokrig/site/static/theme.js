// Before the first paint: the theme that was chosen here earlier, else the system's.
"use strict";
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("tokrig-theme");
  } catch {
    // Storage may be forbidden: then the system's theme it is.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
