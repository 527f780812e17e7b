"use strict";
// One narration: windows come as they are written, the line of the moment is lit, a person's text is kept.
(() => {
  const { element, ask, tell, make, clock } = app;
  const home = element("narration"), video = element("video"), strip = element("strip"), list = element("entries"), search = element("search");
  const address = `/api/narrations/${home.dataset.id}`, duration = Number(home.dataset.duration);
  const windows = new Map();
  let order = [], now = 0, current = null, edited = null, lit = null, isDrawing = false;

  const precise = (seconds) => `${clock(seconds)}${(seconds % 1 ? (seconds % 1).toFixed(2).slice(1) : "")}`;
  const textOf = (one) => one.edited !== null ? one.edited : one.texts.length ? one.texts[0].text : null;

  // ---- windows and their rows ----
  const fill = (entry) => {
    const text = textOf(entry.told), flags = entry.told.edited === null && entry.told.texts.length ? entry.told.texts[0].flags : [];
    const said = text ? make("bdi", { text }) : make("i", { text: entry.told.error || (text === "" ? "nothing, as you said" : "nothing to show") });
    entry.said.replaceChildren(said, ...(entry.told.edited !== null ? [make("span", { class: "badge human", text: "edited" })] : []),
      ...flags.map((flag) => make("span", { class: "badge bad", text: flag.replace("_", " ") })));
    entry.row.classList.toggle("bad", Boolean(entry.told.error));
    entry.text = text || "";
  };
  const add = (told) => {
    let entry = windows.get(told.clip_id);
    if (entry) { entry.told = told; fill(entry); return entry; }
    const said = make("span"), row = make("li", {}, make("button", { type: "button" }, make("time", { text: precise(told.start_s) }), said));
    entry = { told, row, said, start: told.start_s, end: told.end_s, text: "", isHit: true };
    row.entry = entry;
    windows.set(told.clip_id, entry);
    fill(entry);
    return entry;
  };
  // Rows lie in blocks of neighbours, of which the browser lays out only those in sight: ten hours have 36,000 rows.
  const blocks = new Map(), blockS = Math.max(1, duration / Number(home.dataset.windows) * 200);
  const blockOf = (entry) => {
    const key = Math.floor(entry.start / blockS + 1e-9);
    if (!blocks.has(key)) {
      const block = make("ol", {});
      block.key = key;
      let next = list.firstElementChild;
      while (next && next.key < key) next = next.nextElementSibling;
      list.insertBefore(block, next);
      blocks.set(key, block);
    }
    return blocks.get(key);
  };
  // Many come at once where a long narration is opened: what depends on all of them is done once for a picture.
  let isShowing = false;
  const take = (news) => {
    const touched = new Set();
    for (const told of news) {
      const isNew = !windows.has(told.clip_id), entry = add(told);
      if (entry === current) detail();
      hit(entry);
      if (!isNew) continue;
      // Most come in order; the others find their place from behind.
      let place = order.length;
      while (place && order[place - 1].start > entry.start) place -= 1;
      order.splice(place, 0, entry);
      const block = blockOf(entry), next = order[place + 1] ? order[place + 1].row : null;
      block.insertBefore(entry.row, next && next.parentNode === block ? next : null);
      touched.add(block);
    }
    for (const block of touched) block.style.containIntrinsicSize = `auto ${block.children.length * 40}px`;
    element("waiting").hidden = order.length > 0;
    if (isShowing) return;
    isShowing = true;
    requestAnimationFrame(() => { isShowing = false; count(); show(now); });
  };

  // ---- where the video is ----
  const entryAt = (time) => {
    let low = 0, high = order.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (order[middle].start <= time + 1e-6) low = middle + 1; else high = middle;
    }
    const found = order[low - 1];
    return found && time < found.end ? found : null;
  };
  const show = (time) => {
    now = time;
    element("clock").textContent = clock(time);
    strip.setAttribute("aria-valuenow", Math.round(time));
    strip.setAttribute("aria-valuetext", clock(time));
    const entry = edited || entryAt(time);
    if (entry !== current) {
      if (lit) { lit.classList.remove("current"); lit.firstChild.removeAttribute("aria-current"); }
      current = entry;
      lit = entry ? entry.row : null;
      if (entry) {
        entry.row.classList.add("current");
        entry.row.firstChild.setAttribute("aria-current", "true");
        const row = entry.row.getBoundingClientRect(), box = list.getBoundingClientRect();
        if (list.scrollHeight > list.clientHeight && (row.top < box.top || row.bottom > box.bottom)) list.scrollTop += row.top - box.top - box.height / 3;
      }
      detail();
    }
    draw();
  };
  const detail = () => {
    const said = element("now-text"), text = current ? current.text : "";
    said.textContent = text || (current ? current.told.error || "Nothing is shown here." : "Nothing is said here yet.");
    said.classList.toggle("quiet", !text);
    element("window-times").textContent = current ? `${precise(current.start)}–${precise(current.end)}` : "";
    element("edit").disabled = !current;
    element("restore").hidden = !current || current.told.edited === null;
    const samples = current ? [...current.told.texts, ...current.told.not_shown] : [];
    element("samples-of").hidden = !(samples.length > 1 || (current && current.told.edited !== null && samples.length));
    element("samples").replaceChildren(...samples.map((one) => make("li", {},
      make("bdi", { text: one.text || "(empty)" }),
      make("span", { class: "quiet", text: [one.mean_logprob === null ? "" : `log-probability ${one.mean_logprob.toFixed(2)}`, one.num_samples > 1 ? `${one.num_samples} times` : "", ...one.flags].filter(Boolean).join(" · ") }),
      make("button", { type: "button", class: "plain", text: "Use", "aria-label": `Use “${one.text}”`, onclick: () => keep(current, one.text) }))));
  };
  const draw = () => {
    if (isDrawing) return;
    isDrawing = true;
    requestAnimationFrame(() => { isDrawing = false; paint(); });
  };
  const paint = () => {
    const scale = window.devicePixelRatio || 1, width = strip.clientWidth, height = strip.clientHeight;
    strip.width = width * scale;
    strip.height = height * scale;
    const pen = strip.getContext("2d"), style = getComputedStyle(document.body);
    const colour = (name) => style.getPropertyValue(name).trim();
    pen.scale(scale, scale);
    for (const entry of order) {
      const left = entry.start / duration * width, right = entry.end / duration * width;
      pen.fillStyle = colour(!entry.text ? "--series-3" : entry.told.edited !== null ? "--accent" : entry.isHit ? "--series-2" : "--grid");
      pen.globalAlpha = entry === current ? 1 : 0.55;
      pen.fillRect(left, 12, Math.max(0.6, right - left - (right - left > 3 ? 1 : 0)), height - 24);
    }
    pen.globalAlpha = 1;
    pen.fillStyle = colour("--ink");
    pen.fillRect(Math.min(width - 2, now / duration * width), 4, 2, height - 8);
  };

  let pending = null;
  const goTo = (time) => {
    time = Math.min(duration, Math.max(0, time));
    if (video.readyState > 0) video.currentTime = time; else pending = time;
    show(time);
  };
  video.addEventListener("loadedmetadata", () => { if (pending !== null) video.currentTime = pending; pending = null; });
  const tellWhyNot = async () => {
    element("unplayable").hidden = false;
    try {
      await ask(video.getAttribute("src"), { headers: { range: "bytes=0-0" } });
    } catch (error) { element("unplayable").textContent = `${error.message[0].toUpperCase()}${error.message.slice(1)}.`; }
  };
  video.addEventListener("error", tellWhyNot);
  if (video.error) tellWhyNot(); // before this script came
  for (const name of ["timeupdate", "seeking"]) video.addEventListener(name, () => { if (pending === null) show(video.currentTime); });
  list.addEventListener("click", (event) => {
    const row = event.target.closest("li");
    if (row && !edited) goTo(row.entry.start);
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key], row = event.target.closest("li");
    if (!step || !row) return;
    event.preventDefault();
    let place = order.indexOf(row.entry) + step;
    while (order[place] && !order[place].isHit) place += step;
    if (order[place]) order[place].row.firstChild.focus();
  });
  strip.addEventListener("click", (event) => {
    const box = strip.getBoundingClientRect();
    goTo((event.clientX - box.left) / box.width * duration);
  });
  strip.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };
    if (event.key in steps) { event.preventDefault(); goTo(now + steps[event.key]); }
  });
  window.addEventListener("resize", draw);

  // ---- a person's text ----
  const keep = async (entry, text) => {
    try {
      const kept = await ask(`${address}/windows/${encodeURIComponent(entry.told.clip_id)}`, { method: "PUT", json: { text } });
      entry.told.edited = kept.edited;
      fill(entry);
      if (!edited || edited === entry) leave();
      tabs.postMessage({ id: home.dataset.id, clip_id: entry.told.clip_id, edited: kept.edited });
      tell(kept.edited === null ? "The model’s text is back." : "Your text is kept.");
    } catch (error) { tell(error.message); }
  };
  // What is kept or deleted in another tab shows here: nobody writes over a text that he has not seen.
  const tabs = new BroadcastChannel("narrations");
  tabs.addEventListener("message", ({ data }) => {
    if (data.id !== home.dataset.id) return;
    const entry = windows.get(data.clip_id);
    if (data.isDeleted) { stop(); progress.isGone(); } else if (entry) {
      take([{ ...entry.told, edited: data.edited }]);
      if (entry === edited) tell("This line was changed in another window meanwhile.");
    }
  });
  const isWriting = () => edited && element("text").value.trim() !== edited.text.trim();
  window.addEventListener("beforeunload", (event) => { if (isWriting()) event.preventDefault(); });
  const leave = () => {
    const wasOpen = !element("editor").hidden;
    edited = null;
    element("editor").hidden = true;
    element("edit").hidden = false;
    current = null;
    show(now);
    if (wasOpen) element("edit").focus();
  };
  element("edit").addEventListener("click", () => {
    if (!current) return;
    edited = current;
    video.pause();
    element("edited-times").textContent = `${precise(edited.start)}–${precise(edited.end)}`;
    element("text").value = edited.text;
    element("editor").hidden = false;
    element("edit").hidden = true;
    element("text").focus();
  });
  element("editor").addEventListener("submit", (event) => { event.preventDefault(); keep(edited, element("text").value); });
  element("editor").addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element("editor").requestSubmit();
  });
  element("leave").addEventListener("click", leave);
  element("restore").addEventListener("click", () => { if (current) keep(current, null); });

  // ---- search ----
  const hit = (entry) => {
    const wanted = search.value.trim().toLocaleLowerCase();
    const isHit = !wanted || entry.text.toLocaleLowerCase().includes(wanted);
    if (isHit !== entry.isHit) entry.row.hidden = !isHit;
    entry.isHit = isHit;
  };
  const count = () => {
    element("hits").hidden = !search.value.trim();
    if (!element("hits").hidden) element("hits").textContent = `${order.filter((one) => one.isHit).length} of ${order.length}`;
  };
  const find = () => {
    order.forEach(hit);
    count();
    draw();
  };
  search.addEventListener("input", find);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const next = order.find((one) => one.isHit && one.start > now) || order.find((one) => one.isHit);
    if (next) goTo(next.start);
  });

  // ---- how far it is ----
  const describe = (told) => progress.describe(told, order.length > 0);
  // A browser comes back by itself where the line breaks, but not after an answer that it does not like, such as the 503
  // of an app with too many clients: that is for us, at growing intervals.
  const shortestMs = 1000, longestMs = 30000;
  let source = null, pauseMs = shortestMs, again = null;
  const stop = () => {
    clearTimeout(again);
    if (source) source.close();
  };
  const follow = () => {
    stop();
    const own = source = new EventSource(`${address}/events`);
    own.addEventListener("open", () => { pauseMs = shortestMs; });
    own.addEventListener("windows", (event) => take(JSON.parse(event.data)));
    own.addEventListener("state", (event) => describe(JSON.parse(event.data)));
    own.addEventListener("end", stop);
    own.addEventListener("error", () => {
      if (own !== source || own.readyState !== EventSource.CLOSED) return;
      again = setTimeout(follow, pauseMs);
      pauseMs = Math.min(longestMs, 2 * pauseMs);
    });
  };
  const press = (name, act) => element(name).addEventListener("click", async () => {
    element(name).disabled = true;
    try { await act(); } catch (error) { tell(error.message); }
    element(name).disabled = false;
  });
  press("cancel", async () => { element("state").textContent = "It is being stopped."; await ask(`${address}/cancel`, { method: "POST" }); });
  press("retry", async () => { describe(await ask(`${address}/retry`, { method: "POST" })); follow(); });
  press("delete", async () => {
    if (!confirm("Delete the video and all that was said of it?")) return;
    stop();
    element("state").textContent = "It is being deleted.";
    try { await ask(address, { method: "DELETE" }); } catch (error) { follow(); throw error; }
    edited = null;
    tabs.postMessage({ id: home.dataset.id, isDeleted: true });
    location.assign("/narrate");
  });

  follow();
  const asked = Number(new URLSearchParams(location.hash.slice(1)).get("t") || 0);
  if (asked > 0) goTo(asked); else show(0);
})();
