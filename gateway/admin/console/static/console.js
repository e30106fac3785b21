// What the console does better with script: live parts, values of charts, and buttons that copy.
"use strict";

// The chart that is pointed at or has the focus, and the step of it that is shown. Charts of live
// parts are replaced: what counts is where they stand.
let pointed = null;

function charts() {
  return [...document.querySelectorAll(".chart")];
}
function readout(chart, step) {
  const values = chart.dataset.values.split("|");
  const at = Math.max(0, Math.min(values.length - 1, step));
  const start = Number(chart.dataset.start) + at * Number(chart.dataset.step);
  const time = new Date(start * 1000).toISOString();
  let shown = chart.querySelector("output");
  if (!shown) {
    shown = document.createElement("output");
    const cursor = document.createElement("span");
    cursor.className = "cursor";
    chart.querySelector(".plot").append(shown, cursor);
  }
  const isLong = values.length * Number(chart.dataset.step) > 43200;
  const moment = isLong ? time.slice(0, 16).replace("T", " ") : time.slice(11, 19);
  shown.textContent = `${moment} UTC: ${values[at]}`;
  const inset = Number(chart.dataset.inset);
  const share = inset + (1 - inset) * (at + 0.5) / values.length;
  chart.querySelector(".cursor").style.left = `${share * 100}%`;
  shown.classList.toggle("right", share > 0.5);
  pointed = { number: charts().indexOf(chart), step: at };
}
function unpoint() {
  for (const one of document.querySelectorAll(".chart output, .chart .cursor")) one.remove();
  pointed = null;
}
function makeReachable() {
  for (const chart of charts()) chart.tabIndex = 0;
  const chart = pointed && charts()[pointed.number];
  if (chart) readout(chart, pointed.step);
}

document.addEventListener("pointermove", (event) => {
  const chart = event.target instanceof Element && event.target.closest(".chart");
  if (!chart) {
    if (pointed && !document.activeElement?.closest(".chart")) unpoint();
    return;
  }
  const box = chart.querySelector(".plot").getBoundingClientRect();
  const inset = Number(chart.dataset.inset);
  const share = ((event.clientX - box.left) / box.width - inset) / (1 - inset);
  const step = Math.floor(share * chart.dataset.values.split("|").length);
  if (pointed && charts()[pointed.number] !== chart) unpoint();
  readout(chart, step);
});
document.addEventListener("keydown", (event) => {
  const chart = document.activeElement?.closest(".chart");
  if (!chart) return;
  const last = chart.dataset.values.split("|").length - 1;
  const now = pointed && charts()[pointed.number] === chart ? pointed.step : last + 1;
  const step = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
  if (step !== undefined) {
    event.preventDefault();
    if (pointed && charts()[pointed.number] !== chart) unpoint();
    readout(chart, step);
  } else if (event.key === "Escape") {
    unpoint();
  }
});
document.addEventListener("focusout", (event) => {
  if (event.target instanceof Element && event.target.closest(".chart")) unpoint();
});
makeReachable();

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
      makeReachable();
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
