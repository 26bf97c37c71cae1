(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const find = (name) => document.getElementById("map-" + name);
  const sprite = find("sprite"), canvas = find("canvas"), card = find("card"), legend = find("legend");
  const pen = canvas.getContext("2d"), count = data.names.length;
  const PALETTE = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#d4a800", "#ff6f91", "#9c755f", "#8a8f98"];
  const view = { zoom: 1, x: 0.5, y: 0.5 };
  let chosen = new Set(), hovered = -1;

  const colour = (group, groups) =>
    group < 0 ? "#9aa0a6" : groups <= PALETTE.length ? PALETTE[group] : `hsl(${(group * 137.508) % 360} 62% ${48 + (group % 3) * 8}%)`;

  function grouping() {
    const method = data.methods[find("method").value];
    if (find("colour").value === "class") return { of: data.labels, names: data.classes };
    if (find("colour").value === "cluster") {
      const most = Math.max(...method.clusters);
      return { of: method.clusters, names: Array.from({ length: most + 1 }, (_, number) => "cluster " + number) };
    }
    const names = [...new Set(data.splits)];
    return { of: data.splits.map((split) => names.indexOf(split)), names };
  }

  function place(index) {
    const [x, y] = data.methods[find("method").value].xy[index];
    const side = canvas.clientWidth, inner = 0.94 * view.zoom;
    return [side * (0.5 + (x / 1000 - view.x) * inner), side * (0.5 + (y / 1000 - view.y) * inner)];
  }

  const thumbnail = (index) => [(index % data.columns) * data.cell, Math.floor(index / data.columns) * data.cell, data.cell, data.cell];

  function draw() {
    const scale = window.devicePixelRatio || 1, side = canvas.clientWidth;
    if (canvas.width !== Math.round(side * scale)) canvas.width = canvas.height = Math.round(side * scale);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, side, side);
    const { of, names } = grouping(), pictures = find("pictures").checked;
    const size = pictures ? Math.min(data.cell, 13 + 5 * view.zoom) : Math.min(9, 5 + view.zoom);
    for (const lit of [false, true])
      for (let index = 0; index < count; index++) {
        if ((!chosen.size || chosen.has(of[index])) !== lit) continue;
        const [x, y] = place(index);
        if (x < -size || y < -size || x > side + size || y > side + size) continue;
        pen.globalAlpha = lit ? 1 : 0.08;
        pen.fillStyle = colour(of[index], names.length);
        if (pictures) {
          pen.fillRect(x - size / 2 - 1.5, y - size / 2 - 1.5, size + 3, size + 3);
          pen.drawImage(sprite, ...thumbnail(index), x - size / 2, y - size / 2, size, size);
        } else {
          pen.beginPath();
          pen.arc(x, y, size / 2, 0, 7);
          pen.fill();
        }
      }
    pen.globalAlpha = 1;
    if (hovered >= 0) {
      const [x, y] = place(hovered);
      pen.strokeStyle = getComputedStyle(canvas).color;
      pen.lineWidth = 2;
      pen.strokeRect(x - size / 2 - 3, y - size / 2 - 3, size + 6, size + 6);
    }
  }

  function show(index) {
    if (index === hovered) return;
    hovered = index;
    card.hidden = index < 0;
    if (index >= 0) {
      const brush = card.querySelector("canvas").getContext("2d");
      brush.imageSmoothingEnabled = data.cell >= 40;
      brush.drawImage(sprite, ...thumbnail(index), 0, 0, 144, 144);
      const clusters = data.methods[find("method").value].clusters;
      const words = [data.names[index]];
      if (data.labels[index] >= 0) words.push(data.classes[data.labels[index]]);
      if (clusters.length && clusters[index] >= 0) words.push("cluster " + clusters[index]);
      card.querySelector("p").textContent = words.join("\n");
      const [x, y] = place(index), side = canvas.clientWidth;
      card.style.left = Math.max(0, Math.min(x < side / 2 ? x + 16 : x - 180, side - 164)) + "px";
      card.style.top = Math.max(0, Math.min(y - 80, side - 225)) + "px";
    }
    draw();
  }

  function nearest(event) {
    const box = canvas.getBoundingClientRect();
    const across = event.clientX - box.left, down = event.clientY - box.top, { of } = grouping();
    let best = -1, distance = 18 * 18;
    for (let index = 0; index < count; index++) {
      if (chosen.size && !chosen.has(of[index])) continue;
      const [x, y] = place(index), here = (x - across) ** 2 + (y - down) ** 2;
      if (here < distance) [best, distance] = [index, here];
    }
    return best;
  }

  function list() {
    const { of, names } = grouping();
    const groups = [...new Set(of)].sort((a, b) => (a < 0) - (b < 0) || a - b);
    chosen = new Set();
    legend.replaceChildren(...groups.map((group) => {
      const button = document.createElement("button"), swatch = document.createElement("i");
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      swatch.style.background = colour(group, names.length);
      button.append(swatch, group < 0 ? "none" : names[group]);
      button.onclick = () => {
        if (!chosen.delete(group)) chosen.add(group);
        button.setAttribute("aria-pressed", String(chosen.has(group)));
        draw();
      };
      return button;
    }));
  }

  function zoom(factor) {
    view.zoom = Math.max(1, Math.min(20, view.zoom * factor));
    if (view.zoom === 1) view.x = view.y = 0.5;
    show(-1);
    draw();
  }

  function options(select, entries) {
    select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
    select.closest("label").hidden = entries.length < 2;
  }

  options(find("method"), data.methods.map((method, number) => [number, method.method]));
  const colours = [];
  if (data.labels.some((label) => label >= 0)) colours.push(["class", "class"]);
  if (data.methods.every((method) => method.clusters.length)) colours.push(["cluster", "cluster"]);
  colours.push(["split", "split"]);
  options(find("colour"), colours);
  find("pictures").checked = true;

  const change = () => { show(-1); list(); draw(); };
  find("method").onchange = find("colour").onchange = change;
  find("pictures").onchange = draw;
  find("in").onclick = () => zoom(1.6);
  find("out").onclick = () => zoom(1 / 1.6);
  find("reset").onclick = () => zoom(0);
  let held = null;
  canvas.onpointerdown = (event) => {
    held = { x: event.clientX, y: event.clientY, from: { ...view } };
    if (event.pointerType === "mouse") canvas.setPointerCapture(event.pointerId);
    else show(nearest(event));
  };
  canvas.onpointermove = (event) => {
    if (held && view.zoom > 1) {
      const scale = canvas.clientWidth * 0.94 * view.zoom;
      view.x = held.from.x - (event.clientX - held.x) / scale;
      view.y = held.from.y - (event.clientY - held.y) / scale;
      draw();
    } else show(nearest(event));
  };
  canvas.onpointerup = canvas.onpointercancel = () => { held = null; };
  canvas.onpointerleave = (event) => { if (event.pointerType === "mouse") show(-1); };
  canvas.onwheel = (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2);
  };
  canvas.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") show(-1);
    if (!step) return;
    event.preventDefault();
    show((Math.max(hovered, step < 0 ? 0 : -1) + step + count) % count);
  };
  new ResizeObserver(draw).observe(canvas);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  list();
  sprite.decode().then(draw, draw);
})();
