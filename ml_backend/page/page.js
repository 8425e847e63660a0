"use strict";
const at = (id) => document.getElementById(id);
const COLOURS = { high: "#c2185b", moderate: "#e68a00", low: "#1e7fc2", open: "#6b7280" };
let token = "";
let plain = "";
let chosen = null;

function made(tag, text, name) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  if (name) node.className = name;
  return node;
}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { ...options, headers });
  const body = await answer.json().catch(() => ({ error: `The service answered ${answer.status}.` }));
  if (answer.status === 401) at("login").hidden = false;
  if (!answer.ok) throw new Error(body.error || `The service answered ${answer.status}.`);
  return body;
}

function say(text, problem = false) {
  at("status").textContent = text;
  at("status").className = problem ? "problem" : "";
}

function drawBoxes(result) {
  const svg = at("boxes");
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${result.width} ${result.height}`);
  const scale = result.width / at("shown").clientWidth;
  result.lesions.forEach((lesion, number) => {
    const [left, top, right, bottom] = lesion.box;
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top }))
      rect.setAttribute(name, value);
    rect.setAttribute("stroke", COLOURS[lesion.severity || "open"]);
    const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
    text.setAttribute("x", left + 6 * scale);
    text.setAttribute("y", Math.max(top - 6 * scale, 16 * scale));
    text.style.fontSize = `${15 * scale}px`;
    text.style.strokeWidth = `${3 * scale}px`;
    text.textContent = number + 1;
    svg.append(rect, text);
  });
}

function listed(lesion) {
  const item = made("li");
  const tone = lesion.severity || "open";
  const inside = new Set((lesion.differential || []).map((one) => one.class));
  const named = lesion.labels || {};
  const ranked = Object.entries(lesion.probabilities || {}).sort((a, b) => b[1] - a[1]).slice(0, 4);
  const title = ranked.length ? named[ranked[0][0]] || ranked[0][0] : "Lesion, not classified";
  item.append(made("h2", title, tone));
  if (lesion.severity) item.append(made("p", `${lesion.severity} severity`, "note"));
  if (lesion.abstains) item.append(made("p", "The differential is open: the model abstains.", "note"));
  for (const [name, share] of ranked) {
    const row = made("div", "", `share ${inside.has(name) ? tone : "outside"}`);
    const left = made("span", named[name] || name);
    const bar = made("i");
    bar.style.width = `${Math.max(100 * share, 1)}%`;
    left.append(bar);
    row.append(left, made("span", `${Math.round(100 * share)} %`));
    item.append(row);
  }
  if (ranked.some(([name]) => !inside.has(name))) item.append(made("p", "Grey: outside the differential.", "note"));
  return item;
}

function show(answer) {
  const result = answer.results[0];
  if (result.error) throw new Error(result.error);
  at("heat").disabled = !result.heatmap;
  at("heat").onchange = () => { at("shown").src = at("heat").checked ? result.heatmap : plain; };
  at("lesions").replaceChildren(...result.lesions.map(listed));
  say(result.recommendation);
  const shown = at("shown");
  if (shown.complete) drawBoxes(result);
  shown.onload = () => drawBoxes(result);
  window.onresize = () => drawBoxes(result);
}

async function read(file) {
  chosen = file;
  if (plain) URL.revokeObjectURL(plain);
  plain = URL.createObjectURL(file);
  at("heat").checked = false;
  at("boxes").replaceChildren();
  at("lesions").replaceChildren();
  at("shown").src = plain;
  at("picture").hidden = false;
  at("drop").hidden = true;
  say("Reading…");
  const form = new FormData();
  form.append("image", file);
  try {
    show(await ask("v1/analyze?heatmap=true", { method: "POST", body: form }));
  } catch (error) {
    say(error.message, true);
  }
}

at("file").onchange = () => { if (at("file").files[0]) read(at("file").files[0]); };
at("drop").ondragover = (event) => { event.preventDefault(); at("drop").classList.add("over"); };
at("drop").ondragleave = () => at("drop").classList.remove("over");
at("drop").ondrop = (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) read(event.dataTransfer.files[0]);
};
at("again").onclick = () => {
  at("picture").hidden = true;
  at("drop").hidden = false;
  at("file").value = "";
  at("lesions").replaceChildren();
  say("Nothing has been read yet.");
};
at("login").onsubmit = (event) => {
  event.preventDefault();
  token = at("token").value;
  at("login").hidden = true;
  if (chosen) read(chosen); else greet();
};

async function greet() {
  try {
    const models = await ask("v1/models");
    at("model").textContent = models.serving ? `model ${models.serving.version}` : "no model has been promoted yet";
  } catch (error) {
    at("model").textContent = error.message;
  }
}
greet();
