// Scale and picture

function scaleBar() {
  const zoom = maps.left.getZoom();
  const latitude = (maps.left.getCenter().lat * Math.PI) / 180;
  const perPx = facts.on_map
    ? (EARTH_M * Math.cos(latitude)) / TILE_PX / 2 ** zoom
    : (facts.metres_per_lr_px ?? 1) * 2 ** (facts.zoom - zoom);
  const most = 140 * perPx;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((n) => n * power).find((n) => n <= most) ?? power;
  const inMetres = facts.on_map || facts.metres_per_lr_px;
  const words = !inMetres ? `${round(length)} input pixels`
    : length >= 1000 ? `${round(length / 1000)} km` : length >= 1 ? `${round(length)} m` : `${round(length * 100)} cm`;
  return { width: length / perPx, words };
}

function drawScale() {
  const { width, words } = scaleBar();
  $("scale-told").textContent = words;
  $("scale-bar").style.width = `${width}px`;
}

function savePicture() {
  const [left, right] = SIDES.map((side) => maps[side].getCanvas());
  const canvas = Object.assign(document.createElement("canvas"), { width: left.width, height: left.height });
  const pen = canvas.getContext("2d");
  const dot = left.width / left.clientWidth; // pixels of the screen for each of CSS
  const at = compare.currentPosition * dot;
  pen.drawImage(left, 0, 0);
  pen.drawImage(right, at, 0, right.width - at, right.height, at, 0, right.width - at, right.height);
  pen.fillStyle = "#fff";
  pen.fillRect(at - dot, 0, 2 * dot, canvas.height);
  pen.scale(dot, dot);
  pen.font = "14px system-ui, sans-serif";
  const [wide, high] = [left.clientWidth, left.clientHeight];
  caption(pen, state.left, 12, 12, "left");
  caption(pen, state.right, wide - 12, 12, "right");
  const { width, words } = scaleBar();
  caption(pen, words, wide - 12, high - 46, "right", Math.max(width, 60));
  pen.fillStyle = "#fff";
  pen.fillRect(wide - 20 - width, high - 18, width, 3);
  if (unsure && (state.opacity > 0 || SIDES.some((side) => state[side] === unsure.name))) {
    caption(pen, `uncertainty ${round(unsure.low)} to ${round(unsure.high)} ${unsure.unit}`, 12, high - 46, "left", 200);
    pen.drawImage($("ramp"), 20, high - 20, 200, 6);
  }
  if (facts.basemap) caption(pen, facts.basemap.credit, wide / 2, high - 34, "center");
  canvas.toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob) });
    link.download = `${facts.title.replace(/\.\w+$/, "").replace(/[^\w.-]+/g, "_")}_view.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    say(`Saved as ${link.download}.`);
  });
}

function caption(pen, text, x, y, align, least = 0) {
  const width = Math.max(pen.measureText(text).width, least) + 16;
  const left = align === "left" ? x : align === "right" ? x - width : x - width / 2;
  pen.fillStyle = "rgb(24 25 27 / 85%)";
  pen.fillRect(left, y, width, least ? 36 : 24);
  pen.fillStyle = "#fff";
  pen.textAlign = "left";
  pen.fillText(text, left + 8, y + 17);
}
