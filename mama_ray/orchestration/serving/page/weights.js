"use strict";
// The page of weights: a cloud of captions, the least trusted pairs, and marks that are kept at once.
(() => {
  const { element, ask, tell, make } = app;
  const SERIES = 6, WIDTH = 560, HEIGHT = 340, LEFT = 46, BOTTOM = 40;
  let offset = 0, asked = 0;

  const choice = () => {
    const values = { shown: element("shown").value, source: element("source").value, topic: element("topic").value };
    return new URLSearchParams(Object.entries(values).filter(([, value]) => value));
  };
  const number = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));

  // --- the cloud
  const svg = (name, given = {}, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const words = (text, given) => { const made = svg("text", given); made.textContent = text; return made; };
  const ticks = (top) => {
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].find((size) => top / size <= 6) || top / 5;
    return Array.from({ length: Math.floor(top / step) + 1 }, (_, place) => place * step);
  };
  const draw = (found) => {
    const by = element("colour").value, groups = [...new Set(found[by])];
    const counted = groups.map((name) => [name, found[by].filter((one) => one === name).length]).sort((a, b) => b[1] - a[1]);
    const shown = counted.slice(0, SERIES).map(([name]) => name);
    const colour = (name) => (shown.includes(name) ? `series-${shown.indexOf(name) + 1}` : "series-other");
    const top = { x: Math.max(1e-6, ...found.loss) * 1.04, y: Math.max(1.2, ...found.weight) * 1.04 };
    const x = (loss) => LEFT + (loss / top.x) * (WIDTH - LEFT - 8), y = (weight) => HEIGHT - BOTTOM - (weight / top.y) * (HEIGHT - BOTTOM - 8);
    const axes = svg("g", { class: "axes" });
    for (const value of ticks(top.y)) axes.append(svg("line", { x1: LEFT, x2: WIDTH - 8, y1: y(value), y2: y(value) }), words(+value.toFixed(1), { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }));
    for (const value of ticks(top.x)) axes.append(words(+value.toFixed(1), { x: x(value), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }));
    axes.append(svg("line", { class: "uniform", x1: LEFT, x2: WIDTH - 8, y1: y(1), y2: y(1) }));
    axes.append(words("mean loss (nats)", { x: (WIDTH + LEFT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }));
    axes.append(words("mean weight", { x: 12, y: HEIGHT / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${HEIGHT / 2})` }));
    const dots = found.clip_id.map((id, place) => svg("circle", { cx: x(found.loss[place]).toFixed(1), cy: y(found.weight[place]).toFixed(1), r: 3, class: colour(found[by][place]), "data-clip": id }));
    const told = `Mean weight against mean loss of ${found.clip_id.length} captions`;
    const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told }, axes, svg("g", { class: "dots" }, ...dots));
    plot.addEventListener("click", (event) => {
      const id = event.target.dataset && event.target.dataset.clip;
      if (id) window.location.assign(`/clips/${id}`);
    });
    element("cloud").replaceChildren(found.clip_id.length ? plot : make("p", { class: "note", text: "No caption here has both numbers." }));
    const names = counted.length > SERIES ? [...shown, "others"] : shown;
    element("cloud-legend").replaceChildren(...(names.length > 1 ? names.map((name) => make("span", {}, make("i", { class: `dot ${name === "others" ? "series-other" : colour(name)}` }), name || "none")) : []));
    element("cloud-told").textContent = (found.total > found.clip_id.length ? `${found.clip_id.length.toLocaleString()} of ${found.total.toLocaleString()} captions, drawn at random. ` : "") + "A weight of 1 is uniform; a dot leads to its clip.";
  };

  // --- marks
  const showCounts = (counts) => {
    element("counts").textContent = `${counts.clips.toLocaleString()} clips, ${counts.suspects.toLocaleString()} suspects · marked: ${counts.wrong} wrong, ${counts.fine} fine, ${counts.rewrite} rewritten`;
  };
  const marker = (pair) => {
    const buttons = {};
    const box = make("textarea", { rows: 2, maxlength: 2000, "aria-label": `better caption of ${pair.clip_id}` });
    box.value = pair.rewritten || pair.better_text || pair.caption;
    const keep = make("button", { type: "button", class: "primary", text: "Keep" });
    const editor = make("div", { class: "rewrite", hidden: true }, box, keep);
    const show = (mark) => { for (const [name, button] of Object.entries(buttons)) button.setAttribute("aria-pressed", String(name === mark)); };
    const send = async (mark, text = "") => {
      try {
        showCounts(await ask("/api/weights/marks", { method: "POST", json: { clip_id: pair.clip_id, caption_id: pair.caption_id, mark, text } }));
        pair.mark = mark;
        show(mark);
        editor.hidden = true;
      } catch (error) { tell(error.message); }
    };
    for (const [name, label] of [["wrong", "Wrong"], ["fine", "Fine"], ["rewrite", "Rewrite …"]]) {
      buttons[name] = make("button", { type: "button", "aria-pressed": "false", "data-mark": name, text: label, onclick: () => {
        if (pair.mark === name && (name !== "rewrite" || !editor.hidden)) send("");
        else if (name === "rewrite") { editor.hidden = false; box.focus(); } else send(name);
      } });
    }
    keep.addEventListener("click", () => (box.value.trim() ? send("rewrite", box.value.trim()) : tell("Write the better caption first.")));
    show(pair.mark);
    return [make("div", { class: "row marks", role: "group", "aria-label": `mark ${pair.clip_id}` }, ...Object.values(buttons)), editor];
  };

  // --- pairs
  const line = (kind, text, title) => make("p", { class: "other" }, make("span", { class: "badge", text: kind, title }), " ", make("bdi", { text }));
  const card = (pair) => {
    const made = cards.card({ clip_id: pair.clip_id, caption: pair.caption, similarity: null, source: pair.source, topic: pair.topic, flags: [] });
    made.append(make("p", { class: "numbers quiet", text: `weight ${number(pair.weight)} · loss ${number(pair.loss)} · fit ${number(pair.fit)}` }));
    if (pair.mark === "rewrite") made.append(line("rewritten", pair.rewritten));
    else if (pair.better_text) made.append(line("fits better", pair.better_text, `${pair.better_source}, fit ${number(pair.better_fit)}`));
    else if (pair.others.length) made.append(line("of another clip", pair.others[0].text, `fit ${number(pair.others[0].similarity)}`));
    made.append(...marker(pair));
    return made;
  };
  const load = async (more) => {
    const mine = ++asked, list = element("pairs"), params = choice();
    if (!more) offset = 0;
    params.set("offset", offset);
    list.setAttribute("aria-busy", "true");
    try {
      const found = await ask(`/api/weights/pairs?${params}`);
      if (mine !== asked) return;
      if (!more) list.replaceChildren();
      list.append(...found.pairs.map(card));
      offset += found.pairs.length;
      element("told").textContent = found.total ? `${offset.toLocaleString()} of ${found.total.toLocaleString()}, the least trusted first` : "none of these";
      element("more").hidden = offset >= found.total;
    } catch (error) { tell(error.message); } finally { if (mine === asked) list.removeAttribute("aria-busy"); }
  };
  let points = null, drawn = 0;
  const redraw = async () => {
    const mine = ++drawn, params = choice();
    params.set("shown", params.get("shown") === "suspects" ? "all" : params.get("shown"));
    try {
      const found = await ask(`/api/weights/points?${params}`);
      if (mine !== drawn) return; // another choice has been made since
      points = found;
      draw(points);
    } catch (error) { tell(error.message); }
  };
  for (const name of ["shown", "source", "topic"]) element(name).addEventListener("change", () => { load(false); redraw(); });
  element("colour").addEventListener("change", () => points && draw(points));
  element("more").addEventListener("click", () => load(true));
  element("choice").addEventListener("submit", (event) => event.preventDefault());
  element("unmarked").addEventListener("change", (event) => {
    const also = event.target.checked ? "?unmarked=true" : "";
    element("get-exclude").href = `/api/weights/exclude.csv${also}`;
    element("get-corrected").href = `/api/weights/corrected.zip${also}`;
  });
  // A download that is refused is told here, not as a page of JSON.
  element("get-corrected").addEventListener("click", async (event) => {
    event.preventDefault();
    const answer = await fetch(event.target.href);
    if (!answer.ok) { tell((await answer.json()).detail); return; }
    const address = URL.createObjectURL(await answer.blob()), link = make("a", { href: address, download: "corrected.zip" });
    document.body.append(link); link.click(); link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  });
  load(false);
  redraw();
  ask("/api/weights/counts").then(showCounts, (error) => tell(error.message));
})();
