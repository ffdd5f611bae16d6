// Shows the words of a chart's moments under the pointer, and by arrow keys when the chart has focus.
// Without it the same words are titles of the columns, and a table below each chart.

function prepare(figure) {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  figure.append(tip);
  for (const plot of figure.querySelectorAll("svg.plot")) {
    const columns = [...plot.querySelectorAll(":scope > .hit")];
    for (const title of plot.querySelectorAll(".hit > title")) {
      title.parentElement.dataset.tip = title.textContent;
      // The browser's own tooltip would stand beside ours.
      title.remove();
    }
    let at = -1;

    const hide = () => {
      tip.hidden = true;
      plot.querySelector(".hit.at")?.classList.remove("at");
    };
    const show = (hit) => {
      hide();
      tip.textContent = hit.dataset.tip;
      tip.hidden = false;
      if (hit.dataset.at) hit.classList.add("at");
      const box = hit.getBoundingClientRect();
      const frame = figure.getBoundingClientRect();
      const middle = box.left + box.width / 2 - frame.left;
      const left = Math.max(4, Math.min(middle - tip.offsetWidth / 2, frame.width - tip.offsetWidth - 4));
      const above = box.top - frame.top - tip.offsetHeight - 6;
      const top = above > 0 && !hit.dataset.at ? above : box.top - frame.top + (hit.dataset.at ? 4 : 22);
      tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
    };

    plot.addEventListener("pointerover", (event) => {
      if (event.target.classList.contains("hit")) show(event.target);
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.tabIndex = 0;
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (step === undefined || columns.length === 0) return;
      event.preventDefault();
      at = Math.max(0, Math.min(columns.length - 1, at + step));
      show(columns[at]);
    });
  }
}

document.querySelectorAll("figure.chart").forEach(prepare);
