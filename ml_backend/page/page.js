"use strict";
const at = (id) => document.getElementById(id);
const COLOURS = { high: "#c2185b", moderate: "#e68a00", low: "#1e7fc2", open: "#6b7280" };
let token = "";
let plain = "";
let chosen = null;

function made(tag, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
}

function shown() {
  if (!token) return {};
  if (!token.includes(":")) return { Authorization: `Bearer ${token}` };
  return { Authorization: `Basic ${btoa(String.fromCharCode(...new TextEncoder().encode(token)))}` };
}

async function ask(path, options = {}) {
  // Without credentials of its own the browser leaves the asking to the form here.
  const answer = await fetch(path, { ...options, headers: shown(), credentials: "omit" });
  const body = await answer.json().catch(() => ({ error: `The service answered ${answer.status}.` }));
  if (answer.status === 401) {
    at("login").hidden = false;
    at("token").focus();
  }
  if (!answer.ok) throw new Error(body.error || `The service answered ${answer.status}.`);
  return body;
}

function say(text, tone = "open") {
  at("status").textContent = text;
  at("status").className = tone;
}

function choose(number) {
  for (const one of document.querySelectorAll("#boxes rect, #lesions li"))
    one.classList.toggle("chosen", one.dataset.number === String(number));
}

function drawBoxes(result) {
  const svg = at("boxes");
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${result.width} ${result.height}`);
  const scale = result.width / Math.max(at("shown").clientWidth, 1);
  result.lesions.forEach((lesion, number) => {
    const [left, top, right, bottom] = lesion.box;
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top }))
      rect.setAttribute(name, value);
    rect.setAttribute("stroke", COLOURS[lesion.severity || "open"]);
    rect.dataset.number = number;
    rect.onclick = () => {
      choose(number);
      at("lesions").children[number].scrollIntoView({ block: "nearest", behavior: "smooth" });
    };
    const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
    text.setAttribute("x", left + 6 * scale);
    text.setAttribute("y", Math.max(top - 6 * scale, 16 * scale));
    text.style.fontSize = `${15 * scale}px`;
    text.style.strokeWidth = `${3 * scale}px`;
    text.textContent = number + 1;
    svg.append(rect, text);
  });
}

function titled(lesion, number, name) {
  const title = made("h2");
  const badge = made("b");
  badge.append(made("span", number + 1));
  title.append(badge, name);
  return title;
}

function tagged(lesion, title) {
  const tags = made("p", "", "tags");
  const severity = `${lesion.severity} severity`;
  if (lesion.severity && severity !== title.toLowerCase()) tags.append(made("span", severity));
  if (lesion.malignant !== undefined) tags.append(made("span", `malignant ${percent(lesion.malignant)}`));
  if (lesion.abstains) tags.append(made("span", "abstains"));
  return tags;
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

function listed(lesion, number) {
  const tone = lesion.severity || "open";
  const item = made("li", "", tone);
  item.dataset.number = number;
  item.tabIndex = 0;
  item.onclick = item.onfocus = () => choose(number);
  const inside = new Set((lesion.differential || []).map((one) => one.class));
  const named = lesion.labels || {};
  const ranked = Object.entries(lesion.probabilities || {}).sort((a, b) => b[1] - a[1]);
  const shown = ranked.filter(([name], place) => place < 4 || inside.has(name));
  const title = ranked.length ? named[ranked[0][0]] || ranked[0][0] : "Lesion, not classified";
  item.append(titled(lesion, number, title), tagged(lesion, title));
  for (const [name, share] of shown) {
    const row = made("div", "", `share ${inside.has(name) ? "" : "outside"}`);
    const bar = made("i", "", inside.has(name) ? tone : "outside");
    bar.style.setProperty("--share", `${Math.max(100 * share, 1)}%`);
    row.append(made("span", named[name] || name), made("span", percent(share)), bar);
    item.append(row);
  }
  if (lesion.abstains) item.append(made("p", "The differential leaves open whether it is malignant.", "note"));
  if (shown.some(([name]) => !inside.has(name))) item.append(made("p", "Grey: outside the differential.", "note"));
  return item;
}

function toneOf(lesions) {
  return ["high", "moderate", "low"].find((tone) => lesions.some((lesion) => lesion.severity === tone)) || "open";
}

function show(answer) {
  const result = answer.results[0];
  if (result.error) throw new Error(result.error);
  at("heat").disabled = !result.heatmap;
  at("heat").onchange = () => { at("shown").src = at("heat").checked ? result.heatmap : plain; };
  at("lesions").replaceChildren(...result.lesions.map(listed));
  at("help").hidden = result.lesions.length > 0;
  say(result.recommendation, toneOf(result.lesions));
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
  at("picture").hidden = at("stage").hidden = false;
  at("drop").hidden = true;
  at("heat").disabled = true;
  at("help").hidden = true;
  at("busy").hidden = false;
  say("Reading…");
  const form = new FormData();
  form.append("image", file);
  try {
    show(await ask("v1/analyze?heatmap=true", { method: "POST", body: form }));
  } catch (error) {
    say(error.message, "problem");
  } finally {
    at("busy").hidden = true;
  }
}

at("shown").onerror = () => { at("stage").hidden = true; };
at("file").onchange = () => { if (at("file").files[0]) read(at("file").files[0]); };
document.ondragover = (event) => { event.preventDefault(); at("drop").classList.add("over"); };
document.ondragleave = () => at("drop").classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) read(event.dataTransfer.files[0]);
};
document.onpaste = (event) => {
  const pasted = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
  if (pasted) read(pasted);
};
at("again").onclick = () => {
  at("picture").hidden = true;
  at("drop").hidden = false;
  at("file").value = "";
  at("lesions").replaceChildren();
  at("help").hidden = false;
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
