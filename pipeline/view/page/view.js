// The page of `tierscale view`: two pictures on each other, a line between them, and the tiers above.
// info.js calls tierscale.begin() with what the picture is; row/N.js calls tierscale.row().
"use strict";

const tierscale = (() => {
  const at = (id) => document.getElementById(id);
  const rows = new Map();
  // opponent: number of the layer on the left. part: where the line stands, 0..1.
  const state = { opponent: 1, part: 0.5, tiers: false, exact: false, only: 0, pointer: null };
  let info, viewer, full;

  function begin(about) {
    info = about;
    [full] = info.sizes;
    document.title = `${info.title} – tierscale`;
    at("title").textContent = at("title").title = info.title;
    viewer = OpenSeadragon({
      element: at("view"), drawer: "canvas", showNavigationControl: false, showNavigator: true,
      navigatorPosition: "BOTTOM_RIGHT", navigatorSizeRatio: 0.16, maxZoomPixelRatio: 32, minZoomImageRatio: 0.6,
      imageSmoothingEnabled: false, animationTime: 0.5, gestureSettingsMouse: { clickToZoom: false },
      placeholderFillStyle: null, crossOriginPolicy: false, loadTilesWithAjax: false,
    });
    controls();
    showFacts();
    open();
  }

  // Tiles of a layer; OpenSeadragon's largest level is our level 0.
  function source(layer) {
    const last = info.sizes.length - 1;
    const suffix = state.exact ? "png" : info.suffix;
    return {
      width: full[0], height: full[1], tileSize: info.tile, minLevel: 0, maxLevel: last,
      getTileUrl: (level, x, y) => `tile/${layer}/${last - level}/${x}_${y}.${suffix}`,
    };
  }

  function open() {
    const bounds = viewer.world.getItemCount() ? viewer.viewport.getBounds() : null;
    const shown = info.layers.length > 1 ? [state.opponent, 0] : [0];
    const items = shown.map((layer) => ({ tileSource: source(layer) }));
    if (info.tiers) {
      const wide = (info.tiers.side * info.tiers.columns) / full[0];
      items.push({ tileSource: { type: "image", url: "tiers.png", buildPyramid: false }, width: wide,
        opacity: 0 });
    }
    viewer.open(items);
    viewer.addOnceHandler("open", () => {
      if (bounds) viewer.viewport.fitBounds(bounds, true);
      cut();
      tint();
      figures();
    });
  }

  const item = (number) => viewer.world.getItemAt(number);
  const front = () => item(info.layers.length > 1 ? 1 : 0);

  // Left of the line the result is cut away, so that the opponent under it is seen.
  function cut() {
    const line = at("line");
    if (info.layers.length < 2 || !front()) {
      line.hidden = true;
      return;
    }
    const width = viewer.viewport.getContainerSize().x;
    const part = state.only === 1 ? 0 : state.only === 2 ? 1 : state.part;
    line.hidden = state.only !== 0;
    line.style.left = `${part * width}px`;
    const x = viewer.viewport.pointFromPixel(new OpenSeadragon.Point(part * width, 0), true).x * full[0];
    const start = Math.min(Math.max(x, 0), full[0]);
    front().setClip(new OpenSeadragon.Rect(start, 0, full[0] - start, full[1]));
    front().setOpacity(start >= full[0] ? 0 : 1);
    at("left").textContent = info.layers[state.opponent];
    at("right").textContent = info.layers[0];
    at("swipe").value = Math.round(part * 1000);
  }

  function tint() {
    const map = info.tiers && item(viewer.world.getItemCount() - 1);
    if (!map) return;
    map.setOpacity(state.tiers ? at("opacity").value / 100 : 0);
    at("legend").hidden = !state.tiers;
    at("tiers").checked = state.tiers;
  }

  function figures() {
    if (!front()) return;
    const zoom = viewer.viewport.viewportToImageZoom(viewer.viewport.getZoom(true)) * devicePixelRatio;
    const percent = zoom * 100;
    at("zoom").textContent = `${percent.toFixed(percent < 10 ? 1 : 0)} % of the result, `
      + `${(percent * info.scale).toFixed(percent * info.scale < 10 ? 1 : 0)} % of the source`;
    const spot = state.pointer && viewer.viewport.pointFromPixel(state.pointer, true);
    const x = spot ? Math.floor(spot.x * full[0]) : -1, y = spot ? Math.floor(spot.y * full[0]) : -1;
    const inside = x >= 0 && y >= 0 && x < full[0] && y < full[1];
    const real = inside && info.pixel
      ? `, ${(x * info.pixel[0]).toPrecision(5)}, ${(y * info.pixel[0]).toPrecision(5)} ${info.pixel[1]}` : "";
    at("place").textContent = inside
      ? `x ${x}, y ${y}; source ${(x / info.scale).toFixed(1)}, ${(y / info.scale).toFixed(1)}${real}` : "";
    at("tile").textContent = inside && info.tiers ? tileText(x, y) : "";
  }

  function tileText(x, y) {
    const row = Math.min(Math.floor(y / info.tiers.side), info.tiers.rows - 1);
    const column = Math.min(Math.floor(x / info.tiers.side), info.tiers.columns - 1);
    const known = rows.get(row);
    if (known === undefined) {
      rows.set(row, null);
      const script = document.createElement("script");
      script.src = `row/${row}.js`;
      document.head.append(script);
    }
    if (!known) return "";
    const told = info.tiers.figures.map(([name, unit], index) => {
      const value = known.figures[index][column];
      return value === null ? null : `${name} ${value}${unit}`;
    });
    const label = info.tiers.labels[known.tiers[column]];
    return [`tile ${row}, ${column}: ${label}`, ...told.filter((one) => one)].join(", ");
  }

  function row(found) {
    rows.set(found.row, found);
    figures();
  }

  function zoomTo(ratio) {
    viewer.viewport.zoomTo(viewer.viewport.imageToViewportZoom(ratio / devicePixelRatio), null, true);
    viewer.viewport.applyConstraints(true);
  }

  function swipe(part) {
    state.part = Math.min(Math.max(part, 0), 1);
    state.only = 0;
    cut();
  }

  function toggle(card, button) {
    at(card).hidden = !at(card).hidden;
    at(button).setAttribute("aria-pressed", String(!at(card).hidden));
  }

  function exact() {
    if (info.suffix === "png") return;
    state.exact = !state.exact;
    at("exact").setAttribute("aria-pressed", String(state.exact));
    open();
  }

  function oppose(layer) {
    if (layer >= info.layers.length || layer < 1) return;
    state.opponent = layer;
    at("opponent").value = String(layer);
    open();
  }

  const KEYS = {
    "0": () => viewer.viewport.goHome(), f: () => zoomTo(1), t: () => { state.tiers = !state.tiers; tint(); },
    p: exact, i: () => toggle("facts", "about"), "?": () => toggle("help", "keys"),
    "1": () => oppose(1), "2": () => oppose(2), "+": () => viewer.viewport.zoomBy(1.5),
    "=": () => viewer.viewport.zoomBy(1.5), "-": () => viewer.viewport.zoomBy(1 / 1.5),
    " ": () => { state.only = (state.only + 1) % 3; cut(); },
  };

  function controls() {
    info.layers.forEach((name, layer) => {
      if (layer) at("opponent").append(new Option(name, String(layer)));
    });
    at("opponent-of").hidden = info.layers.length < 2;
    at("swipe").parentElement.hidden = info.layers.length < 2;
    at("tiers-of").hidden = !info.tiers;
    at("exact").hidden = info.suffix === "png";
    at("opponent").onchange = (event) => oppose(Number(event.target.value));
    at("swipe").oninput = (event) => swipe(event.target.value / 1000);
    at("tiers").onchange = (event) => { state.tiers = event.target.checked; tint(); };
    at("opacity").oninput = tint;
    at("home").onclick = KEYS["0"];
    at("full").onclick = KEYS.f;
    at("exact").onclick = exact;
    at("about").onclick = KEYS.i;
    at("keys").onclick = KEYS["?"];
    const line = at("line");
    line.onpointerdown = (event) => { line.setPointerCapture(event.pointerId); event.stopPropagation(); };
    line.onpointermove = (event) => {
      if (!line.hasPointerCapture(event.pointerId)) return;
      const box = at("view").getBoundingClientRect();
      swipe((event.clientX - box.left) / box.width);
    };
    for (const name of ["pointerdown", "wheel"]) at("facts").addEventListener(name, (e) => e.stopPropagation());
    at("view").addEventListener("pointermove", (event) => {
      const box = at("view").getBoundingClientRect();
      state.pointer = new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top);
      figures();
    });
    at("view").addEventListener("pointerleave", () => { state.pointer = null; figures(); });
    for (const name of ["update-viewport", "resize"]) viewer.addHandler(name, () => { cut(); figures(); });
    // OpenSeadragon has keys of its own; these go first.
    document.addEventListener("keydown", (event) => {
      const on = (kind) => event.target instanceof Element && event.target.matches(kind);
      if (event.ctrlKey || event.metaKey || event.altKey || on("select")) return;
      const sideways = { ArrowLeft: -0.01, ArrowRight: 0.01 }[event.key];
      if (event.shiftKey && sideways) swipe(state.part + sideways);
      else if (KEYS[event.key.toLowerCase()] && !(on("button, input") && event.key === " ")) {
        KEYS[event.key.toLowerCase()]();
      } else return;
      event.preventDefault();
      event.stopPropagation();
    }, true);
  }

  function showFacts() {
    const table = document.createElement("table");
    for (const [name, text] of info.facts) {
      const line = table.insertRow();
      const head = document.createElement("th");
      head.textContent = name;
      line.append(head);
      line.insertCell().textContent = text;
    }
    at("facts").append(table);
    (info.tiers ? info.tiers.labels : []).forEach((label, tier) => {
      const line = document.createElement("div"), square = document.createElement("i");
      square.style.background = info.tiers.tints[tier];
      const count = info.tiers.tiles[tier], all = info.tiers.rows * info.tiers.columns;
      line.append(square, `${label}: ${count} of ${all} tiles (${Math.round((100 * count) / all)} %)`);
      at("legend").append(line);
    });
  }

  return { begin, row, zoomTo, swipe, state, viewer: () => viewer };
})();
