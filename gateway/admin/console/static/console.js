// What the console does better with script: live parts, and buttons that copy.
"use strict";

function live(part) {
  const note = document.querySelector("[data-live-state]");
  const pause = document.querySelector("[data-live-pause]");
  let stream = null;

  function say(text) {
    if (note) note.textContent = text;
  }
  function start() {
    stream = new EventSource(part.dataset.live);
    stream.addEventListener("open", () => say("Live"));
    stream.addEventListener("part", (event) => {
      // What somebody is reading or about to use is left alone.
      if (part.contains(document.activeElement) || part.querySelector("details[open]")) return;
      // Rendered and escaped by the gateway, like the page itself.
      part.innerHTML = event.data;
    });
    stream.addEventListener("gone", () => location.reload());
    stream.addEventListener("error", () => {
      say(stream.readyState === EventSource.CLOSED ? "Not live: reload the page" : "Connecting again");
    });
  }
  function stop() {
    stream.close();
    stream = null;
  }
  if (pause) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      if (stream) {
        stop();
        say("Paused");
        pause.textContent = "Go on";
      } else {
        start();
        pause.textContent = "Pause";
      }
    });
  }
  start();
}

for (const part of document.querySelectorAll("[data-live]")) live(part);

for (const button of document.querySelectorAll("[data-copy]")) {
  const from = document.getElementById(button.dataset.copy);
  if (!from || !navigator.clipboard) continue;
  const name = button.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(from.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = name; }, 2000);
  });
}
