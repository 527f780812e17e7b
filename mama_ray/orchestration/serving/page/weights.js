"use strict";
// The page of weights: a cloud of captions, the least trusted pairs, and marks that are kept at once.
(() => {
  const { element, ask, tell, make } = app;
  const SERIES = 5, WIDTH = 560, HEIGHT = 340, LEFT = 62, BOTTOM = 40, RIGHT = 10, TOP = 8;
  let loaded = [], asked = 0;

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
  // From the least to the greatest, and from zero only where that is near: what lies close together would be one spot.
  const rangeOf = (values) => {
    const low = Math.min(...values), high = Math.max(...values), margin = Math.max(0.06 * (high - low), 0.005 * Math.abs(high), 1e-6);
    return [low >= 0 && low < 0.3 * high ? 0 : low - margin, high + margin];
  };
  const ticks = ([low, high]) => {
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((size) => size * power >= rough), digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const first = Math.ceil(low / step - 1e-9);
    return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, place) => [(first + place) * step, ((first + place) * step).toFixed(digits)]);
  };
  const draw = (found) => {
    const by = element("colour").value, groups = [...new Set(found[by])];
    const counted = groups.map((name) => [name, found[by].filter((one) => one === name).length]).sort((a, b) => b[1] - a[1]);
    const shown = counted.slice(0, SERIES).map(([name]) => name);
    const colour = (name) => (shown.includes(name) ? `series-${shown.indexOf(name) + 2}` : "series-other"); // the first is a grey as well
    const across = rangeOf(found.loss), up = rangeOf([1, ...found.weight]);
    const x = (loss) => LEFT + (loss - across[0]) / (across[1] - across[0]) * (WIDTH - LEFT - RIGHT);
    const y = (weight) => HEIGHT - BOTTOM - (weight - up[0]) / (up[1] - up[0]) * (HEIGHT - BOTTOM - TOP);
    const axes = svg("g", { class: "axes", "aria-hidden": true });
    for (const [value, text] of ticks(up)) axes.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }), words(text, { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }));
    for (const [value, text] of ticks(across)) axes.append(words(text, { x: x(value), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }));
    axes.append(svg("line", { class: "uniform", x1: LEFT, x2: WIDTH - RIGHT, y1: y(1), y2: y(1) }));
    axes.append(words("mean loss (nats)", { x: (WIDTH + LEFT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }));
    axes.append(words("mean weight", { x: 12, y: HEIGHT / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${HEIGHT / 2})` }));
    const told = (place) => `${found.clip_id[place]}: weight ${number(found.weight[place])}, loss ${number(found.loss[place])}`;
    const dots = found.clip_id.map((id, place) => svg("circle", {
      cx: x(found.loss[place]).toFixed(1), cy: y(found.weight[place]).toFixed(1), r: 3, class: colour(found[by][place]), "data-clip": id,
      role: "link", "aria-label": told(place), tabindex: -1,
    }));
    const title = `Mean weight against mean loss of ${found.clip_id.length} captions; arrow keys go from one to the next loss, Enter leads to the clip`;
    const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": title }, axes, svg("g", { class: "dots" }, ...dots));
    const lead = (dot) => { if (dot.dataset && dot.dataset.clip) window.location.assign(`/clips/${dot.dataset.clip}`); };
    plot.addEventListener("click", (event) => lead(event.target));
    // By keyboard the cloud is one stop, of which the arrow keys go through the dots.
    const inOrder = found.loss.map((_, place) => place).sort((a, b) => found.loss[a] - found.loss[b]).map((place) => dots[place]);
    if (inOrder.length) inOrder[0].setAttribute("tabindex", 0);
    plot.addEventListener("keydown", (event) => {
      const here = inOrder.indexOf(event.target), end = inOrder.length - 1;
      const next = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: end }[event.key];
      if (event.key === "Enter") lead(event.target);
      if (here < 0 || next === undefined) return;
      event.preventDefault();
      const dot = inOrder[Math.min(end, Math.max(0, next))];
      event.target.setAttribute("tabindex", -1);
      dot.setAttribute("tabindex", 0);
      dot.focus();
    });
    // Not on the picture itself, which would take the focus for it.
    const frame = make("div", {
      onfocusin: (event) => { element("cloud-told").textContent = event.target.getAttribute("aria-label"); },
      onfocusout: () => { element("cloud-told").textContent = note; },
    }, plot);
    element("cloud").replaceChildren(found.clip_id.length ? frame : make("p", { class: "note", text: "No caption here has both numbers." }));
    const names = counted.length > SERIES ? [...shown, "others"] : shown;
    element("cloud-legend").replaceChildren(...(names.length > 1 ? names.map((name) => make("span", {}, make("i", { class: `dot ${name === "others" ? "series-other" : colour(name)}` }), name || "none")) : []));
    const note = (found.total > found.clip_id.length ? `${found.clip_id.length.toLocaleString("en")} of ${found.total.toLocaleString("en")} captions, drawn at random. ` : "") + "A weight of 1 is uniform; a dot leads to its clip.";
    element("cloud-told").textContent = note;
  };

  // --- marks
  const showCounts = (counts) => {
    element("counts").textContent = `${counts.clips.toLocaleString("en")} clips, ${counts.suspects.toLocaleString("en")} suspects · marked: ${counts.wrong} wrong, ${counts.fine} fine, ${counts.rewrite} rewritten`;
  };
  // Pages of other tabs show a mark as well, so that nobody takes back what he does not see.
  const told = new Map(), tabs = new BroadcastChannel("marks"), keyOf = (pair) => `${pair.clip_id} ${pair.caption_id}`;
  tabs.addEventListener("message", ({ data }) => {
    showCounts(data.counts);
    if (told.has(data.key)) told.get(data.key)(data.mark, data.text);
  });
  const marker = (pair, below) => {
    const buttons = {};
    const box = make("textarea", { rows: 2, maxlength: 2000, "aria-label": `better caption of ${pair.clip_id}` });
    box.value = pair.rewritten || pair.better_text || pair.caption;
    const keep = make("button", { type: "button", class: "primary", text: "Keep" });
    const editor = make("div", { class: "rewrite", hidden: true }, box, keep);
    const close = () => {
      const wasInside = editor.contains(document.activeElement);
      editor.hidden = true;
      if (wasInside) buttons.rewrite.focus();
    };
    const show = (mark, text) => {
      Object.assign(pair, { mark, rewritten: text });
      for (const [name, button] of Object.entries(buttons)) button.setAttribute("aria-pressed", String(name === mark));
      below.replaceChildren(...other(pair));
    };
    const send = async (mark, text = "") => {
      try {
        const counts = await ask("/api/weights/marks", { method: "POST", json: { clip_id: pair.clip_id, caption_id: pair.caption_id, mark, text } });
        showCounts(counts);
        show(mark, text);
        close();
        tabs.postMessage({ key: keyOf(pair), mark, text, counts });
      } catch (error) { tell(error.message); }
    };
    const keepText = () => (box.value.trim() ? send("rewrite", box.value.trim()) : tell("Write the better caption first."));
    for (const [name, label] of [["wrong", "Wrong"], ["fine", "Fine"], ["rewrite", "Rewrite …"]]) {
      buttons[name] = make("button", { type: "button", "aria-pressed": "false", "data-mark": name, text: label, onclick: () => {
        if (pair.mark === name && (name !== "rewrite" || !editor.hidden)) send("");
        else if (name === "rewrite") { editor.hidden = false; box.focus(); } else send(name);
      } });
    }
    keep.addEventListener("click", keepText);
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") close();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) keepText();
    });
    show(pair.mark, pair.rewritten);
    told.set(keyOf(pair), show);
    return [make("div", { class: "row marks", role: "group", "aria-label": `mark ${pair.clip_id}` }, ...Object.values(buttons)), editor];
  };

  // --- pairs
  const line = (kind, text, title) => make("p", { class: "other" }, make("span", { class: "badge", text: kind, title }), " ", make("bdi", { text }));
  const other = (pair) => {
    if (pair.mark === "rewrite") return [line("rewritten", pair.rewritten)];
    if (pair.better_text) return [line("fits better", pair.better_text, `${pair.better_source}, fit ${number(pair.better_fit)}`)];
    return pair.others.length ? [line("of another clip", pair.others[0].text, `fit ${number(pair.others[0].similarity)}`)] : [];
  };
  const card = (pair) => {
    const below = make("div");
    const made = cards.card({ clip_id: pair.clip_id, caption: pair.caption, similarity: null, source: pair.source, topic: pair.topic, flags: [] });
    made.append(make("p", { class: "numbers quiet", text: `weight ${number(pair.weight)} · loss ${number(pair.loss)} · fit ${number(pair.fit)}` }));
    made.append(below, ...marker(pair, below));
    return made;
  };
  const load = async (more) => {
    const mine = ++asked, list = element("pairs"), params = choice();
    if (!more) { loaded = []; told.clear(); }
    // What has left the choice since, by a mark, does not count: else as many others would be passed over.
    const isChosen = { marked: (pair) => pair.mark, unmarked: (pair) => !pair.mark }[params.get("shown")] || (() => true);
    params.set("offset", loaded.filter(isChosen).length);
    list.setAttribute("aria-busy", "true");
    try {
      const found = await ask(`/api/weights/pairs?${params}`);
      if (mine !== asked) return;
      if (!more) list.replaceChildren();
      const news = found.pairs.filter((pair) => !told.has(keyOf(pair)));
      list.append(...news.map(card));
      loaded.push(...news);
      const isRest = loaded.filter(isChosen).length < found.total && found.pairs.length > 0;
      element("told").textContent = loaded.length ? `${loaded.length.toLocaleString("en")} of ${Math.max(found.total, loaded.length).toLocaleString("en")}, the least trusted first` : "none of these";
      element("more").hidden = !isRest;
    } catch (error) {
      if (mine !== asked) return;
      if (more) { tell(error.message); return; } // what is shown stays
      element("told").textContent = error.message;
      list.replaceChildren();
      element("more").hidden = true;
    } finally { if (mine === asked) list.removeAttribute("aria-busy"); }
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
    let answer = null;
    try {
      answer = await fetch(event.target.href);
      if (!answer.ok) await ask(event.target.href); // says why
    } catch (error) { tell(answer ? error.message : app.noAnswer); return; }
    const address = URL.createObjectURL(await answer.blob()), link = make("a", { href: address, download: "corrected.zip" });
    document.body.append(link); link.click(); link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  });
  load(false);
  redraw();
  ask("/api/weights/counts").then(showCounts, (error) => tell(error.message));
})();
