// Words and controls

const bandName = (number) => facts.bands.find((band) => band.number === number)?.name ?? "";
const round = (value) => (Number.isInteger(value) ? `${value}` : Number(value.toPrecision(5)).toString());

function tell() {
  for (const side of SIDES) {
    $(side).value = state[side];
    const missing = lacking(state[side]);
    const small = document.createElement("small");
    small.className = missing.length ? "lacks" : "";
    small.textContent = missing.length ? `has no band ${missing.join(", ")} of the input` : layers.get(state[side]).facts;
    $(`name-${side}`).replaceChildren(state[side], small);
  }
  $("low").value = state.low;
  $("high").value = state.high;
  $("gamma").value = state.gamma;
  $("gamma-told").value = state.gamma.toFixed(2);
  $("opacity").value = state.opacity;
  $("opacity-told").value = `${Math.round(100 * state.opacity)} %`;
  for (const [k, select] of [...$("bands").querySelectorAll("select")].entries()) select.value = state.bands[k];
  for (const radio of document.getElementsByName("pixels")) radio.checked = radio.value === state.pixels;
  headTable();
}

function say(text) {
  $("told").textContent = text;
  $("told").classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => $("told").classList.remove("shown"), 4000);
}

function makeControls() {
  for (const side of SIDES) {
    $(side).append(...names.map((name) => new Option(name, name)));
    $(side).onchange = () => { state[side] = $(side).value; draw(); };
  }
  const colours = facts.seen.length === 3 ? ["Red", "Green", "Blue"] : ["Grey"];
  for (const [k, colour] of colours.entries()) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.append(...facts.bands.map((band) => new Option(`${band.number} ${band.name}`.trim(), band.number)));
    select.onchange = () => { state.bands[k] = Number(select.value); draw(); };
    const word = document.createElement("span");
    word.textContent = colour;
    label.append(word, select);
    $("bands").append(label);
  }
  for (const key of ["low", "high"]) $(key).onchange = () => restretch({ [key]: $(key).valueAsNumber });
  $("gamma").onchange = () => restretch({ gamma: $("gamma").valueAsNumber });
  $("gamma").oninput = () => { $("gamma-told").value = $("gamma").valueAsNumber.toFixed(2); };
  $("reset").onclick = () => {
    const { bands, gamma } = beginning;
    Object.assign(state, { bands: [...bands], gamma, low: facts.own_range[0], high: facts.own_range[1] });
    draw();
  };
  $("opacity").oninput = () => { state.opacity = $("opacity").valueAsNumber; cover(); };
  for (const radio of document.getElementsByName("pixels")) {
    radio.onchange = () => { state.pixels = radio.value; draw(); };
  }
  if (EMBEDDED) for (const id of ["bands-set", "stretch-set"]) $(id).hidden = true;
  if (unsure) drawLegend();
  const actions = {
    in: () => maps.left.zoomIn(), out: () => maps.left.zoomOut(), swap, fit, "true-size": trueSize, link: copyLink, save: savePicture, more: togglePanel,
  };
  for (const [id, action] of Object.entries(actions)) $(id).onclick = action;
  const keys = { x: swap, f: fit, 1: trueSize, l: copyLink, s: savePicture, p: togglePanel };
  document.addEventListener("keydown", (event) => {
    const typing = /INPUT|SELECT/.test(event.target.tagName);
    if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey) keys[event.key.toLowerCase()]?.();
  });
}

function restretch(change) {
  const next = { ...state, ...change };
  if (!(next.low < next.high)) say("White must be above black.");
  else Object.assign(state, change);
  draw();
}

function cover() {
  // Only how strong it is: the pictures stay, so that the slider follows the hand.
  for (const side of SIDES) {
    if (maps[side].getLayer("unsure") && state.opacity > 0) maps[side].setPaintProperty("unsure", "raster-opacity", state.opacity);
    else return draw();
  }
  tell();
  writeLink();
}

function drawLegend() {
  $("unsure-set").hidden = false;
  const pen = $("ramp").getContext("2d");
  const ramp = pen.createLinearGradient(0, 0, 256, 0);
  unsure.colours.forEach((rgb, k) => ramp.addColorStop(k / (unsure.colours.length - 1), `rgb(${rgb})`));
  pen.fillStyle = ramp;
  pen.fillRect(0, 0, 256, 1);
  const short = (value) => Number(value.toPrecision(3)).toString();
  $("unsure-low").textContent = short(unsure.low);
  $("unsure-high").textContent = `≥ ${short(unsure.high)}`;
  $("unsure-unit").textContent = unsure.unit;
}

function swap() {
  [state.left, state.right] = [state.right, state.left];
  draw();
}

function fit() {
  maps.left.fitBounds(lngLatBounds(facts.bounds), { padding: 24, duration: 300 });
}

function trueSize() {
  const layer = layers.get(state.right);
  maps.left.easeTo({ zoom: layer.maxzoom - Math.log2(devicePixelRatio), duration: 300 });
}

async function copyLink() {
  writeLink();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The address of this view is copied.");
  } catch {
    say("The address bar holds the address of this view.");
  }
}

function togglePanel() {
  const open = $("panel").hidden;
  $("panel").hidden = !open;
  $("more").setAttribute("aria-expanded", open);
  document.body.classList.toggle("panel-open", open);
}
