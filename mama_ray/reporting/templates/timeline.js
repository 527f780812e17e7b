"use strict";
(() => {
  const element = (name) => document.getElementById(name);
  const video = element("video"), strip = element("strip"), list = element("entries"), search = element("search");
  const entries = Array.from(list.children, (row) => ({
    row, start: Number(row.dataset.start), end: Number(row.dataset.end),
    text: Array.from(row.querySelectorAll("bdi"), (one) => one.textContent).join("\n"), isHit: true,
  }));
  const duration = Number(element("watch").dataset.duration) || Math.max(1, ...entries.map((one) => one.end));
  let now = 0, current = null;

  const clock = (seconds) => {
    const whole = Math.floor(seconds), pad = (number) => String(number).padStart(2, "0");
    const minutes = Math.floor(whole / 60) % 60, hours = Math.floor(whole / 3600);
    return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
  };

  // How far the entries up to each one reach.
  const reach = entries.map((one) => one.end);
  for (let place = 1; place < reach.length; place++) reach[place] = Math.max(reach[place], reach[place - 1]);

  // Of the entries that have begun and not ended, the one that began last: clips of people may lie in longer ones.
  const entryAt = (time) => {
    let low = 0, high = entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (entries[middle].start <= time + 1e-6) low = middle + 1; else high = middle;
    }
    while (low > 0 && reach[low - 1] > time) {
      if (time < entries[low - 1].end) return entries[low - 1];
      low--;
    }
    return null;
  };

  const show = (time) => {
    now = time;
    element("clock").textContent = clock(time);
    const entry = entryAt(time);
    if (entry !== current) {
      if (current) current.row.classList.remove("current");
      current = entry;
      element("now-text").textContent = entry ? entry.text : "";
      if (entry) {
        entry.row.classList.add("current");
        const row = entry.row.getBoundingClientRect(), box = list.getBoundingClientRect();
        if (list.scrollHeight > list.clientHeight) list.scrollTop += row.top - box.top - box.height / 3;
      }
    }
    draw();
  };

  const draw = () => {
    const scale = window.devicePixelRatio || 1, width = strip.clientWidth, height = strip.clientHeight;
    strip.width = width * scale;
    strip.height = height * scale;
    const pen = strip.getContext("2d"), style = getComputedStyle(document.body);
    const colour = (name) => style.getPropertyValue(name).trim();
    pen.scale(scale, scale);
    for (const entry of entries) {
      const left = entry.start / duration * width, right = entry.end / duration * width;
      pen.fillStyle = colour(!entry.text ? "--series-3" : entry.isHit ? "--series-2" : "--grid");
      pen.globalAlpha = entry === current ? 1 : entry.isHit && search.value ? 0.95 : 0.55;
      pen.fillRect(left, 14, Math.max(0.6, right - left - (right - left > 3 ? 1 : 0)), height - 28);
    }
    pen.globalAlpha = 1;
    pen.fillStyle = colour("--accent");
    pen.fillRect(Math.min(width - 2, now / duration * width), 4, 2, height - 8);
  };

  const goTo = (time) => {
    const isLoaded = video.readyState > 0;
    if (isLoaded) video.currentTime = time;
    else pending = time;
    show(time);
  };

  let pending = null;
  video.addEventListener("loadedmetadata", () => {
    element("trouble").hidden = true;
    if (pending !== null) video.currentTime = pending;
    pending = null;
  });
  video.addEventListener("error", () => { element("trouble").hidden = false; });
  video.addEventListener("timeupdate", () => { if (pending === null) show(video.currentTime); });
  video.addEventListener("seeking", () => { if (pending === null) show(video.currentTime); });

  // Subtitles on the picture: a file beside the page could not be loaded from it without a server.
  const track = video.addTextTrack("subtitles", "narration", document.documentElement.lang);
  track.mode = "hidden";
  for (const entry of entries) {
    if (!entry.text) continue;
    const escaped = entry.text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    track.addCue(new VTTCue(entry.start, entry.end, escaped));
  }

  list.addEventListener("click", (event) => {
    const row = event.target.closest("li");
    if (row) goTo(Number(row.dataset.start));
  });
  strip.addEventListener("click", (event) => {
    const box = strip.getBoundingClientRect();
    goTo(Math.min(duration, Math.max(0, (event.clientX - box.left) / box.width * duration)));
  });
  element("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (!file) return;
    pending = now;
    video.src = URL.createObjectURL(file);
  });

  const find = () => {
    const wanted = search.value.trim().toLocaleLowerCase();
    let count = 0;
    for (const entry of entries) {
      entry.isHit = !wanted || entry.text.toLocaleLowerCase().includes(wanted);
      entry.row.hidden = !entry.isHit;
      count += entry.isHit;
    }
    element("hits").hidden = !wanted;
    element("hits").textContent = `${count} of ${entries.length}`;
    draw();
  };
  search.addEventListener("input", find);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const next = entries.find((one) => one.isHit && one.start > now) || entries.find((one) => one.isHit);
    if (next) goTo(next.start);
  });
  window.addEventListener("resize", draw);

  // "#t=75" in the address goes there, as in other players; "#t=75&q=cup" searches, too.
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.get("q")) { search.value = asked.get("q"); find(); }
  const time = Number(asked.get("t") || 0);
  if (time > 0) goTo(Math.min(time, duration)); else show(0);
})();
