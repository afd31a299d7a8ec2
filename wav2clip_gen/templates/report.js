"use strict";
(() => {
{% include "tracks.js" %}

// the film

function tellMissing() {
  const missing = find("missing");
  missing.textContent = `The film ${missing.dataset.name} is not where it was when this page was written.`;
}
video.addEventListener("error", tellMissing);
if (video.error) tellMissing();

// the command

async function copy() {
  const field = find("command");
  try {
    await navigator.clipboard.writeText(field.value);
    find("copied").textContent = "Copied.";
  } catch {
    field.focus();
    field.select();
    const done = document.execCommand("copy");
    find("copied").textContent = done ? "Copied." : "The command is selected: copy it with Ctrl+C or ⌘C.";
  }
}
if (find("copy")) find("copy").addEventListener("click", copy);
})();
