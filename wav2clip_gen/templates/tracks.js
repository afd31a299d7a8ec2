const {duration, rows} = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const all = (query) => [...document.querySelectorAll(query)];
const video = document.querySelector("video"), tracks = find("tracks"), slider = find("slider");
const frame = 1 / Number(tracks.dataset.fps);
const values = all("[data-row]").map((element) => ({element, row: rows[element.dataset.row]}));
const spans = all(".span").map((element) => ({
  element, start: Number(element.dataset.start), stop: Number(element.dataset.stop),
  prompt: element.classList.contains("prompt"),
}));
let current = [];

function clock(seconds) {
  const tenths = Math.floor(seconds * 10 + 1e-6), whole = Math.floor(tenths / 10);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}.${tenths % 10}`;
}

// the cursor and all that is shown of its moment

function valueAt(row, seconds) {
  const count = row.top.length, place = Math.min(count - 1, Math.max(0, Math.floor(seconds / duration * count + 1e-6)));
  const level = row.top[place];
  return level === null ? null : row.low + level / 999 * (row.high - row.low);
}

function rounded(value, unit) {
  return value === null ? "–" : `${Number(value.toPrecision(3))} ${unit}`.trim();
}

function show() {
  const now = Math.min(video.currentTime, duration);
  find("cursor").style.transform = `translateX(${now / duration * find("cursor").parentElement.clientWidth}px)`;
  find("time").textContent = clock(now);
  slider.setAttribute("aria-valuenow", now.toFixed(2));
  slider.setAttribute("aria-valuetext", clock(now));
  for (const {element, row} of values)
    if (row.kind !== "wave") element.textContent = rounded(valueAt(row, now), row.unit);
  const moment = now + 1e-6, before = current;
  current = spans.filter((one) => one.start <= moment && moment < one.stop);
  for (const one of before) one.element.classList.remove("current");
  for (const one of current) one.element.classList.add("current");
  showWords();
}

function showWords() {
  const section = current.find((one) => !one.prompt), label = find("label"), force = find("force");
  if (label && section) {
    const {label: text, guessing} = section.element.dataset;
    label.textContent = guessing ? `${text}? (guessing)` : text;
    label.classList.toggle("guessing", Boolean(guessing));
  }
  if (!force) return;
  const words = current.filter((one) => one.prompt).map((one) => one.element);
  const key = words.map((element) => element.textContent).join("\n");
  if (force.dataset.key === key) return;
  force.dataset.key = key;
  force.replaceChildren(...words.map((element) => {
    const item = document.createElement("li"), text = document.createElement("bdi"), {weight} = element.dataset;
    text.textContent = element.textContent;
    item.append(text, weight === "1" ? "" : ` × ${weight}`);
    return item;
  }));
}

function follow() {
  show();
  if (!video.paused && !video.ended) requestAnimationFrame(follow);
}

function seek(seconds) {
  video.currentTime = Math.min(Math.max(seconds, 0), Math.max(duration - frame / 2, 0));
  show();
}

for (const event of ["seeked", "timeupdate", "loadedmetadata", "pause"]) video.addEventListener(event, show);
video.addEventListener("play", follow);

// mouse, finger, keyboard

function seekTo(event) {
  const lane = slider.getBoundingClientRect();
  seek((event.clientX - lane.left) / lane.width * duration);
}

tracks.addEventListener("pointerdown", (event) => {
  if (event.button || event.clientX < slider.getBoundingClientRect().left) return;
  tracks.setPointerCapture(event.pointerId);
  seekTo(event);
});
tracks.addEventListener("pointermove", (event) => {
  if (tracks.hasPointerCapture(event.pointerId)) seekTo(event);
});
for (const button of all("[data-seek]"))
  button.addEventListener("click", () => { seek(Number(button.dataset.seek)); video.scrollIntoView({block: "nearest"}); });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, button, video, summary, .scroll")) return;
  const step = event.shiftKey ? frame : 1, on = event.target === slider;
  const moves = {ArrowLeft: -step, ArrowRight: step, ...(on && {
    ArrowDown: -step, ArrowUp: step, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity,
  })};
  if (event.key === " ") video.paused ? video.play() : video.pause();
  else if (event.key in moves) seek(video.currentTime + moves[event.key]);
  else return;
  event.preventDefault();
});

// the curves

function draw({canvas, row, width, height}, named) {
  const ratio = window.devicePixelRatio || 1;
  if (!width) return;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const pad = 3, y = (level) => height - pad - level / 999 * (height - 2 * pad);
  const x = (seconds) => seconds / duration * width;
  if (row.beats) marks(pen, row.beats, x, 0, height, named("--mark"), width, .4);
  pen.fillStyle = pen.strokeStyle = named("--accent");
  if (row.kind === "wave") bars(pen, row, width, y);
  else curve(pen, row, width, y, named("--soft"));
  if (row.onsets) marks(pen, row.onsets, x, height - 6, height, named("--ink"), width);
}

function marks(pen, times, x, top, bottom, color, width, alpha = 1) {
  if (times.length > width / 3) return;
  pen.fillStyle = color;
  pen.globalAlpha = alpha;
  for (const time of times) pen.fillRect(Math.round(x(time)), top, 1, bottom - top);
  pen.globalAlpha = 1;
}

function bars(pen, row, width, y) {
  const count = row.top.length, step = width / count;
  for (let place = 0; place < count; place++) {
    const top = y(row.top[place]), bottom = y(row.bottom[place]);
    pen.fillRect(place * step, top, Math.max(step, .5), Math.max(bottom - top, 1));
  }
}

function curve(pen, {top, bottom, kind}, width, y, soft) {
  const step = width / top.length, at = (place) => (place + .5) * step, line = kind === "line";
  const middle = (place) => y(line && bottom ? (top[place] + bottom[place]) / 2 : top[place]);
  pen.lineWidth = 1.25;
  pen.lineJoin = "round";
  pen.fillStyle = soft;
  for (let first = 0, stop; first < top.length; first = stop + 1) { // null: a gap
    for (stop = first; stop < top.length && top[stop] !== null; stop++);
    if (stop === first) continue;
    const edge = new Path2D(), area = new Path2D();
    for (let place = first; place < stop; place++) {
      edge.lineTo(at(place), middle(place));
      area.lineTo(at(place), y(top[place]));
    }
    for (let place = stop - 1; place >= first; place--) area.lineTo(at(place), y(line ? (bottom ?? top)[place] : 0));
    pen.fill(area);
    pen.stroke(edge);
  }
}

function drawAll() {
  const colors = getComputedStyle(tracks), named = (name) => colors.getPropertyValue(name).trim();
  const sized = Object.entries(rows).map(([key, row]) => {
    const canvas = find(key);
    return {canvas, row, width: canvas.clientWidth, height: canvas.clientHeight};
  });
  for (const one of sized) draw(one, named);
  show();
}
new ResizeObserver(drawAll).observe(tracks); // also calls it once
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
