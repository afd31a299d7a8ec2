"use strict";
(() => {
{% include "tracks.js" %}

const page = find("live"), number = Number(page.dataset.number), audio = document.querySelector("audio");
const PAUSE = 1000; // ms between two questions
let frames = 0, loaded = "", shown = 0, newest = "", more = false, over = false;

function text(id, content) {
  if (find(id).textContent !== content) find(id).textContent = content;
}

// the state of the run

async function ask() {
  let status;
  try {
    const answer = await fetch(document.hidden ? "status?wait" : "status", {cache: "no-store"});
    if (!answer.ok) throw new Error(answer.statusText);
    status = await answer.json();
  } catch {
    return lose();
  }
  if (status.number !== number && video.paused) return location.reload(); // the next film
  if (status.number === number) tell(status);
  list(status.films, status.ended);
  if (status.ended) return finish(status);
  setTimeout(ask, document.hidden ? 0 : PAUSE);
}

function tell(status) {
  const {done, total} = status, film = status.films.find((one) => one.number === number);
  const stage = status.stage[0].toUpperCase() + status.stage.slice(1);
  text("stage", status.failure || (film ? outcome(film) : stage));
  page.classList.toggle("done", Boolean(film));
  find("figures").hidden = Boolean(film || status.failure);
  find("share").hidden = !total || find("figures").hidden;
  find("share").value = total ? done / total : 0;
  text("frames", status.optimizing && total ? `${done} of ${total}` : status.frames ? String(status.frames) : "–");
  text("left", status.left || "–");
  text("similarity-now", status.similarity === null ? "–" : status.similarity.toFixed(3));
  find("stop").hidden = !status.stoppable;
  if (film) text("told", ""); // of the stop
  notes(status.notes);
  if (status.frames !== frames) {
    frames = status.frames;
    showNewest();
    Object.assign(rows.similarity, {bottom: undefined}, status.curve);
    find("painted").style.width = `${100 * frames / status.expected}%`;
    drawAll();
  }
  more = status.more;
  newest = film ? film.film : status.part;
  offerPart(Boolean(film), status.grown);
}

function outcome(film) {
  return film.partial ? `Stopped: ${film.name}` : `Finished: ${film.name}`;
}

function notes(lines) {
  const list = find("notes");
  list.hidden = !lines.length;
  if (list.dataset.key === lines.join("\n")) return;
  list.dataset.key = lines.join("\n");
  list.replaceChildren(...lines.map(item));
}

function item(line) {
  const made = document.createElement("li");
  made.dir = "auto";
  made.textContent = line;
  return made;
}

async function showNewest() {
  const next = new Image();
  next.src = `frame/${number}-${frames}.jpg`;
  try {
    await next.decode();
  } catch {
    return; // the next one will do
  }
  const shown = find("newest");
  shown.src = next.src;
  shown.hidden = false;
  find("blank").hidden = true;
  page.style.setProperty("--ratio", `${next.naturalWidth}/${next.naturalHeight}`);
}

function list(films, ended) {
  find("finished").hidden = !films.length || ended && films.length === 1;
  const key = JSON.stringify([films, ended]);
  if (find("films").dataset.key === key) return;
  find("films").dataset.key = key;
  find("films").replaceChildren(...films.map((film) => {
    const entry = item("");
    entry.append(link(film.name, !ended && film.film));
    if (film.report) entry.append(" · ", link("report", !ended && film.report));
    if (film.partial) entry.append(" · stopped before its end");
    return entry;
  }));
}

function link(words, address) {
  const made = document.createElement(address ? "a" : "bdi");
  made.textContent = words;
  if (address) Object.assign(made, {href: address, target: "_blank", rel: "noopener"});
  return made;
}

// the end

function lose() {
  over = true;
  text("stage", "The connection is gone");
  text("told", "The command has ended, or this page cannot reach it any more. What it finished is in its folder.");
  close();
}

function close() {
  find("stop").hidden = find("load").hidden = find("share").hidden = true;
  if (find("sure").open) find("sure").close();
}

async function finish({films, failure}) {
  const film = films.find((one) => one.number === number);
  over = true;
  close();
  if (film && film.report) return location.replace(film.report);
  text("told", "The command has ended; this page is no longer connected.");
  if (!film) return failure || text("stage", "The command has ended");
  try { // into memory, as the server ends now
    const content = await (await fetch(film.film)).blob();
    loadPart(URL.createObjectURL(content), true);
  } catch {
    text("told", `The command has ended. The film is in its folder: ${film.name}`);
  }
}

// the part that can be played

function offerPart(finished, grown) {
  find("part").hidden = !newest && !loaded;
  if (!newest || newest === loaded) return;
  const idle = video.paused && (video.currentTime === 0 && grown >= 1.5 * shown || finished);
  if (!loaded || idle) {
    shown = grown;
    loadPart(newest, finished);
  }
  find("load").hidden = newest === loaded || over;
  text("load", finished ? "Load the finished film, with its sound" : "Load the newest part");
}

function loadPart(address, finished) {
  const time = video.currentTime, playing = !video.paused && !video.ended;
  loaded = address;
  video.src = address;
  video.dataset.sound = finished ? "own" : "";
  text("part-head", finished ? "The film" : "The film so far");
  find("load").hidden = true;
  if (finished) audio.pause();
  video.addEventListener("loadedmetadata", () => {
    find("part").hidden = false;
    if (time) video.currentTime = Math.min(time, Math.max(video.duration - frame / 2, 0));
    if (playing) video.play().catch(() => {});
  }, {once: true});
}

find("load").addEventListener("click", () => loadPart(newest, newest.startsWith("film/")));
video.addEventListener("play", () => {
  if (video.currentTime === 0 && newest !== loaded && !over) loadPart(newest, newest.startsWith("film/"));
});
video.addEventListener("ended", () => { // it has grown meanwhile: go on
  if (newest === loaded || over || newest.startsWith("film/")) return;
  loadPart(newest, false);
  video.addEventListener("loadedmetadata", () => { if (video.duration > video.currentTime + frame) video.play().catch(() => {}); }, {once: true});
});
video.addEventListener("error", () => { // it has been replaced by the finished film
  loaded = "";
  find("load").hidden = true;
});

// the sound of the song, as the part has none yet

async function followSound() {
  if (video.dataset.sound || video.paused || over) return audio.pause();
  const time = video.currentTime + Number(page.dataset.start);
  if (Math.abs(audio.currentTime - time) > .1) audio.currentTime = time;
  audio.volume = video.volume;
  audio.muted = video.muted;
  try {
    await audio.play();
    text("sound", "");
  } catch {
    if (!video.paused) text("sound", "Without sound until the film is finished: the browser does not play the song.");
  }
}

for (const event of ["play", "playing", "pause", "seeked", "ended", "waiting", "timeupdate", "volumechange"])
  video.addEventListener(event, followSound);

// stop

find("stop").addEventListener("click", () => {
  find("question").textContent = (frames
    ? `Stop here? The film ends with frame ${frames} and is kept.`
    : "Stop here? No frame is finished yet, so nothing is kept.") + (more ? " The films after it are not made." : "");
  find("sure").showModal();
});
find("no").addEventListener("click", () => find("sure").close());
find("yes").addEventListener("click", async () => {
  find("sure").close();
  const answer = await fetch(`stop/${number}`, {method: "POST"}).catch(() => null);
  text("told", answer && answer.status === 202 ? "Stopping after this frame." : "There is nothing to stop any more.");
});

slider.prepend(Object.assign(document.createElement("div"), {id: "painted"}));
ask();
})();
