"use strict";
// Every table of the page: sort by a heading, filter, download as CSV, copy as LaTeX.
(() => {
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
  function sort(table, rows, column, direction) {
    const keyed = rows.map((row, place) => ({ row, place, key: value(row, column) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
      return direction * compare(a.key, b.key) || a.place - b.place;
    });
    table.tBodies[0].append(...keyed.map((item) => item.row));
  }

  const words = (cell) => cell.textContent.trim().replace(/\s+/g, " ");

  function cells(table) {
    const rows = [table.tHead.rows[0], ...Array.from(table.tBodies[0].rows).filter((row) => !row.hidden)];
    return rows.map((row) => Array.from(row.cells));
  }

  function csv(table) {
    // An apostrophe before what a spreadsheet would take for a formula, as in the CSV files of the folder.
    const inert = (text) => (/^'*[=+\-@\t\r\n]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text);
    const quote = (text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
    return cells(table).map((row) => row.map((cell) => quote(inert(cell.dataset.value || words(cell)))).join(",")).join("\n") + "\n";
  }

  function latex(table) {
    const signs = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" };
    const escape = (text) => text.replace(/[\\~^&%$#_{}]/g, (c) => signs[c] ?? `\\${c}`)
      .replace(/±/g, "$\\pm$").replace(/[–−]/g, "--").replace(/≥/g, "$\\geq$").replace(/≤/g, "$\\leq$")
      .replace(/[<>|]/g, "$$$&$$").replace(/(^|\s)-(?=\d)/g, "$1$$-$$");
    const [head, ...body] = cells(table);
    const align = head.map((cell) => (cell.classList.contains("text") ? "l" : "r")).join("");
    const line = (row) => `  ${row.map((cell) => escape(words(cell))).join(" & ")} \\\\`;
    return ["% needs \\usepackage{booktabs}", `\\begin{tabular}{${align}}`, "  \\toprule", line(head), "  \\midrule",
      ...body.map(line), "  \\bottomrule", "\\end{tabular}", ""].join("\n");
  }

  function offer(name, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = `${name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // The text is shown as well: a browser may refuse the clipboard to a page from a disk.
  async function copy(section, text, button) {
    let box = section.querySelector("textarea.copied");
    if (!box) {
      box = document.createElement("textarea");
      box.className = "copied";
      box.readOnly = true;
      box.rows = 6;
      box.setAttribute("aria-label", "The table as LaTeX");
      section.querySelector(".controls").after(box);
    }
    box.value = text;
    box.select();
    let copied = false;
    try {
      await navigator.clipboard.writeText(text);
      copied = true;
    } catch {
      copied = document.execCommand("copy");
    }
    button.textContent = copied ? "Copied" : "Select and copy below";
    setTimeout(() => { button.textContent = "Copy as LaTeX"; }, 2500);
  }

  function liven(section) {
    const table = section.querySelector("table");
    const rows = Array.from(table.tBodies[0].rows);
    const all = section.querySelector("input[type=checkbox]");
    const filter = section.querySelector("input[type=search]");
    const shown = section.querySelector("[role=status]");

    function show() {
      const wanted = filter ? filter.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
      let count = 0;
      for (const row of rows) {
        const text = row.dataset.words ?? words(row).toLowerCase();
        row.hidden = !((!all || all.checked || !row.classList.contains("more")) && wanted.every((w) => text.includes(w)));
        count += !row.hidden;
      }
      if (shown) shown.textContent = `${count} of ${rows.length} rows`;
    }

    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        sort(table, rows, column, up ? 1 : -1);
      });
    });
    all?.addEventListener("change", show);
    filter?.addEventListener("input", show);
    section.querySelector("button.csv")?.addEventListener("click", () => offer(section.id, csv(table)));
    const button = section.querySelector("button.latex");
    button?.addEventListener("click", () => copy(section, latex(table), button));
    show();
  }

  // A part that is wider than the page says so: a shadow where it goes on, and a line of words above it.
  function hint(part) {
    const line = document.createElement("p");
    line.className = "hint";
    part.before(line);
    function look() {
      const left = part.scrollLeft > 1;
      const right = part.scrollLeft + part.clientWidth < part.scrollWidth - 1;
      part.classList.toggle("more-left", left);
      part.classList.toggle("more-right", right);
      const heads = part.querySelector("thead")?.rows[0].cells ?? [];
      const edge = part.getBoundingClientRect().right;
      const cut = Array.from(heads).filter((head) => head.getBoundingClientRect().right > edge + 1).length;
      line.hidden = !left && !right;
      line.textContent = right ? `${cut ? `${cut} more column${cut > 1 ? "s" : ""}` : "More"} to the right: scroll \u2192` : "\u2190 scroll back";
    }
    part.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(part);
    part.closest("details")?.addEventListener("toggle", look);
    look();
  }

  document.querySelectorAll("section.data").forEach(liven);
  document.querySelectorAll(".scroll").forEach(hint);
})();
