"use strict";
(() => {
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const all = document.getElementById("all-points");
  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");

  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const wanted = (all.checked || !row.classList.contains("more")) &&
        words.every((word) => row.dataset.words.includes(word));
      row.hidden = !wanted;
      count += wanted;
    }
    shown.textContent = `${count} of ${rows.length} rows`;
  }

  function value(row, column) {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return a.localeCompare(b, "en", { numeric: true });
  }

  // Empty cells stay last in either direction; equal ones keep the order of the file.
  function sort(column, direction) {
    const keyed = rows.map((row, place) => ({ row, place, key: value(row, column) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
      return direction * compare(a.key, b.key) || a.place - b.place;
    });
    body.append(...keyed.map((item) => item.row));
  }

  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      sort(column, up ? 1 : -1);
    });
  });
  all.addEventListener("change", show);
  filter.addEventListener("input", show);
  show();
})();
