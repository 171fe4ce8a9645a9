// Under the pointer

function headTable() {
  const head = document.createElement("tr");
  head.append(document.createElement("th"), ...state.bands.map((band) => cell("th", bandName(band) || `band ${band}`)));
  $("values").querySelector("thead").replaceChildren(head);
}

const cell = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
const shown = (value) => (value === null || value === undefined ? "–" : round(value));

function fillTable({ col, row, values, xy, lonlat, rounded }) {
  const rows = Object.entries(values).map(([name, found]) => {
    const line = document.createElement("tr");
    const unit = unsure && name === unsure.name ? ` (${unsure.unit})` : "";
    const cells = found.map((value) => cell("td", (rounded && value !== null ? "≈ " : "") + shown(value)));
    line.append(cell("th", name + unit), ...cells);
    return line;
  });
  $("values").querySelector("tbody").replaceChildren(...rows);
  const words = [`pixel ${Math.floor(col)}, ${Math.floor(row)}`];
  if (xy) words.push(`${facts.crs} ${xy.map((n) => n.toFixed(Math.abs(n) > 1000 ? 2 : 6)).join(", ")}`.trim());
  if (lonlat) words.push(`${Math.abs(lonlat[1]).toFixed(6)}° ${lonlat[1] < 0 ? "S" : "N"}, ${Math.abs(lonlat[0]).toFixed(6)}° ${lonlat[0] < 0 ? "W" : "E"}`);
  $("where").textContent = words.join("  ·  ");
}

let asking = false, waiting = null;
async function ask(place) {
  waiting = place;
  if (asking) return;
  asking = true;
  while (waiting) {
    const [u, v] = waiting;
    waiting = null;
    try {
      const answer = EMBEDDED ? readPictures(u, v) : await fetchValues(u, v);
      fillTable(answer);
    } catch {
      say("The server does not answer: was slimdiffsr view stopped?");
    }
  }
  asking = false;
}

async function fetchValues(u, v) {
  const words = new URLSearchParams({ u, v, bands: state.bands });
  const answer = await fetch(`values?${words}`);
  return answer.json();
}

const pictures = new Map(); // of an embedded page: name -> {pen, width, height}
async function loadPictures() {
  for (const { name } of facts.layers) {
    const image = new Image();
    image.src = facts.images[name];
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(image, 0, 0);
    pictures.set(name, { pen, width: image.width, height: image.height });
  }
}

function readPictures(u, v) {
  const [left, top, right, bottom] = facts.bounds;
  const [across, down] = [(u - left) / (right - left), (v - top) / (bottom - top)];
  const span = facts.range[1] - facts.range[0];
  const values = {};
  for (const [name, { pen, width, height }] of pictures) {
    const [...rgba] = pen.getImageData(Math.floor(across * width), Math.floor(down * height), 1, 1).data;
    const clear = rgba[3] === 0;
    values[name] = state.bands.map((_, k) => (clear ? null : facts.range[0] + (rgba[k] / 255) * span));
  }
  const between = (key) => {
    const [a, b, c] = facts.ground.map((corner) => corner[key]);
    return a && b && c && a.map((n, k) => n + across * (b[k] - n) + down * (c[k] - n));
  };
  const [col, row] = toPixel([u, v]);
  return { col, row, values, xy: between("xy"), lonlat: between("lonlat"), rounded: span !== 255 };
}
