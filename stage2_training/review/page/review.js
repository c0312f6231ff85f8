// The review's page. What a key confirms is shown as done at once and sent in order; it waits here until it is kept.

const KEYS = "1234567890-=";
const AHEAD = 6, KEPT = 3, TILES = 12, RETRY_MS = 1000, LOOK_MS = 3000;
const ON = 1, OFF = 0, UNKNOWN = -1, LIKELY = 0.5;
const $ = (id) => document.getElementById(id);

let labels = [], version = -1, progress = null, identity = null;
let current = null;          // {row, name, suggested, ...}; marks are in `marks`, by column
let marks = [], order = [], cursor = 0, shownAt = 0;
let ahead = [];              // photos to come, with their pictures on the way
const skipped = new Set();
let grid = null;             // {column, asked, marks} while in that mode
const waiting = [];          // what is not kept yet: {url, body, rows, then}
const confirmed = [];        // what can be shown again at once: {ids, asked, marks}
let sending = false, filling = false, showsMap = false;

const json = async (url) => { const answer = await fetch(url); if (!answer.ok) throw new Error(await answer.text()); return answer.json(); };
const identifier = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const seconds = () => Math.min((performance.now() - shownAt) / 1000, 600);

// While the model has not read the photos, it suggests nothing: `suggested` is null.
const likely = (asked, column) => asked.suggested !== null && asked.suggested[column] >= LIKELY;
const percent = (asked, column) => (asked.suggested === null ? "" : `${Math.round(100 * asked.suggested[column])} %`);
const suggestions = (asked, columns) => (asked.suggested === null ? {} : Object.fromEntries(columns.map((column) => [labels[column].key, asked.suggested[column]])));

function picture(row, longest) {
  const image = new Image();
  image.src = `/photo/${row}?longest=${longest}&of=${identity}`;
  image.decode().catch(() => {});
  return image;
}
function say(text) { $("message").textContent = text; $("message").hidden = !text; }

// Photo by photo

function startingMarks(asked) {
  return labels.map((label, column) => label.key in asked.marks ? asked.marks[label.key] : likely(asked, column) ? ON : OFF);
}

function show(asked, again) {
  current = asked;
  showsMap = false;
  const empty = !asked;
  $("one").hidden = empty;
  $("done").hidden = !empty;
  if (empty) { $("done").textContent = filling ? "Choosing photos …" : "All photos are answered or skipped."; return; }
  marks = again ? [...again] : startingMarks(asked);
  order = labels.map((_, column) => column);
  if (asked.suggested !== null) order.sort((a, b) => asked.suggested[b] - asked.suggested[a]);
  cursor = 0;
  asked.image ??= picture(asked.row, 1024);
  asked.image.alt = asked.name;
  asked.image.onerror = () => say(`${asked.name}: cannot be shown; skip it (S)`);
  $("photo").replaceChildren(asked.image);
  $("name").textContent = asked.name + (asked.chosen === "random" ? " (drawn at random)" : "");
  $("search").value = "";
  listLabels();
  shownAt = performance.now();
}

function listLabels() {
  const wanted = $("search").value.trim().toLowerCase();
  const rows = order.map((column, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.place = place;
    button.dataset.mark = marks[column];
    button.setAttribute("aria-pressed", marks[column] === ON ? "true" : marks[column] === OFF ? "false" : "mixed");
    button.classList.toggle("cursor", place === cursor);
    for (const [name, text] of [["key", place < 10 ? KEYS[place] : ""], ["text", labels[column].text], ["percent", percent(current, column)]]) {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = text;
      button.append(part);
    }
    button.onclick = () => { cursor = place; toggle(); };
    const item = document.createElement("li");
    item.hidden = wanted !== "" && !labels[column].text.toLowerCase().includes(wanted);
    item.append(button);
    return item;
  });
  $("labels").replaceChildren(...rows);
  $("labels").children[cursor]?.scrollIntoView({ block: "nearest" });
}

function toggle(to) {
  const column = order[cursor];
  marks[column] = to === undefined ? (marks[column] === ON ? OFF : ON) : marks[column] === to ? OFF : to;
  listLabels();
}

function confirm() {
  if (!current) return;
  const id = identifier();
  const said = Object.fromEntries(labels.map((label, column) => [label.key, marks[column]]));
  const suggested = suggestions(current, labels.map((_, column) => column));
  const answer = { id, path: current.name, marks: said, suggested, seconds: seconds(), chosen: current.chosen };
  confirmed.push({ ids: [id], asked: current, marks: [...marks] });
  send("/answers", { answers: [answer] }, [current.row]);
  show(ahead.shift());
  fill();
}

function skip() {
  if (!current) return;
  skipped.add(current.row);
  show(ahead.shift());
  fill();
}

async function showMap() {
  if (!current) return;
  if (progress.photos_read !== null) { say("The model is still reading the photos; it shows where when it suggests."); return; }
  if (showsMap) { $("photo").replaceChildren(current.image); showsMap = false; return; }
  const asked = current, answer = await fetch(`/map/${asked.row}/${order[cursor]}?of=${identity}`);
  if (current !== asked) return;
  if (!answer.ok) { say(await answer.text()); return; }
  const image = new Image();
  image.alt = `where ${labels[order[cursor]].text} was seen in ${asked.name}`;
  image.src = URL.createObjectURL(await answer.blob());
  image.onload = () => URL.revokeObjectURL(image.src);
  $("photo").replaceChildren(image);
  showsMap = true;
}

// Afresh, when the model has learned: all but the next few, whose pictures are here already.
async function fill(afresh = false) {
  if (filling || grid || (!afresh && ahead.length > AHEAD / 2)) return;
  filling = true;
  const unsent = () => waiting.flatMap((one) => one.rows);
  const kept = () => (afresh ? ahead.slice(0, KEPT) : ahead);
  try {
    const held = [...(current ? [current.row] : []), ...unsent(), ...skipped, ...kept().map((one) => one.row)];
    const { asked } = await json(`/next?count=${AHEAD}&held=${held}`);
    // Meanwhile photos may have been answered.
    const here = new Set([...(current ? [current.row] : []), ...unsent(), ...skipped, ...kept().map((one) => one.row)]);
    const fresh = asked.filter((one) => !here.has(one.row));
    for (const one of fresh) one.image = picture(one.row, 1024);
    ahead = [...kept(), ...fresh];
    version = Math.max(version, ...ahead.map((one) => one.version));
  } catch (error) { say(lost()); }
  filling = false;
  if (!current && !grid) show(ahead.shift());
}

// A grid for one label

async function showGrid(column) {
  $("mode").value = column === null ? "" : String(column);
  $("mode").blur();
  $("many").hidden = column === null;
  if (column === null) { grid = null; show(current ?? ahead.shift()); fill(true); return; }
  $("one").hidden = true;
  grid = { column, asked: [], marks: [] };
  const unsent = new Set(waiting.flatMap((one) => one.rows));
  try {
    const { asked } = await json(`/grid?label=${column}&count=${TILES + unsent.size}`);
    if (grid?.column === column) fillGrid(asked.filter((one) => !unsent.has(one.row)).slice(0, TILES));
  } catch (error) { say(lost()); }
}

function fillGrid(asked, again) {
  grid.asked = asked;
  grid.marks = again ? [...again] : asked.map((one) => likely(one, grid.column) ? ON : OFF);
  cursor = 0;
  $("asked").textContent = labels[grid.column].text;
  $("done").hidden = asked.length > 0;
  $("many").hidden = asked.length === 0;
  $("done").textContent = `Every photo was asked about for ${labels[grid.column].text}; P goes back to the photos.`;
  for (const one of asked) one.tile ??= picture(one.row, 320);
  listTiles();
  shownAt = performance.now();
}

function listTiles() {
  $("tiles").replaceChildren(...grid.asked.map((one, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "tile" + (place === cursor ? " cursor" : "");
    button.dataset.mark = grid.marks[place];
    button.setAttribute("aria-pressed", grid.marks[place] === ON ? "true" : grid.marks[place] === OFF ? "false" : "mixed");
    const hint = document.createElement("span");
    hint.className = "key";
    hint.textContent = [KEYS[place], percent(one, grid.column)].filter(Boolean).join(" · ");
    one.tile.alt = one.name;
    button.append(one.tile, hint);
    button.onclick = () => { cursor = place; toggleTile(); };
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
}

function toggleTile(to) {
  const mark = grid.marks[cursor];
  grid.marks[cursor] = to === undefined ? (mark === ON ? OFF : ON) : mark === to ? OFF : to;
  listTiles();
}

function confirmGrid() {
  if (!grid.asked.length) return;
  const key = labels[grid.column].key, each = seconds() / grid.asked.length;
  const answers = grid.asked.map((one, place) => ({
    id: identifier(), path: one.name, marks: { [key]: grid.marks[place] }, suggested: suggestions(one, [grid.column]), seconds: each, chosen: "grid",
  }));
  confirmed.push({ ids: answers.map((one) => one.id), grid: { ...grid } });
  send("/answers", { answers }, grid.asked.map((one) => one.row));
  showGrid(grid.column);
}

// Keeping

function undo() {
  const last = confirmed.pop();
  if (!last) {
    if (!waiting.length) send("/undo", { ids: [] }, [], (answer) => { if (answer.again) { putBack(); grid = null; $("many").hidden = true; show(answer.again); } });
    return;
  }
  send("/undo", { ids: last.ids }, []);
  if (last.grid) {
    putBack();
    current = null;
    $("one").hidden = true;
    grid = last.grid;
    $("mode").value = String(grid.column);
    fillGrid(grid.asked, grid.marks);
    return;
  }
  putBack();
  grid = null;
  $("mode").value = "";
  $("many").hidden = true;
  show(last.asked, last.marks);
}

function putBack() { if (current) ahead.unshift(current); }

function send(url, body, rows, then) {
  waiting.push({ url, body: JSON.stringify(body), rows, then });
  drain();
}

async function drain() {
  if (sending) return;
  sending = true;
  while (waiting.length) {
    const { url, body, then } = waiting[0];
    try {
      const answer = await fetch(url, { method: "POST", body, headers: { "content-type": "application/json" } });
      if (!answer.ok) throw new Error(await answer.text());
      const content = await answer.json();
      waiting.shift();
      say("");
      look(content.progress);
      then?.(content);
    } catch (error) {
      say(error instanceof TypeError ? lost() : `${error.message} ${unkept()}`);
      await new Promise((go) => setTimeout(go, RETRY_MS));
    }
  }
  sending = false;
}

const unkept = () => waiting.length ? `${waiting.length} not kept yet; they wait here, and are tried again.` : "";
const lost = () => `The review does not answer; start it again with the same command. ${unkept()}`;
window.addEventListener("beforeunload", (event) => { if (waiting.length) event.preventDefault(); });

function look(now) {
  progress = now;
  identity ??= now.identity;
  // Photos or labels were added or removed while the review was stopped: all numbers here are of other ones.
  if (now.identity !== identity) { if (!waiting.length) location.reload(); return; }
  const minutes = Math.round(now.seconds / 60), judged = now.judged;
  const parts = [`${now.answered.toLocaleString()} of ${now.photos.toLocaleString()} photos`, minutes ? `${minutes} min` : ""];
  if (judged.photos >= 5) parts.push(`on the last ${judged.photos} photos drawn at random ${judged.right} of ${judged.suggested} suggestions were right, ${judged.missed} labels were missed`);
  if (now.photos_read !== null && !now.trouble) parts.push(`the model has read ${now.photos_read.toLocaleString()} and suggests when it has read all`);
  else if (now.learning) parts.push("learning …");
  else if (now.learned_from) parts.push(`learned from ${now.learned_from} answers`);
  if (now.trouble) parts.push(now.trouble);
  $("progress").textContent = parts.filter(Boolean).join("; ");
  for (const [column, option] of [...$("mode").options].slice(1).entries()) option.textContent = `${labels[column].text} (${now.present[column]} of ${now.asked[column]})`;
  if (version >= 0 && now.version > version) { version = now.version; fill(true); }
}

// Keys

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const typing = document.activeElement === $("search");
  if (typing) {
    if (event.key === "Escape") { $("search").value = ""; listLabels(); $("search").blur(); }
    else if (event.key === "Enter") {
      event.preventDefault();
      const found = [...$("labels").children].findIndex((item) => !item.hidden);
      $("search").value = "";
      $("search").blur();
      if (found >= 0) { cursor = found; toggle(); } else listLabels();
    }
    return;
  }
  if (document.activeElement === $("mode")) return;
  const key = event.key, place = KEYS.indexOf(key), count = grid ? grid.asked.length : Math.min(10, labels.length);
  if (place >= 0 && key.length === 1) { if (place < count) { cursor = place; grid ? toggleTile() : current && toggle(); } }
  else if (key === "Enter") grid ? confirmGrid() : confirm();
  else if (key === "Backspace") undo();
  else if (key === "ArrowDown" || key === "ArrowUp" || key === "ArrowRight" || key === "ArrowLeft") {
    const step = key === "ArrowDown" || key === "ArrowRight" ? 1 : -1, all = grid ? grid.asked.length : labels.length;
    cursor = (cursor + step + all) % Math.max(all, 1);
    grid ? listTiles() : current && listLabels();
  }
  else if (key === " ") grid ? toggleTile() : current && toggle();
  else if (key === "u" || key === "U") grid ? toggleTile(UNKNOWN) : current && toggle(UNKNOWN);
  else if ((key === "s" || key === "S") && !grid) skip();
  else if ((key === "m" || key === "M") && !grid) showMap();
  else if (key === "g" || key === "G") $("mode").focus();
  else if (key === "p" || key === "P") showGrid(null);
  else if (key === "/" && !grid) $("search").focus();
  else if (key === "?") $("help").showModal();
  else return;
  event.preventDefault();
}

$("search").oninput = () => current && listLabels();
$("confirm").onclick = confirm;
$("confirm-many").onclick = confirmGrid;
$("skip").onclick = skip;
$("map").onclick = showMap;
$("undo").onclick = undo;
$("help-button").onclick = () => $("help").showModal();
$("mode").onchange = () => showGrid($("mode").value === "" ? null : Number($("mode").value));
document.addEventListener("keydown", press);

const state = await json("/state");
labels = state.labels;
$("folder").textContent = state.folder;
document.title = `SSPA: review of ${state.folder}`;
$("mode").append(...labels.map((label, column) => new Option(label.text, String(column))));
look(state.progress);
await fill();
setInterval(async () => {
  if (waiting.length) return;
  try { look((await json("/state")).progress); if (!current && !grid) fill(); } catch (error) { say(lost()); }
}, LOOK_MS);
