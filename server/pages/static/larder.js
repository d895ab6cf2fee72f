// What pages do beyond links and forms: copy code, and light up the lineage of a node. Pages work without it.
"use strict";

for (const button of document.querySelectorAll("button.copy")) {
  // Clipboards are for private or local connections only.
  if (!navigator.clipboard) break;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const told = button.textContent;
    try {
      await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => { button.textContent = told; }, 1500);
  });
}

for (const picture of document.querySelectorAll("svg.lineage")) {
  const edges = [...picture.querySelectorAll(".edges path")];
  const nodes = new Map([...picture.querySelectorAll(".node")].map((node) => [node.dataset.node, node]));
  const reach = (start, from, to) => {
    const found = new Set([start]);
    const crossed = [];
    const waiting = [start];
    while (waiting.length) {
      const number = waiting.pop();
      for (const edge of edges) {
        if (edge.dataset[from] !== number) continue;
        crossed.push(edge);
        if (!found.has(edge.dataset[to])) { found.add(edge.dataset[to]); waiting.push(edge.dataset[to]); }
      }
    }
    return [...crossed, ...[...found].map((number) => nodes.get(number))];
  };
  const clear = () => {
    picture.classList.remove("lit");
    for (const lit of picture.querySelectorAll(".on")) lit.classList.remove("on");
  };
  const light = (event) => {
    const node = event.target.closest(".node");
    if (!node) return;
    clear();
    const number = node.dataset.node;
    for (const each of [...reach(number, "from", "to"), ...reach(number, "to", "from")]) each.classList.add("on");
    picture.classList.add("lit");
  };
  picture.addEventListener("pointerover", light);
  picture.addEventListener("focusin", light);
  picture.addEventListener("pointerout", clear);
  picture.addEventListener("focusout", clear);
}

// A slash goes to the search, as in other catalogues, unless somebody is typing.
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select");
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
  event.preventDefault();
  document.getElementById("q").focus();
});
