"use strict";
(() => {
  const { element, ask, tell, make, save } = app;
  const PAGE = 24;
  const form = element("search"), words = element("words"), mixture = element("mixture"), filterForm = element("filter-form");
  const state = { plus: [], minus: [], like: [], unlike: [] };
  // What is ticked outlives a look at a clip's page, in this tab.
  const keptSelection = () => { try { return JSON.parse(sessionStorage.getItem("selected")) || []; } catch { return []; } };
  const selected = new Set(keptSelection());
  let last = 0, shown = 0, current = null, address = null;
  let others = []; // filters of the address that this page does not offer, as [name, value]: they count, or are refused

  // ---- what the address says, so that a search can be kept and sent to others

  const listNames = ["splits", "sources", "flags", "topics"], numberNames = ["min_duration_s", "max_duration_s"];

  const readFilters = () => {
    const data = new FormData(filterForm), filters = {};
    for (const name of listNames) if (data.getAll(name).length) filters[name] = data.getAll(name);
    for (const name of numberNames) if (data.get(name)) filters[name] = Number(data.get(name));
    if (data.get("without_flags")) filters.without_flags = true;
    if (data.get("error") && data.get("error") !== "any") filters.error = data.get("error");
    for (const [name, value] of others) {
      if (listNames.includes(name)) filters[name] = [...(filters[name] || []), value];
      else if (!(name in filters)) filters[name] = value;
    }
    return filters;
  };

  const writeAddress = () => {
    const asked = new URLSearchParams();
    if (words.value.trim()) asked.set("q", words.value.trim());
    for (const name of Object.keys(state)) for (const one of state[name]) asked.append(name, one);
    if (mixture.value !== "1") asked.set("mixture", mixture.value);
    for (const [name, value] of Object.entries(readFilters())) for (const one of [value].flat()) asked.append(name, one);
    const query = asked.toString();
    if (query !== location.search.slice(1)) {
      keepPlace();
      history.pushState(null, "", query ? `/?${query}` : "/");
    }
    address = location.search;
  };
  // Who comes back finds as many clips as were shown, at the same place.
  history.scrollRestoration = "manual";
  const keepPlace = () => history.replaceState({ shown, top: scrollY }, "");

  const readAddress = () => {
    const asked = new URLSearchParams(location.search);
    words.value = asked.get("q") || "";
    for (const name of Object.keys(state)) state[name] = [...new Set(asked.getAll(name).map((one) => one.trim()).filter(Boolean))];
    const mixed = Number.parseFloat(asked.get("mixture"));
    mixture.value = mixed >= 0 && mixed <= 1 ? mixed : 1;
    for (const field of filterForm.elements) {
      if (!field.name) continue;
      if (field.type === "checkbox") field.checked = field.name === "without_flags" ? asked.has(field.name) : asked.getAll(field.name).includes(field.value);
      else field.value = asked.get(field.name) || (field.tagName === "SELECT" ? "any" : "");
    }
    const fields = [...filterForm.elements];
    const isOffered = ([name, value]) => fields.some((field) => field.name === name && (field.type === "checkbox" ? field.value === value : field.value));
    others = [...asked].filter((one) => [...listNames, ...numberNames, "error"].includes(one[0]) && one[1] !== "any" && !isOffered(one));
    address = location.search;
  };

  // ---- terms

  const nameOf = (kind, value) => (kind === "plus" || kind === "minus" ? value : value.startsWith("example:") ? "uploaded clip" : `clip ${value}`);
  const showTerms = () => {
    const list = element("terms");
    list.replaceChildren();
    const show = (name, kind, drop) => {
      const remove = make("button", { type: "button", class: "plain", "aria-label": `remove ${name}`, text: "×", onclick: () => { drop(); run(); words.focus(); } });
      list.append(make("span", { role: "listitem", class: `term ${kind}` }, make("span", { text: `${kind === "minus" ? "− " : ""}${name}` }), remove));
    };
    for (const kind of Object.keys(state)) {
      const look = kind === "minus" || kind === "unlike" ? "minus" : "plus";
      for (const value of state[kind]) show(nameOf(kind, value), look, () => { state[kind] = state[kind].filter((one) => one !== value); });
    }
    for (const other of others) show(`${other[0].replaceAll("_", " ")}: ${other[1]}`, "filter", () => { others = others.filter((one) => one !== other); });
    const value = Number(mixture.value);
    element("mixture-told").textContent = value === 1 ? "pixels" : value === 0 ? "captions alone" : `${Math.round(100 * value)} % pixels`;
    const count = Object.keys(readFilters()).length;
    element("filters-told").hidden = count === 0;
    element("filters-told").textContent = count;
  };
  const add = (kind, value) => { if (value && !state[kind].includes(value)) state[kind].push(value); };
  const takeWords = (kind) => {
    if (!words.value.trim()) { words.focus(); tell("Type words first, then press this."); return; }
    add(kind, words.value.trim());
    words.value = "";
    words.focus();
    run();
  };

  // ---- searching

  const request = (limit) => ({
    plus: [words.value.trim(), ...state.plus].filter(Boolean), minus: state.minus, like: state.like, unlike: state.unlike,
    mixture: Number(mixture.value), filters: readFilters(), limit, offset: 0,
  });
  const isAsked = (asked) => asked.plus.length + asked.minus.length + asked.like.length + asked.unlike.length > 0;

  const search = async (offset, limit = PAGE) => {
    if (!offset) current = request(limit); // "More" goes on with what is shown, whatever has been typed since
    const asked = { ...current, limit, offset }, number = ++last, list = element("cards");
    showTerms();
    list.setAttribute("aria-busy", "true");
    try {
      const answer = await ask("/api/search", { method: "POST", json: asked });
      if (number !== last) return; // another search has been asked since
      if (offset === 0) list.replaceChildren();
      for (const hit of answer.hits) list.append(cards.card(hit, { onselect, isSelected: (clip) => selected.has(clip.clip_id), onlike: form.hidden ? null : onlike }));
      shown = offset + answer.hits.length;
      element("told").textContent = !answer.total ? "No clip passes the filters."
        : isAsked(asked) ? `${answer.total.toLocaleString("en")} clips, the best first · ${answer.took_ms.toFixed(0)} ms`
          : `${answer.total.toLocaleString("en")} clips, in the order of the corpus.${cards.isStill.matches ? "" : " Move over one to play it."}`;
      element("more").hidden = shown >= answer.total || answer.hits.length === 0;
    } catch (error) {
      if (number !== last) return;
      if (offset > 0) { tell(error.message); return; } // what is shown stays
      element("told").textContent = error.message;
      list.replaceChildren();
      element("more").hidden = true;
    } finally {
      if (number === last) list.removeAttribute("aria-busy");
    }
  };
  const run = () => { writeAddress(); return search(0); };

  // ---- selection

  const showSelection = () => {
    element("selection").hidden = selected.size === 0;
    element("selected").textContent = `${selected.size} selected`;
    try { sessionStorage.setItem("selected", JSON.stringify([...selected])); } catch { /* it is gone with the page */ }
  };
  const onselect = (clip, isOn) => {
    if (isOn) selected.add(clip.clip_id); else selected.delete(clip.clip_id);
    showSelection();
  };
  const onlike = (clip) => { words.value = ""; Object.assign(state, { plus: [], minus: [], like: [clip.clip_id], unlike: [] }); scrollTo({ top: 0 }); run(); };
  element("export").addEventListener("click", () => save("clip_ids.txt", [...selected, ""].join("\n")));
  if (element("as-plus")) element("as-plus").addEventListener("click", () => { for (const id of selected) add("like", id); run(); });
  element("unselect").addEventListener("click", () => {
    selected.clear();
    showSelection();
    for (const box of element("cards").querySelectorAll("input[type=checkbox]")) box.checked = false;
  });

  // ---- events

  form.addEventListener("submit", (event) => { event.preventDefault(); run(); });
  element("add-plus").addEventListener("click", () => takeWords("plus"));
  element("add-minus").addEventListener("click", () => takeWords("minus"));
  mixture.addEventListener("input", showTerms);
  mixture.addEventListener("change", run);
  filterForm.addEventListener("change", run);
  filterForm.addEventListener("submit", (event) => { event.preventDefault(); run(); });
  element("clear-filters").addEventListener("click", () => { filterForm.reset(); others = []; run(); });
  element("more").addEventListener("click", () => search(shown));
  element("example").addEventListener("change", async (event) => {
    const [file] = event.target.files, label = element("example-label");
    if (!file) return;
    label.textContent = "Reading …";
    try {
      const { name } = await ask("/api/search/example", { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });
      add("like", name);
      await run();
    } catch (error) {
      tell(error.message);
    } finally {
      label.textContent = "Example clip …";
      event.target.value = "";
    }
  });
  element("filters").open = matchMedia("(min-width: 821px)").matches;
  const open = async () => {
    const { shown: most = PAGE, top = 0 } = history.state || {};
    readAddress();
    await search(0, Math.min(200, Math.max(PAGE, most)));
    if (top) scrollTo({ top });
  };
  // A link within the page, such as that to its content, is no other search.
  window.addEventListener("popstate", () => { if (location.search !== address) open(); });
  window.addEventListener("pagehide", keepPlace);
  showSelection();
  open();
})();
