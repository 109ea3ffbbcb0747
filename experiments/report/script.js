"use strict";
// Sorting: numbers by data-value, with what is not a number last; text by its letters.
function key(cell) {
  const value = cell.dataset.value;
  return value === undefined ? cell.textContent.trim() : value === "inf" ? Infinity : value === "-inf" ? -Infinity : Number(value);
}
function compare(a, b) {
  if (typeof a === "string") return a.localeCompare(b);
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return a < b ? -1 : a > b ? 1 : 0;
}
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const rising = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const rows = Array.from(body.rows, (row) => [key(row.cells[head.cellIndex]), row]);
    const there = rows.filter(([value]) => !Number.isNaN(value)).sort(([a], [b]) => compare(a, b));
    const absent = rows.filter(([value]) => Number.isNaN(value));
    if (!rising) there.reverse();
    body.append(...[...there, ...absent].map(([, row]) => row));
  });
}
// The filter: a row stays if it has all words.
for (const input of document.querySelectorAll(".filter input")) {
  const rows = Array.from(document.getElementById(input.dataset.table).tBodies[0].rows, (row) => [row.textContent.toLowerCase(), row]);
  const count = input.closest(".filter").querySelector("output");
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let kept = 0;
    for (const [text, row] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      kept += !row.hidden;
    }
    count.textContent = `${kept} of ${rows.length} runs`;
  };
  input.addEventListener("input", filter);
  filter();
}
