"use strict";
// Tables that sort, and two viewers that move together.

for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const order = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      const byNumber = (a, b) => key(a) - key(b);
      const numbers = "value" in table.tBodies[0].rows[0].cells[column].dataset;
      const rows = [...table.tBodies[0].rows].sort(numbers ? byNumber : order);
      table.tBodies[0].append(...(down ? rows.reverse() : rows));
    });
  });
}

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`);
const places = [...document.querySelectorAll("input.place")];

async function begin(canvas) {
  const viewer = new niivue.Niivue({
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    dragAndDropEnabled: false,
    multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
    multiplanarEqualSize: true,
    crosshairWidth: 0.5,
    crosshairColor: [0.4, 0.7, 0.9, 0.6],
    logLevel: "silent",
  });
  await viewer.attachToCanvas(canvas);
  return viewer;
}

async function load(viewer, id) {
  const { low, high } = chosen("window").dataset;
  const image = await niivue.NVImage.loadFromBase64({
    base64: document.getElementById(id).textContent,
    name: "volume.nii.gz",
    cal_min: Number(low),
    cal_max: Number(high),
  });
  for (const old of [...viewer.volumes]) viewer.removeVolume(old);
  viewer.addVolume(image);
  move(viewer);
}

function move(viewer) {
  viewer.scene.crosshairPos = places.map((each) => Number(each.value));
  viewer.drawScene();
}

function cut(viewer) {
  const types = {
    all: niivue.SLICE_TYPE.MULTIPLANAR,
    axial: niivue.SLICE_TYPE.AXIAL,
    coronal: niivue.SLICE_TYPE.CORONAL,
    sagittal: niivue.SLICE_TYPE.SAGITTAL,
  };
  viewer.setSliceType(types[chosen("plane").value]);
}

function bright(viewer) {
  const { low, high } = chosen("window").dataset;
  for (const volume of viewer.volumes) {
    volume.cal_min = Number(low);
    volume.cal_max = Number(high);
  }
  viewer.updateGLVolume();
}

async function show() {
  const viewers = [];
  for (const canvas of document.querySelectorAll(".viewers canvas")) {
    const viewer = await begin(canvas);
    const select = document.querySelector(`select[data-side="${canvas.dataset.side}"]`);
    select.addEventListener("change", () => load(viewer, select.value));
    await load(viewer, select.value);
    for (const button of document.querySelectorAll("button[data-show]")) {
      button.addEventListener("click", () => {
        select.value = button.dataset.show;
        load(viewer, select.value);
      });
    }
    cut(viewer);
    viewers.push(viewer);
  }
  const all = (change) => () => viewers.forEach(change);
  document.querySelectorAll('input[name="window"]').forEach((each) => each.addEventListener("change", all(bright)));
  document.querySelectorAll('input[name="plane"]').forEach((each) => each.addEventListener("change", all(cut)));
  places.forEach((each) => each.addEventListener("input", all(move)));
  for (const viewer of viewers) {
    viewer.onLocationChange = () => {
      places.forEach((each, axis) => { each.value = viewer.scene.crosshairPos[axis]; });
      viewers.filter((each) => each !== viewer).forEach(move);
    };
  }
  document.getElementById("controls").hidden = false;
}

if (window.niivue) {
  show().catch(() => {
    document.querySelectorAll(".viewers, .desk, button[data-show]").forEach((each) => { each.hidden = true; });
    document.querySelectorAll("details.pictures").forEach((each) => { each.open = true; });
  });
}
