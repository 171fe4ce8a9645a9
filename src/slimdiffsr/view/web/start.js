// The beginning
function start() {
  const place = readLink();
  writing = true;
  for (const side of SIDES) maps[side] = makeMap(side, place);
  makeControls();
  document.body.classList.add("panel-open");
  for (const side of SIDES) {
    maps[side].on("mousemove", (event) => ask(toWorld(event.lngLat)));
    maps[side].on("error", ({ error }) => say(error?.message ?? "A tile could not be read."));
  }
  const setSwipe = makeSwipe();
  window.addEventListener("hashchange", () => {
    writing = true;
    const there = readLink();
    if (there) maps.left.jumpTo(there);
    writing = false;
    setSwipe(state.swipe);
    draw();
  });
  return Promise.all(SIDES.map((side) => new Promise((done) => maps[side].once("load", done))));
}

try {
  const loaded = start();
  if (EMBEDDED) await loadPictures();
  await loaded;
  writing = false;
  draw();
  drawScale();
  maps.left.on("move", drawScale);
  maps.left.on("moveend", writeLink);
  document.body.dataset.ready = "yes";
} catch (error) {
  say(`The map needs WebGL, and this browser has none for it (${error.message}).`);
  throw error;
}
