// The page of "slimdiffsr view". Places in the world are [u, v], right and down, each in [0, 1];
// the map's longitudes and latitudes stand for them, and mean something under a basemap only.
const facts = JSON.parse(document.getElementById("scene").textContent);
const $ = (id) => document.getElementById(id);
const EMBEDDED = facts.images !== undefined;
const TILE_PX = 512, EARTH_M = 2 * Math.PI * 6378137;
const SIDES = ["left", "right"];
const WORLD_LR_PX = TILE_PX * 2 ** facts.zoom;

const lib = { ...(await import(asset("vendor/maplibre-gl.mjs"))) };
lib.setWorkerUrl(asset("vendor/maplibre-gl-worker.mjs"));
window.maplibregl = lib; // where the compare control puts itself
await new Promise((done, fail) => {
  const script = Object.assign(document.createElement("script"), { onload: done, onerror: fail });
  script.src = asset("vendor/maplibre-gl-compare.js");
  document.head.append(script);
});

function asset(name) {
  const inlined = $(name);
  if (!inlined) return new URL(name, location.href).href;
  const bytes = Uint8Array.from(atob(inlined.textContent), (c) => c.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
}

// State: all that a link keeps

const layers = new Map(facts.layers.map((layer) => [layer.name, layer]));
const unsure = facts.uncertainty;
if (unsure) layers.set(unsure.name, unsure);
const names = [...layers.keys()];
const beginning = {
  left: names[0], right: facts.layers[Math.min(1, facts.layers.length - 1)].name,
  bands: [...facts.seen], low: facts.range[0], high: facts.range[1], gamma: 1,
  opacity: 0, pixels: "nearest", swipe: 0.5,
};
const state = { ...beginning, bands: [...beginning.bands] };
const maps = {};
let compare, writing = false;

const toLngLat = (u, v) => new lib.MercatorCoordinate(u, v, 0).toLngLat();
function toWorld(lngLat) {
  const { x, y } = lib.MercatorCoordinate.fromLngLat(lngLat);
  return [x, y];
}
const toPixel = ([u, v]) => [(u - 0.5) * WORLD_LR_PX, (v - 0.5) * WORLD_LR_PX];

function lngLatBounds([left, top, right, bottom]) {
  const [a, b] = [toLngLat(left, bottom), toLngLat(right, top)];
  return [a.lng, a.lat, b.lng, b.lat];
}

function writeLink() {
  if (writing) return;
  const centre = toWorld(maps.left.getCenter());
  const at = facts.on_map ? centre.map((n) => n.toFixed(9)) : toPixel(centre).map((n) => n.toFixed(2));
  const words = new URLSearchParams({
    at: at.join(","), zoom: (maps.left.getZoom() - facts.zoom).toFixed(3), left: state.left,
    right: state.right, bands: state.bands.join(","), stretch: `${state.low},${state.high},${state.gamma}`,
    uncertainty: state.opacity, pixels: state.pixels, swipe: state.swipe.toFixed(4),
  });
  history.replaceState(null, "", `#${words}`);
}

function readLink() {
  const words = new URLSearchParams(location.hash.slice(1));
  const numbers = (key) => (words.get(key) ?? "").split(",").map(Number);
  for (const side of SIDES) if (layers.has(words.get(side))) state[side] = words.get(side);
  const known = new Set(facts.bands.map((band) => band.number));
  const bands = numbers("bands");
  if ([1, 3].includes(bands.length) && bands.every((band) => known.has(band))) state.bands = bands;
  const [low, high, gamma] = numbers("stretch");
  if (low < high && gamma > 0) Object.assign(state, { low, high, gamma });
  if (words.get("pixels") === "linear") state.pixels = "linear";
  for (const [key, name] of [["uncertainty", "opacity"], ["swipe", "swipe"]]) {
    if (words.has(key)) state[name] = Math.min(1, Math.max(0, Number(words.get(key)) || 0));
  }
  const at = numbers("at");
  if (at.length !== 2 || !at.every(Number.isFinite)) return null;
  const [u, v] = facts.on_map ? at : at.map((n) => n / WORLD_LR_PX + 0.5);
  return { center: toLngLat(u, v), zoom: facts.zoom + (Number(words.get("zoom")) || 0) };
}
