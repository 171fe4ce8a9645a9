"use strict";

// Tables: a heading sorts, best first, and again the other way round.
for (const table of document.querySelectorAll("table")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const first = heading.dataset.first;
    const now = heading.getAttribute("aria-sort");
    const next = now === null ? first : now === "ascending" ? "descending" : "ascending";
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].dataset.value ?? "";
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // empty cells stay last
      const order = column === 0 ? x.localeCompare(y) : Number(x) - Number(y);
      return sign * order;
    });
    table.tBodies[0].append(...rows);
  }));
}

// Pictures: what a card shows is read when it comes near the window, and dropped when it leaves.
const sources = [...document.querySelectorAll("script.picture")];
const left = document.getElementById("left");
const right = document.getElementById("right");
const cards = document.getElementById("cards");
const names = JSON.parse(document.getElementById("names").textContent);
for (const name of names) {
  left.add(new Option(name));
  right.add(new Option(name));
}
left.value = names[0];
right.value = names[names.length > 2 ? 1 : names.length - 1];

const made = sources.map((source) => {
  const card = document.createElement("figure");
  card.className = "card";
  card.innerHTML =
    '<div class="compare"><img class="left" alt=""><img class="right" alt="">' +
    '<span class="name of-left"></span><span class="name of-right"></span>' +
    '<input type="range" min="0" max="100" step="1" value="50"></div>' +
    '<figcaption><b></b><span class="of-left"></span><span class="of-right"></span></figcaption>';
  const compare = card.querySelector(".compare");
  const range = card.querySelector("input");
  compare.style.aspectRatio = `${source.dataset.width} / ${source.dataset.height}`;
  card.querySelector("b").textContent = source.dataset.title;
  range.setAttribute("aria-label", `${source.dataset.title}: where left ends and right begins, in percent`);
  range.addEventListener("input", () => compare.style.setProperty("--at", `${range.value}%`));
  card.source = source;
  cards.append(card);
  return card;
});

function show(card) {
  const picture = JSON.parse(card.source.textContent);
  for (const [side, select] of [["left", left], ["right", right]]) {
    const name = select.value;
    const image = card.querySelector(`img.${side}`);
    const found = picture.images[name];
    image.classList.toggle("squares", found !== undefined && found.width < card.clientWidth);
    image.alt = found === undefined ? `${name}: not there` : `${picture.title} by ${name}`;
    if (found === undefined) image.removeAttribute("src");
    else image.src = found.src;
    card.querySelector(`.name.of-${side}`).textContent = name;
    const scores = found === undefined ? "not there" : found.scores;
    card.querySelector(`figcaption .of-${side}`).textContent = scores ? `${name}: ${scores}` : "";
  }
  card.shown = true;
}

function drop(card) {
  for (const image of card.querySelectorAll("img")) image.removeAttribute("src");
  card.shown = false;
}

const watcher = new IntersectionObserver(
  (entries) => entries.forEach((entry) => (entry.isIntersecting ? show : drop)(entry.target)),
  { rootMargin: "600px" },
);
made.forEach((card) => watcher.observe(card));
for (const select of [left, right]) {
  select.addEventListener("change", () => made.filter((card) => card.shown).forEach(show));
}

const find = document.getElementById("find");
find.addEventListener("input", () => {
  const wanted = find.value.trim().toLowerCase();
  for (const card of made) card.hidden = !card.source.dataset.title.toLowerCase().includes(wanted);
  document.getElementById("none").hidden = made.some((card) => !card.hidden);
});
document.querySelector("form.choice").addEventListener("submit", (event) => event.preventDefault());
