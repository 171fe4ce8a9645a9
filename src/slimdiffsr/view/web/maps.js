// Maps

function makeMap(side, place) {
  const style = {
    version: 8, sources: {},
    layers: [{ id: "ground", type: "background", paint: { "background-color": "#26282b" } }],
  };
  if (facts.basemap) {
    style.sources.basemap = { type: "raster", tiles: [facts.basemap.tiles], tileSize: 256, maxzoom: 19, attribution: facts.basemap.credit };
    style.layers.push({ id: "basemap", type: "raster", source: "basemap" });
  }
  const deepest = Math.max(...[...layers.values()].map((layer) => layer.maxzoom));
  const map = new lib.Map({
    container: `map-${side}`, style, maxZoom: deepest + 5, renderWorldCopies: false,
    attributionControl: facts.basemap && side === "right" ? { compact: false } : false,
    dragRotate: false, pitchWithRotate: false, touchPitch: false, maxPitch: 0, fadeDuration: 0,
    canvasContextAttributes: { preserveDrawingBuffer: true },
    ...(place ?? { bounds: lngLatBounds(facts.start), fitBoundsOptions: { padding: 24 } }),
  });
  map.touchZoomRotate.disableRotation();
  map.keyboard.disableRotation();
  return map;
}

function lacking(name) {
  if (unsure && name === unsure.name) return [];
  return state.bands.filter((band) => !(band in layers.get(name).bands));
}

function sourceOf(name) {
  if (EMBEDDED) {
    const [left, top, right, bottom] = facts.bounds;
    const corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
    return {
      type: "image", url: facts.images[name],
      coordinates: corners.map(([u, v]) => toLngLat(u, v).toArray()),
    };
  }
  const { bands, low, high, gamma } = state;
  const how = new URLSearchParams({ layer: name, bands, low, high, gamma });
  return {
    type: "raster", tileSize: TILE_PX, maxzoom: layers.get(name).maxzoom, bounds: lngLatBounds(facts.bounds),
    tiles: [`${new URL("tiles/", location.href.split("#")[0])}{z}/{x}/{y}.png?${how}`],
  };
}

function put(map, id, name, opacity) {
  if (map.getLayer(id)) map.removeLayer(id);
  if (map.getSource(id)) map.removeSource(id);
  if (name === null || lacking(name).length) return;
  map.addSource(id, sourceOf(name));
  map.addLayer({
    id, type: "raster", source: id,
    paint: { "raster-fade-duration": 0, "raster-resampling": state.pixels, "raster-opacity": opacity },
  });
}

function draw() {
  for (const side of SIDES) {
    put(maps[side], "scene", state[side], 1);
    const covers = unsure && state.opacity > 0 && state[side] !== unsure.name;
    put(maps[side], "unsure", covers ? unsure.name : null, state.opacity);
  }
  tell();
  writeLink();
}



function makeSwipe() {
  compare = new lib.Compare(maps.left, maps.right, "#compare", {});
  const knob = document.querySelector(".compare-swiper-vertical");
  const place = (share) => {
    state.swipe = Math.min(1, Math.max(0, share));
    const width = $("compare").clientWidth;
    compare.setSlider(state.swipe * width);
    knob.setAttribute("aria-valuenow", Math.round(100 * state.swipe));
    writeLink();
  };
  for (const [key, value] of Object.entries({ role: "slider", tabindex: 0, "aria-label": "Swipe", "aria-valuemin": 0, "aria-valuemax": 100 })) {
    knob.setAttribute(key, value);
  }
  compare.on("slideend", ({ currentPosition }) => place(currentPosition / $("compare").clientWidth));
  knob.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -0.01, ArrowRight: 0.01, Home: -1, End: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    place(state.swipe + step);
  });
  new ResizeObserver(() => {
    for (const side of SIDES) maps[side].resize();
    place(state.swipe);
  }).observe($("compare"));
  place(state.swipe);
  return place;
}
